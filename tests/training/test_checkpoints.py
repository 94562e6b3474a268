import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax.errors import UserError
from diffjax.training import draws, state
from diffjax.training.checkpoints import Checkpoints
from diffjax.training.step import replicate


def make(seed=0):
    def init(key):
        return {"w": jax.random.normal(key, (3, 2)), "b": jnp.zeros(2)}

    create = state.create(
        init, optax.adam(1e-3), jax.random.key(seed), ema_decays=(0.9, 0.999), history=draws.empty_history(5)
    )
    return replicate(create, jax.devices())


def assert_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


def test_everything_comes_back_bit_equal(tmp_path):
    averages = {0.9: {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}, 0.999: {"w": jnp.zeros((3, 2)), "b": jnp.ones(2)}}
    saved = make(1).replace(step=jnp.int32(7), skipped=jnp.int32(2), ema_params=averages)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest_step is None
        checkpoints.save(saved, {"next_index": 41})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 7
        restored, position = checkpoints.restore(make(2))
        assert_equal(restored, saved)
        assert position == {"next_index": 41}
        assert jax.tree.leaves(restored.params)[0].sharding.is_fully_replicated
        like = jax.eval_shape(lambda: saved.params)
        for decay in (0.9, 0.999):
            assert_equal(checkpoints.restore_params(like, ema=decay), averages[decay])
        assert_equal(checkpoints.restore_params(like, ema=None), saved.params)


def test_the_newest_n_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in range(1, 6):
            checkpoints.save(make().replace(step=jnp.int32(step)), {})
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["4", "5"]


def test_none_there(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match="no checkpoint in .*: train first"):
        checkpoints.restore(make())


@pytest.mark.parametrize("damage", ["truncate", "remove", "other_shapes"])
def test_unreadable_is_one_line_and_loses_nothing(tmp_path, damage):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make().replace(step=jnp.int32(1)), {})
        checkpoints.save(make().replace(step=jnp.int32(2)), {})
    like = make()
    folder = tmp_path / "checkpoints" / "2"
    if damage == "truncate":
        for path in (p for p in folder.rglob("*") if p.is_file() and p.stat().st_size):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "remove":
        for path in (folder / "rest").rglob("*"):
            path.is_file() and path.unlink()
    else:
        like = like.replace(params={"w": jnp.zeros((4, 2)), "b": jnp.zeros(2)})
    before = {p: p.read_bytes() for p in (tmp_path / "checkpoints").rglob("*") if p.is_file()}
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError) as caught:
        checkpoints.restore(like)
    message = str(caught.value)
    assert message.startswith(f"cannot read checkpoint {folder}")
    assert "\n" not in message
    assert before == {p: p.read_bytes() for p in (tmp_path / "checkpoints").rglob("*") if p.is_file()}
