"""Commands that read files which earlier commands wrote, and which are damaged: they end right, or with one line."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from diffjax.errors import UserError
from diffjax.report import workdirs
from diffjax.runs import resolve, saved
from diffjax.sweeps import cells
from diffjax.sweeps.kinds import Kind
from diffjax.training import logging

FOREIGN = [
    b"",
    b"\n",
    b"\xff\xfe\x00\x80",
    b"{",
    b"null",
    b"[1]",
    b"7",
    b'"text"',
    b"{}",
    b'{"step": "x"}',
    b"[" * 10**5,
]


def damaged(content, *, every=1):
    """Yields foreign contents, and the content cut short and with one byte flipped, at every so many bytes."""
    yield from FOREIGN
    for n in range(0, len(content), every):
        yield content[:n]
        yield content[:n] + bytes([content[n] ^ 0x15]) + content[n + 1 :]


def ends_right_or_in_one_line(call):
    """Returns whether a call succeeds; if it does not, it must end with an error of one line."""
    try:
        call()
    except (UserError, SystemExit) as error:
        line = str(error)
        if "\n" in line or (isinstance(error, SystemExit) and not line.startswith("error: ")):
            pytest.fail(line)
        return False
    return True


def numbers(grid, *, power: int = 2):
    """A kind of a sweep.

    Args:
      power: the exponent.
    """
    picture = np.zeros((1, 4, 4, 1), np.uint8)
    return Kind(lambda cell: ({"value": cell.fields["n"] ** power}, picture), {"power": power}, ("value",))


@pytest.fixture
def ablate(tmp_path, monkeypatch, command):
    """A function: computes a small sweep in `tmp_path/out`, with changed fields of its config, and returns its table."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    axes = (("n", (("two", {"n": 2}), ("three", {"n": 3}))),)
    config = tmp_path / "sweep.py"
    fields = {"kind": "test_damaged_files:numbers", "axes": axes}
    config.write_text(f"def get_config():\n    return {fields!r}\n")

    def run(*flags):
        command("ablate", "--config", config, "--out", tmp_path / "out", *flags)
        with (tmp_path / "out" / "table.csv").open() as file:
            return {row["n"]: row["value"] for row in csv.DictReader(file)}

    return run


@pytest.mark.filterwarnings("ignore:.* is damaged")
@pytest.mark.parametrize("name", ["cells/n=two.json", "cells/n=two.npz", "protocol.json", "table.csv"])
def test_a_sweep(name, ablate, command, tmp_path):
    right, out = {"two": "4", "three": "9"}, tmp_path / "out"
    assert ablate() == right
    whole = shutil.copytree(out, tmp_path / "whole")
    content = (whole / name).read_bytes()
    ends = []
    for changed in damaged(content, every=97):
        shutil.rmtree(out)
        shutil.copytree(whole, out)
        (out / name).write_bytes(changed)
        ends_right_or_in_one_line(lambda: command("report", "--sweep", out))
        if ends_right_or_in_one_line(ablate):
            assert ablate() == right, changed
            ends.append(changed)
    assert len(ends) == len(list(damaged(content, every=97))) or name == "protocol.json"


def test_every_byte_of_a_cell(ablate, tmp_path):
    ablate()
    path = tmp_path / "out" / "cells" / "n=two.json"
    content = path.read_bytes()
    record = cells._record(path)
    for changed in damaged(content):
        path.write_bytes(changed)
        assert cells._record(path) in (None, record)


def test_a_sweep_whose_first_cell_fails_has_no_protocol(ablate, tmp_path):
    with pytest.raises(TypeError):
        ablate("--config.axes=(('n', (('two', {'n': '2'}), ('three', {'n': 3}))),)", "--config.power=3")
    assert not (tmp_path / "out" / "protocol.json").exists()
    assert ablate() == {"two": "4", "three": "9"}
    with pytest.raises(SystemExit, match=r"another protocol .power differ."):
        ablate("--config.power=3")


def test_a_config_of_a_workdir(tmp_path, tiny_config):
    content = json.dumps(resolve.to_dict(tiny_config())).encode()
    path = tmp_path / "config.json"
    ends = []
    for changed in damaged(content, every=5):
        path.write_bytes(changed)
        ends.append(ends_right_or_in_one_line(lambda: saved.load(tmp_path)))
    assert ends.count(False) > len(ends) / 2


def test_reports_of_metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": 0.5}).encode() for step in (1, 2, 3)]
    for changed in damaged(lines[1]):
        path.write_bytes(b"\n".join([lines[0], changed, lines[2]]) + b"\n")
        steps = [report["step"] for report in logging.read(tmp_path)]
        assert {1, 3} <= set(steps)
        with logging.MetricWriter(tmp_path, step=2) as writer:
            writer.write(3, {"loss": 0.25})
        assert logging.read(tmp_path)[-1] == {"step": 3, "loss": 0.25}
    path.write_bytes(b'{"step": 1, "loss": "x"}')
    (block,) = workdirs._tried(workdirs._training, 20, tmp_path, tmp_path)
    assert "Not here: metrics.jsonl: no report of a finite loss" in block


@pytest.mark.parametrize(
    ("name", "section", "content"),
    [
        (
            "evaluation.json",
            workdirs._evaluation,
            {
                "figures": {"kernel": {"value": 0.5, "floor": 0.1, "error": None}},
                "protocol": {"samples": "x", "num": 3, "reference": "y", "extractor": {"extractor": "pixels"}},
                "class_shares": [0.1, 0.2],
            },
        ),
        ("likelihood.json", workdirs._likelihood, {"bound": [4.5, 0.1], "protocol": "some images"}),
    ],
)
def test_figures_on_a_page(name, section, content, tmp_path):
    for changed in (*damaged(json.dumps(content).encode()), json.dumps({**content, "protocol": 3}).encode()):
        (tmp_path / name).write_bytes(changed)
        assert workdirs._tried(section, tmp_path)
