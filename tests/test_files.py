import os
import socket
import subprocess
import sys
import zipfile

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


def test_arrays_of_an_npz_file(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.eye(2))
    assert files.read_npz(tmp_path / "a.npz").keys() == {"x", "y"}
    assert files.read_npz(tmp_path / "a.npz", ["x"])["x"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="^'z' is not in .*a.npz; it has 'x', 'y'$"):
        files.read_npz(tmp_path / "a.npz", ["x", "z"])
    with pytest.raises(ValueError, match="^path='.*' must be an existing file"):
        files.read_npz(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"text", "np.savez writes such files"),
        (b"\n<!DOCTYPE html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a git-LFS pointer .* `git lfs pull`"),
        (b"\x80\x04\x95", "it is a pickle, which is not read"),
        (b"\x93NUMPY\x01\x00", r"it is a single array \(.npy\); np.savez\("),
        (b"\x1f\x8b\x08", "it is a gzip file"),
    ],
)
def test_what_is_no_npz_file(tmp_path, content, words):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=f"^cannot read .*a.npz, which is not an npz file: {words}"):
        files.read_npz(tmp_path / "a.npz")


def test_damaged_npz_files(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(1000))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="^cannot read .*a.npz, which is not an npz file: its end is missing"):
        files.read_npz(path)
    path.write_bytes(whole[:500] + bytes(500) + whole[1000:])
    with pytest.raises(ValueError, match="^cannot read 'x' of .*a.npz: "):
        files.read_npz(path)
    np.savez(path, x=np.array([np.zeros(2), np.zeros(3)], object))
    with pytest.raises(ValueError, match=r"^cannot read 'x' of .*a.npz: it holds Python objects; x = np.stack\("):
        files.read_npz(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "text")
    with pytest.raises(ValueError, match="^cannot read 'x' of .*a.npz: it is not an array"):
        files.read_npz(path)


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
