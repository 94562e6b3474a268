import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax.errors import UserError
from diffjax.training import state, timestep_sampling
from diffjax.training.checkpoints import Checkpoints, has_checkpoint
from diffjax.training.step import replicate


def make(seed=0):
    def init(key):
        return {"w": jax.random.normal(key, (30, 20)), "b": jnp.zeros(2)}

    create = state.create(
        init,
        optax.adam(1e-3),
        jax.random.key(seed),
        ema_decays=(0.9, 0.999),
        history=timestep_sampling.empty_history(5),
    )
    return replicate(create, jax.devices())


def assert_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


def test_everything_comes_back_bit_equal(tmp_path):
    averages = {decay: {"w": jnp.full((30, 20), decay), "b": jnp.ones(2)} for decay in (0.9, 0.999)}
    saved = make(1).replace(step=jnp.int32(7), ema_params=averages)
    assert not has_checkpoint(tmp_path)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest_step is None
        checkpoints.save(saved, {"next_index": 41})
    assert has_checkpoint(tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 7
        restored, position = checkpoints.restore(make(2))
        assert_equal(restored, saved)
        assert position == {"next_index": 41}
        assert jax.tree.leaves(restored.params)[0].sharding.is_fully_replicated
        like = jax.eval_shape(lambda: saved.params)
        for decay in (0.9, 0.999):
            assert_equal(checkpoints.restore_params(like, ema=decay), (7, averages[decay]))
        assert_equal(checkpoints.restore_params(like, ema=None), (7, saved.params))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state.replace(skipped=jnp.int32(1)), "its last step was skipped"),
        (lambda state: state.replace(params=jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), state.params)), "its p"),
        (lambda state: state.replace(ema_params=jax.tree.map(lambda leaf: leaf / 0, state.ema_params)), "its p"),
    ],
)
def test_a_ruined_state_takes_no_good_ones_place(change, reason, tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(make(1).replace(step=jnp.int32(1)), {})
        with pytest.warns(UserWarning, match=f"no checkpoint of step 2 is written: {reason}"):
            checkpoints.save(change(make(1).replace(step=jnp.int32(2))), {})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(make(1))[0].step == 1


def test_the_newest_n_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in range(1, 6):
            checkpoints.save(make().replace(step=jnp.int32(step)), {})
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["4", "5"]


def test_none_there(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match="no checkpoint in .*: train first"):
        checkpoints.restore(make())
    assert not list(tmp_path.iterdir())  # who only reads makes nothing


@pytest.fixture
def two(tmp_path):
    """A folder with checkpoints 1 and 2, and the states they hold."""
    states = {step: make(step).replace(step=jnp.int32(step)) for step in (1, 2)}
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, saved in states.items():
            checkpoints.save(saved, {"next_index": 10 * step})
    return tmp_path, states


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def array_files(folder):
    return list(folder.rglob("d/*"))


DAMAGES = {
    "cut in half": lambda path, content: path.write_bytes(content[: len(content) // 2]),
    "empty": lambda path, content: path.write_bytes(b""),
    "zeros": lambda path, content: path.write_bytes(bytes(len(content))),
    "gone": lambda path, content: path.unlink(),
    "a bit": lambda path, content: path.write_bytes(
        content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_gives_way_to_the_one_before(two, damage):
    workdir, states = two
    newest = workdir / "checkpoints" / "2"
    whole = contents(newest)
    for part in ("params", "ema_0.9", "rest", "data"):
        paths = [newest / "data" / "metadata"] if part == "data" else array_files(newest / part)
        for path in paths:
            DAMAGES[damage](path, whole[path])
        before = contents(workdir)
        warning = rf"cannot read checkpoint {newest}: .*; using {workdir}/checkpoints/1 instead"
        with Checkpoints(workdir) as checkpoints:
            with pytest.warns(UserWarning, match=warning):
                restored, position = checkpoints.restore(make())
            assert_equal(restored, states[1])
            assert position == {"next_index": 10}
            if part == "ema_0.9":
                with pytest.warns(UserWarning, match=warning):
                    assert_equal(checkpoints.restore_params(make().params, ema=0.9), (1, states[1].ema_params[0.9]))
                assert checkpoints.restore_params(make().params, ema=None)[0] == 2  # that part is whole
        assert contents(workdir) == before
        for path in paths:
            path.write_bytes(whole[path])


def test_the_run_that_goes_on_sets_a_damaged_one_aside(two):
    workdir, states = two
    for again in ("2", "2.2"):
        for path in array_files(workdir / "checkpoints" / "2" / "rest"):
            path.write_bytes(b"")
        before = contents(workdir / "checkpoints" / "2")
        with Checkpoints(workdir, keep=2) as checkpoints:
            with pytest.warns(UserWarning, match="checkpoints/1 instead"):
                checkpoints.restore(make())
            assert checkpoints.latest_step == 1
            checkpoints.save(states[2], {})  # the step can be saved again
        assert list(contents(workdir / "damaged" / again).values()) == list(before.values())
        with Checkpoints(workdir) as checkpoints:
            assert_equal(checkpoints.restore(make())[0], states[2])


def test_none_readable_is_one_line_and_loses_nothing(two):
    workdir, _ = two
    like = make().replace(params={"w": jnp.zeros((4, 2)), "b": jnp.zeros(2)})
    before = contents(workdir)
    with Checkpoints(workdir, keep=2) as checkpoints, pytest.raises(UserError) as caught:
        checkpoints.restore(like)
    assert str(caught.value).startswith(f"cannot read checkpoint {workdir}/checkpoints/2: ")
    assert str(caught.value).endswith("(nor can 1 be) — nothing was changed")
    assert "\n" not in str(caught.value)
    assert contents(workdir) == before


def test_another_optimizer_s_state_is_reported_as_such_and_parameters_are_read(two):
    workdir, states = two
    like = make().replace(opt_state=optax.sgd(0.1, momentum=0.9).init(make().params))
    with Checkpoints(workdir, keep=2) as checkpoints:
        with pytest.raises(UserError, match="checkpoints/2: it holds another state .*nothing was changed"):
            checkpoints.restore(like)
        assert_equal(checkpoints.restore_params(like.params, ema=None), (2, states[2].params))


def test_what_a_kill_left_half_written_is_no_checkpoint_and_is_cleared_by_the_next_run(two):
    workdir, states = two
    half = workdir / "checkpoints" / "3.orbax-checkpoint-tmp"
    shutil.copytree(workdir / "checkpoints" / "2", half)
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.latest_step == 2
    assert half.exists()  # it may be that the training still runs
    with Checkpoints(workdir, keep=2) as checkpoints:
        checkpoints.save(states[2].replace(step=jnp.int32(3)), {})
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["2", "3"]


def test_a_write_that_fails_is_reported_and_leaves_the_one_before(tmp_path, file_size_limit):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(make(1).replace(step=jnp.int32(1)), {})
        checkpoints.check()

    def fail():
        with Checkpoints(tmp_path, keep=1) as checkpoints, file_size_limit(1000):
            checkpoints.save(make(2).replace(step=jnp.int32(2)), {})
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:  # it is in the background that the write fails
                checkpoints.check()

    with pytest.raises(UserError) as caught:
        fail()
    assert str(caught.value) == (
        f"cannot write a checkpoint in {tmp_path}/checkpoints: File too large; that of step 1 is whole. Make room, "
        "then the same command resumes from there"
    )
    with Checkpoints(tmp_path) as checkpoints:
        assert_equal(checkpoints.restore(make())[0], make(1).replace(step=jnp.int32(1)))
    with Checkpoints(tmp_path, keep=1) as checkpoints:  # the step can be saved after all
        checkpoints.save(make(2).replace(step=jnp.int32(2)), {})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]
