import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffjax import files
from diffjax.errors import UserError
from diffjax.training import lock, logging
from diffjax.training.lock import locked

pytestmark = pytest.mark.usefixtures("storage")


@pytest.mark.parametrize("given", ["gs://bucket/a/b", "gs:/bucket/a/b", Path("gs://bucket/a/b"), "gs://bucket/a/b/"])
def test_a_path_in_a_bucket(given):
    path = files.to_path(given)
    assert files.in_bucket(path)
    assert files.to_path(path) == path == path.resolve() == path.absolute()
    found = map(str, (path, path / "c", path.parent, path.with_suffix(".x")))
    assert list(found) == ["gs://bucket/a/b", "gs://bucket/a/b/c", "gs://bucket/a", "gs://bucket/a/b.x"]


def test_a_path_without_a_bucket():
    with pytest.raises(UserError, match="gs:// names no bucket"):
        files.to_path("gs://")


def test_a_bucket_that_cannot_be_reached(monkeypatch):
    from diffjax import buckets

    def refuse(path):
        raise RuntimeError("401: no access\nmore")

    buckets._check_reachable.cache_clear()
    monkeypatch.setattr(buckets.PosixGPath, "exists", refuse)
    with pytest.raises(UserError, match="^cannot reach gs://mine: 401: no access$"):
        files.to_path("gs://mine/run")


def test_an_object_is_written_whole_or_not_at_all(storage):
    path = files.write("gs://bucket/whole/text", "ε")
    assert path.read_text() == "ε"
    with pytest.raises(AttributeError), files.atomic(path) as part:
        part.write_text("half").stop()
    assert not part.exists()
    assert path.read_text() == "ε"
    assert [name for name in storage.names() if name.startswith("whole/")] == ["whole/text"]


def test_arrays_in_a_bucket():
    path = files.write_arrays("gs://bucket/arrays/x.npz", x=np.arange(5))
    np.testing.assert_array_equal(np.load(io.BytesIO(path.read_bytes()))["x"], np.arange(5))


def test_an_object_that_cannot_be_written_is_an_os_error(monkeypatch):
    from diffjax import buckets

    path = files.to_path("gs://bucket/refused")

    def refuse(path, data):
        raise RuntimeError("403")

    monkeypatch.setattr(buckets.PosixGPath, "write_bytes", refuse)
    with pytest.raises(OSError, match="403"):
        files.write(path, "x")


def test_one_run_at_a_time(storage):
    folder = "gs://bucket/locked"
    with locked(folder):
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        text = f"^{folder} is in use by {holder}: .* remove the object {folder}/lock$"
        with pytest.raises(UserError, match=text), locked(folder):
            pass
        assert "locked/lock" in storage.names()
    assert "locked/lock" not in storage.names()


def test_the_lock_of_a_killed_process_of_this_machine_is_taken_over():
    folder = "gs://bucket/killed"
    code = (
        "import sys, time\n"
        "from diffjax.training.lock import locked\n"
        "with locked(sys.argv[1]):\n"
        "    print(flush=True)\n"
        "    time.sleep(100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(UserError, match=f"in use by process {process.pid} on "), locked(folder):
            pass
        process.send_signal(signal.SIGKILL)
    with locked(folder):
        pass


@pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"boot": "another"}])
def test_a_lock_of_another_machine_is_not_taken_over(other):
    folder = f"gs://bucket/of-{next(iter(other))}"
    ended = {"process": 2**22 + 1, "host": socket.gethostname(), "boot": lock._boot(), "id": "x"}
    path = files.write(f"{folder}/lock", json.dumps(ended | other))
    with pytest.raises(UserError, match=f"in use by process {2**22 + 1} on "), locked(folder):
        pass
    path.unlink()
    with locked(folder):
        pass


def test_of_two_that_claim_a_lock_at_once_one_holds_it(monkeypatch):
    folder, claim = "gs://bucket/raced", lock._has_ended
    files.write(
        f"{folder}/lock", json.dumps({"process": 2**22 + 1, "host": socket.gethostname(), "boot": lock._boot()})
    )

    def lose(content):  # another one writes between the reading and the writing
        files.write(f"{folder}/lock", json.dumps({"process": 1, "host": "quicker"}))
        return claim(content)

    monkeypatch.setattr(lock, "_has_ended", lose)
    with pytest.raises(UserError, match="in use by process 1 on quicker"), locked(folder):
        pass


def test_metrics_resume_in_a_bucket(storage):
    workdir = "gs://bucket/metrics"
    with logging.MetricWriter(workdir, step=0) as writer:
        writer.write(1, {"loss": 1.0})
        assert "metrics/metrics.jsonl" not in storage.names()
        writer.flush()  # as before each checkpoint
        assert logging.read(workdir) == [{"step": 1, "loss": 1.0}]
        writer.write(2, {"loss": 0.5})
        writer.write_image(2, "samples", np.zeros((2, 2, 3), np.uint8))
    assert [report["step"] for report in logging.read(workdir)] == [1, 2]
    with logging.MetricWriter(workdir, step=1) as writer:
        writer.write(2, {"loss": 0.25})
    assert logging.read(workdir) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.25}]
    assert any(name.startswith("metrics/tensorboard/events") for name in storage.names())


def test_metrics_that_cannot_be_copied_do_not_stop_a_run(monkeypatch):
    def refuse(folder, target):
        raise OSError(5, "no access")

    monkeypatch.setattr(logging, "upload", refuse)
    with logging.MetricWriter("gs://bucket/deaf", step=0) as writer:
        with pytest.warns(UserWarning, match=r"cannot write metrics \(gs://bucket/deaf\): no access"):
            writer.flush()
        writer.write(1, {"loss": 1.0})
