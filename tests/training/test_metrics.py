import json

from tensorboardX.proto import event_pb2

from diffjax.training.metrics import MetricWriter


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
    assert lines == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
    (path,) = (tmp_path / "tensorboard").iterdir()
    events = [(e.step, v.tag, v.simple_value) for e in records(path) for v in e.summary.value]
    assert events == [(1, "loss", 0.5), (2, "loss", 0.25)]


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
