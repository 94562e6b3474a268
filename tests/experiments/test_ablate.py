"""A sweep by its command line: computed once, gone on with, shared."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffjax.errors import UserError

ROOT = Path(__file__).parents[2]
SWEEP = """
from configs.ablations import base

def get_config():
    config = base.quality()
    config.axes = (
        ("S", (("2", {"steps": 2}), ("4", {"steps": 4}))),
        ("η", (("0.0", {"eta": 0.0}), ("1.0", {"eta": 1.0}), ("σ̂", {"sigma_hat": True}))),
    )
    config.skip = ((("S", "4"), ("η", "σ̂")),)
    config.num, config.batch_size = 100, 50
    return config
"""


@pytest.fixture
def sweep(tmp_path):
    path = tmp_path / "sweep.py"
    path.write_text(SWEEP)
    return path


def command(sweep, workdir, out, *flags):
    return [
        sys.executable,
        "experiments/ablate.py",
        f"--config={sweep}",
        f"--workdir={workdir}",
        f"--out={out}",
        *flags,
    ]


def run(*arguments):
    result = subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False, env=environment()
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def environment():
    return os.environ | {"XLA_FLAGS": "", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


def figures(out):
    with (out / "table.csv").open() as file:
        return {(row["S"], row["η"]): {k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)}


def test_killed_shared_and_whole_are_one(sweep, workdir, tmp_path):
    printed = run(sweep, workdir, tmp_path / "whole")
    whole = figures(tmp_path / "whole")
    assert set(whole) == {("2", "0.0"), ("2", "1.0"), ("2", "σ̂"), ("4", "0.0"), ("4", "1.0")}
    assert all(float(row["frechet"]) > 0 and row["calls"] == row["S"] and row["num"] == "100" for row in whole.values())
    assert len({row["kernel"] for row in whole.values()}) == 5
    assert "| η \\ S | 2 | 4 |" in printed
    assert {path.name for path in (tmp_path / "whole").glob("*.png")} == {
        "curves_kernel.png",
        "curves_frechet.png",
        "map.png",
    }

    cells = tmp_path / "killed" / "cells"
    process = subprocess.Popen(
        command(sweep, workdir, tmp_path / "killed"),
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while len(list(cells.glob("*.json"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    assert 2 <= len(done) < 5
    assert "of 5 cells are still to be computed" in run(sweep, workdir, tmp_path / "killed", "--shard=0/5")
    run(sweep, workdir, tmp_path / "killed")
    assert figures(tmp_path / "killed") == whole
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())


@pytest.fixture
def ablate(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    monkeypatch.syspath_prepend(ROOT)
    import importlib

    return importlib.import_module("ablate")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "taste"}, "config.kind: 'taste' is not one of 'quality'"),
        ({"extractor": "eyes"}, "extractor='eyes' must be 'pixels'"),
        ({"num": 60}, "num=60 samples: .* needs at least 65"),
        ({"axes": ()}, "config.axes"),
        ({"ema_decay": 0.5}, "config.ema_decay: 0.5 is none of"),
        ({"axes": (("S", (("30", {"steps": 30}),)),)}, "config.sample.steps: num_steps=30"),
    ],
)
def test_bad_sweeps(changes, words, workdir, ablate, tmp_path):
    from configs.ablations import ddim_table1

    config = ddim_table1.get_config()
    config.axes = (("S", (("2", {"steps": 2}),)),)
    config.update(changes)
    with pytest.raises(UserError, match=words):
        ablate.run(config, workdir, tmp_path / "out", "0/1")


def test_reconstruction_and_training(workdir, ablate, tmp_path):
    from configs.ablations import ddim_table2, schedules

    config = ddim_table2.get_config()
    config.axes = (("S", (("2", {"steps": 2}), ("10", {"steps": 10}))),)
    config.num = 20
    ablate.run(config, workdir, tmp_path / "errors", "0/1")
    with (tmp_path / "errors" / "table.csv").open() as file:
        few, many = (float(row["mse"]) for row in csv.DictReader(file))
    assert 0 < many < few

    config = schedules.get_config()
    config.axes = (("schedule", tuple((name, {"schedule.name": name}) for name in ("linear", "cosine"))),)
    config.num = 70
    trained = json.loads((workdir / "config.json").read_text())
    config.fields = tuple(
        (f"{room}.{field}", tuple(value) if isinstance(value, list) else value)
        for room in ("model", "train", "schedule")
        for field, value in trained[room].items()
        if value is not None
    )
    config.fields = (
        *config.fields,
        ("train.steps", 4),
        ("train.checkpoint_every", 2),
        ("sample.steps", 3),
        ("optimizer.warmup_steps", 1),
    )
    ablate.run(config, None, tmp_path / "runs", "0/1")
    with (tmp_path / "runs" / "table.csv").open() as file:
        linear, cosine = (float(row["frechet"]) for row in csv.DictReader(file))
    assert linear != cosine
