import io
import json
import sys
import types
import warnings

import numpy as np
import pytest
from PIL import Image
from tensorboard.compat.proto import event_pb2

from diffjax import json_files
from diffjax.errors import UserError
from diffjax.training.logging import MetricWriter, check_wandb, read


def records(path):
    """TensorBoard's record format: length (8 bytes), its checksum (4), data, checksum (4)."""
    blob = path.read_bytes()
    while blob:
        size = int.from_bytes(blob[:8], "little")
        yield event_pb2.Event.FromString(blob[12 : 12 + size])
        blob = blob[16 + size :]


def test_both_files_say_the_same(tmp_path):
    with MetricWriter(tmp_path, step=0) as writer:
        writer.write(1, {"loss": 0.5})
        writer.write(2, {"loss": 0.25})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line.pop("checksum") for line in lines] == [json_files.checksum(line) for line in lines]
    assert lines == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
    (path,) = (tmp_path / "tensorboard").iterdir()
    events = [(e.step, v.tag, v.simple_value) for e in records(path) for v in e.summary.value]
    assert events == [(1, "loss", 0.5), (2, "loss", 0.25)]


def test_pictures_go_where_pictures_are_shown(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    with MetricWriter(tmp_path, step=0) as writer:
        writer.write_image(3, "samples", picture)
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    (path,) = (tmp_path / "tensorboard").iterdir()
    ((step, value),) = [(e.step, v) for e in records(path) for v in e.summary.value]
    assert (step, value.tag, value.image.height, value.image.width) == (3, "samples", 4, 6)
    np.testing.assert_array_equal(Image.open(io.BytesIO(value.image.encoded_image_string)), picture)


def test_what_a_stopped_run_wrote_past_its_checkpoint_is_dropped(tmp_path):
    with MetricWriter(tmp_path, step=0) as writer:
        for step in range(1, 6):
            writer.write(step, {"loss": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # cut short by a kill
    with MetricWriter(tmp_path, step=3) as writer:
        writer.write(4, {"loss": 40.0})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]


def test_a_full_disk_is_reported_once_and_nothing_is_lost(tmp_path, file_size_limit):
    with MetricWriter(tmp_path, step=0) as writer:
        writer.write(1, {"loss": 1.0})
        size = (tmp_path / "metrics.jsonl").stat().st_size
        with file_size_limit(size + 7), warnings.catch_warnings(record=True) as warned:
            for step in (2, 3):
                writer.write(step, {"loss": float(step)})
        assert (tmp_path / "metrics.jsonl").stat().st_size == size + 7
        writer.write(4, {"loss": 4.0})
    messages = [str(warning.message) for warning in warned]
    assert messages == [
        f"cannot write metrics ({tmp_path / name}): File too large; training goes on"
        for name in ("metrics.jsonl", "tensorboard")
    ]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    (path,) = (tmp_path / "tensorboard").iterdir()
    assert [e.step for e in records(path) if e.summary.value] == [1, 2, 3, 4]


def test_weights_and_biases_if_configured(tmp_path, monkeypatch):
    calls = []

    class Run:
        def log(self, values, step):
            calls.append((step, values))

        def finish(self):
            calls.append("finish")

    fake = types.ModuleType("wandb")
    fake.init = lambda **options: calls.append(options) or Run()
    fake.Image = lambda picture: ("image", picture.shape)
    fake.__spec__ = object()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    check_wandb("digits")
    (tmp_path / "run").mkdir()
    for step in (0, 1):
        with MetricWriter(tmp_path / "run", step=step, wandb="digits", config={"seed": 0}) as writer:
            writer.write(step + 1, {"loss": 0.5})
            writer.write_image(step + 1, "samples", np.zeros((4, 6, 3), np.uint8))
    first, second = calls[0], calls[4]
    assert first == second  # one run, gone on with
    assert (first["project"], first["name"], first["config"], first["resume"]) == (
        "digits",
        "run",
        {"seed": 0},
        "allow",
    )
    for step, made in ((1, calls[1:4]), (2, calls[5:])):
        assert made == [(step, {"loss": 0.5}), (step, {"samples": ("image", (4, 6, 3))}), "finish"]


def test_weights_and_biases_that_is_not_there(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_wandb(None)
    with pytest.raises(UserError, match="config.train.wandb: 'digits' needs the package wandb"):
        check_wandb("digits")


def test_read_leaves_out_what_a_kill_cut_short(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*metrics.jsonl: No such file"):
        read(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": NaN}\n{"step": 3, "lo')
    reports = read(tmp_path)
    assert reports[0] == {"step": 1, "loss": 2.0}
    assert [report["step"] for report in reports] == [1, 2]
