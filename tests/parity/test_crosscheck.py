"""The rows of experiments/crosscheck.py in float64, and the command itself."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from diffjax.cli import launch

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")

from torch_reference import compare, rows  # noqa: E402 (they need PyTorch)

COMMAND = Path(__file__).resolve().parents[2] / "experiments" / "crosscheck.py"


@pytest.fixture
def crosscheck(monkeypatch):
    spec = importlib.util.spec_from_file_location("crosscheck", COMMAND)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(launch, "start", lambda: None)
    return module


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=str(row), marks=() if row.is_quick else pytest.mark.slow) for row in rows.ROWS]
)
def test_row(row):
    if row.package is not None and importlib.util.find_spec(row.package) is None:
        pytest.skip(f"{row.package} is not installed")
    if "DPMSolverSDE" in row.counterpart:
        pytest.importorskip("torchsde", reason="torchsde is not installed (extra: parity)")
    outcome = compare.run(row, "float64")
    assert compare.problem(row, "float64", outcome) == ""
    if row.by_design:
        assert outcome.error > 1e-6  # else the two do not differ, and the row should say so
    else:
        assert outcome.error <= 1e-6


def test_rows_are_different_and_clip_in_half_of_them():
    assert len({str(row) for row in rows.ROWS}) == len(rows.ROWS)
    assert sum(row.clip is not None for row in rows.ROWS) >= len(rows.ROWS) / 2
    assert {row.steps for row in rows.ROWS} >= {10, 50, 1000}


def test_clipping_that_never_bites_and_a_nan_are_problems():
    row = dataclasses.replace(rows.ROWS[0], by_design="")
    fine = compare.Outcome(error=1e-9, clipped=0.5)
    assert compare.problem(row, "float64", fine) == ""
    assert compare.problem(row, "float64", dataclasses.replace(fine, clipped=0.0)) == "clipping idle"
    assert compare.problem(row, "float64", dataclasses.replace(fine, error=2e-6)) == "above 1e-06"
    assert compare.problem(row, "float32", dataclasses.replace(fine, error=2e-6)) == ""
    assert compare.problem(row, "float32", dataclasses.replace(fine, error=float("nan"))) == "above 1e-05"


def test_command_prints_a_table_and_fails_where_a_row_does(crosscheck, monkeypatch, tmp_path, capsys):
    agrees = next(row for row in rows.ROWS if row.counterpart == "S0 DDIM" and row.steps == 10)
    differs = dataclasses.replace(agrees, ours=rows.ROWS[0].ours, sampler="another")
    monkeypatch.setattr(rows, "ROWS", (agrees,))
    monkeypatch.setattr(sys, "argv", ["crosscheck.py", "--quick", "--json", str(tmp_path / "new" / "rows.json")])
    assert crosscheck.main() == 0
    assert "1 rows agree" in capsys.readouterr().out
    (record,) = json.loads((tmp_path / "new" / "rows.json").read_text())
    assert record["result"] == "ok"
    assert record["float64"] <= 1e-6
    assert record["float32"] <= 1e-5

    monkeypatch.setattr(rows, "ROWS", (agrees, differs))
    monkeypatch.setattr(sys, "argv", ["crosscheck.py", "--dtype", "float64"])
    assert crosscheck.main() == 1
    assert "FAILED: float64 above 1e-06" in capsys.readouterr().out


def test_command_says_what_it_skips(crosscheck, monkeypatch, capsys):
    find_spec = importlib.util.find_spec
    missing = {"diffusers"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else find_spec(name))
    monkeypatch.setattr(sys, "argv", ["crosscheck.py", "--quick"])
    monkeypatch.setattr(crosscheck, "compare_all", lambda given, dtypes: [{"result": r.counterpart} for r in given])
    assert crosscheck.main() == 0
    assert "diffusers skipped" in capsys.readouterr().out
    missing.add("torch")
    assert crosscheck.main() == 0
    assert capsys.readouterr().out == "crosscheck: skipped, PyTorch is not installed (pip install '.[parity]')\n"
