import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from diffjax import files


def test_a_file_is_written_whole(tmp_path):
    path = tmp_path / "new" / "text.json"
    assert files.write(path, "η = 0") == path
    assert path.read_text(encoding="utf-8") == "η = 0"
    files.write(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    assert [file.name for file in path.parent.iterdir()] == ["text.json"]


def test_or_not_at_all(tmp_path):
    path = files.write(tmp_path / "text", "before")

    def stopped():
        with files.atomic(path) as part:
            part.write_text("half of")
            assert path.read_text() == "before"
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stopped()
    assert [file.name for file in tmp_path.iterdir()] == ["text"]
    assert path.read_text() == "before"


def test_arrays(tmp_path):
    files.write_arrays(tmp_path / "x.npz", a=np.arange(3), b=np.array("text"))
    with np.load(tmp_path / "x.npz") as file:
        assert (file["a"].tolist(), str(file["b"])) == ([0, 1, 2], "text")


def test_what_killed_processes_left_is_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = socket.gethostname()
    left = tmp_path / f"a.png.{here}.{ended.pid}.part"
    others = [f"a.png.{here}.{os.getppid()}.part", f"a.png.elsewhere.{ended.pid}.part", "b.part", "c.json"]
    for name in (left.name, *others):
        (tmp_path / name).write_text("half of")
    folder = tmp_path / f"parts.{here}.{ended.pid}.part"
    (folder / "within").mkdir(parents=True)
    files.write(tmp_path / "c.json", "{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
