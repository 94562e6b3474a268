"""The training loop around its steps, with steps that cost nothing."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import data
from diffjax.errors import UserError
from diffjax.runs import train as loop
from diffjax.tasks.generation import Generation
from diffjax.training.checkpoints import Checkpoints


@pytest.fixture
def train(monkeypatch, tiny_config):
    """A function: trains with a step that only counts, after `before(step)`, whose loss is `loss(step)`."""

    def run(workdir, *, before=lambda step: None, loss=lambda step: 0.5, profile=False, **fields):
        def make_train_step(*_, **__):
            def train_step(state, batch):
                before(int(state.step) + 1)
                value = loss(int(state.step) + 1)
                skipped = jnp.where(jnp.isfinite(value), 0, state.skipped + 1)
                state = state.replace(step=state.step + 1, skipped=skipped)
                finite = jnp.isfinite(value) | (jnp.arange(8) != 3)
                metrics = {"loss": value, "grad_norm": 1.0, "skipped": skipped, "finite": finite}
                buckets = {"bucket_loss": [value], "bucket_weight": [1.0]}
                return state, jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], metrics) | {
                    name: jnp.asarray(sums)[None] for name, sums in buckets.items()
                }

            train_step.shard = train_step.gather = lambda state: state
            return train_step

        monkeypatch.setattr(loop, "make_train_step", make_train_step)
        monkeypatch.setattr(Generation, "init", lambda self, key: {"w": jax.random.normal(key, (100, 200))})
        config = tiny_config(**{"train__final_pictures": False} | fields)
        return loop.train(config, workdir, progress=False, profile=profile)

    return run


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False, capture_output=True)
    if mount.returncode:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_ends_in_one_line_and_the_checkpoint_before_stays(train, small_disk):
    filler, workdir = small_disk / "filler", small_disk / "run"

    def fill(step):
        if step == 6:
            deadline = time.monotonic() + 120
            while not (workdir / "checkpoints" / "4").exists() and time.monotonic() < deadline:
                time.sleep(0.005)
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))

    full = r"^cannot write a checkpoint in .*/run/checkpoints: No space left on device; that of step 4 is whole\. Make room"
    with pytest.raises(UserError, match=full):
        train(workdir, before=fill)
    with pytest.raises(UserError, match=r"cannot write .*: No space left on device"):
        train(workdir)
    filler.unlink()
    assert int(train(workdir).step) == 12
    assert [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()] == [
        *range(1, 13)
    ]
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.latest_step == 12


def test_a_loss_that_is_not_finite_names_the_last_good_checkpoint(train, tmp_path):
    lines = (
        "loss or gradient of 2 steps in a row, up to step 7, are not finite .* the last checkpoint is that of step 4"
    )
    with pytest.raises(UserError, match=lines):
        train(tmp_path, loss=lambda step: float("nan") if step >= 6 else 0.5, train__max_nonfinite_steps=1)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 4


def test_a_checkpoint_from_which_no_step_could_be_taken_is_not_the_last_good_one(train, tmp_path):
    """Steps 9, 10, … all fail: what step 8 made of the parameters was saved, and is ruined."""
    with pytest.raises(
        UserError, match=r"of 3 steps in a row, up to step 11, .* the last checkpoint is that of step 4"
    ):
        train(tmp_path, loss=lambda step: float("nan") if step > 8 else 0.5, train__max_nonfinite_steps=2)
    assert (tmp_path / "damaged" / "8").is_dir()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 4


def test_the_only_checkpoint_is_never_set_aside(train, tmp_path):
    with pytest.raises(UserError, match=r"up to step 5, .* the last checkpoint is that of step 4"):
        train(tmp_path, loss=lambda step: float("nan") if step > 4 else 0.5, train__max_nonfinite_steps=0)
    assert not (tmp_path / "damaged").exists()


def test_no_checkpoint_is_written_after_a_skipped_step(train, tmp_path):
    with pytest.warns(UserWarning, match="no checkpoint of step 8 is written: its last step was skipped"):
        train(tmp_path, loss=lambda step: float("nan") if step in (7, 8) else 0.5, train__max_to_keep=1)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 12


def test_a_training_that_ends_in_skipped_steps_ends_with_an_error(train, tmp_path):
    words = r"of 2 steps in a row, up to step 12, are not finite \(these are the last steps\); the last .* of step 8"
    with pytest.raises(UserError, match=words):
        train(tmp_path, loss=lambda step: float("nan") if step > 10 else 0.5)


def test_all_skipped_steps_are_counted_at_the_end(train, tmp_path):
    with pytest.warns(UserWarning, match="^3 steps were skipped in all"):
        train(tmp_path, loss=lambda step: float("nan") if step in (2, 6, 10) else 0.5)


def test_a_few_steps_that_are_not_finite_are_skipped(train, tmp_path):
    index = data.source_index(range(1797), seed=0, number=4 * 8 + 3)
    words = (
        rf"the loss or gradient of step 5 is not finite \(the losses of 1 of its 8 examples, such as image {index}\): "
        "the step is skipped"
    )
    with pytest.warns(UserWarning, match=words):
        train(tmp_path, loss=lambda step: float("nan") if step in (5, 6) else 0.5, train__max_nonfinite_steps=2)
    reports = {line["step"]: line for line in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())}
    assert [step for step, line in reports.items() if line["skipped"]] == [5, 6]
    assert "loss" not in reports[5]
    assert reports[7]["loss"] == 0.5


def test_an_example_of_data_on_the_devices_is_named_by_its_index(train, tmp_path):
    _, key = jax.random.split(jax.random.key(0))
    index = data.on_device.sampled_index(1797, key, 4, 3)
    with pytest.warns(
        UserWarning, match=rf"of step 5 is not finite \(.* 1 of its 8 examples, such as image {index}\): "
    ):
        train(tmp_path, loss=lambda step: float("nan") if step == 5 else 0.5, data__on_device=True)


def test_profile(train, tmp_path):
    train(tmp_path / "long", train__steps=20, train__checkpoint_every=50, profile=True)
    assert list((tmp_path / "long" / "profile").rglob("*.xplane.pb"))
    with pytest.warns(UserWarning, match="no profile: 8 steps were done, and tracing begins after 10"):
        train(tmp_path / "short", train__steps=8, train__checkpoint_every=50, profile=True)


def test_a_workdir_that_cannot_be_written(train, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"cannot write {tmp_path}/file/run: Not a directory"):
        train(tmp_path / "file" / "run")


def test_a_config_may_be_partial_and_pictures_can_be_left_out(train, tmp_path):
    train(tmp_path, train__steps=4)
    assert json.loads((tmp_path / "config.json").read_text())["sample"]["sampler"] == "ddim"
    assert not list(tmp_path.glob("*.png"))
    with pytest.raises(UserError, match="config.train.steps: 0 must be a whole number ≥ 1"):
        loop.train({"train": {"steps": 0}}, tmp_path, progress=False)


@pytest.fixture
def drawn(monkeypatch):
    """The kinds of the pictures that were drawn, by functions that draw nothing; the first of each kind is interrupted."""
    kinds = []

    def interrupt(kind):
        kinds.append(kind)
        if kinds.count(kind) == 1:
            raise KeyboardInterrupt
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr(Generation, "preview", lambda *_: interrupt("preview"))
    closing = lambda *_: {name: interrupt("closing") for name in ("samples", "denoising")}  # noqa: E731
    monkeypatch.setattr(Generation, "pictures", closing)
    return kinds


def test_pictures_that_were_interrupted_are_drawn_at_the_next_start(train, drawn, tmp_path):
    fields = {"train__sample_every": 8, "train__final_pictures": True}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, **fields)
    leftover = tmp_path / "samples" / f"step_0000008.png.{socket.gethostname()}.{2**22 + 1}.part"
    leftover.parent.mkdir(exist_ok=True)
    leftover.write_bytes(b"half of")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, **fields)
    assert drawn == ["preview", "preview", "closing"]
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["step_0000008.png"]
    assert int(train(tmp_path, **fields).step) == 12
    assert drawn == ["preview", "preview", "closing", "closing", "closing"]
    assert {path.name for path in tmp_path.glob("*.png")} == {"samples.png", "denoising.png"}
    train(tmp_path, **fields)
    assert len(drawn) == 5
    (tmp_path / "denoising.png").unlink()
    train(tmp_path, **fields)
    assert len(drawn) == 7


def test_a_signal_in_the_last_step_leaves_the_pictures_for_the_next_start(train, drawn, tmp_path):
    drawn += ["preview", "closing"]

    def interrupt(step):
        if step == 12:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, before=interrupt, train__final_pictures=True)
    assert drawn == ["preview", "closing"]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 12
    train(tmp_path, train__final_pictures=True)
    assert drawn == ["preview", "closing", "closing", "closing"]
