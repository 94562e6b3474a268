"""Wrong calls of every command, option by option: an error of one line, the status 1 or 2, and nothing written."""

import pytest
from wrong_calls import count, right_calls

from diffjax.cli import launch, main


@pytest.mark.parametrize("name", main.COMMANDS)
def test_wrong_calls_end_in_one_line(workdir, name, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(launch, "start", lambda **_: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    before = sorted(tmp_path.rglob("*"))
    counts = count(name, right_calls(workdir, tmp_path)[name])
    capsys.readouterr()
    assert sorted(tmp_path.rglob("*")) == before
    assert counts.total() >= (50 if name != "prepare" else 30)
