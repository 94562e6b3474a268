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
