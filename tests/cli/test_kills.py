"""Commands killed at moments spread over their whole run: the result equals that of a run which was not."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
KILLS = 20
SWEEP = """
def get_config():
    return {"axes": (("S", (("2", {"num_steps": 2}), ("4", {"num_steps": 4}), ("5", {"num_steps": 5}))),),
            "num": 100, "batch_size": 50}
"""
SUPER_RESOLUTION = {
    "task.name": "super_resolution", "data.degradation.kinds": ("bicubic",), "data.degradation.factor": 2,
    "data.holdout": 0.2,
}  # fmt: skip


@pytest.fixture
def commands(workdir, trained_briefly, tmp_path):
    """name → the arguments of a command without --out."""
    restoring = trained_briefly("killed_restoring", "digits", SUPER_RESOLUTION)
    sweep = tmp_path / "sweep.py"
    sweep.write_text(SWEEP)
    return {
        "sample": [f"--workdir={workdir}", "--num=600", "--batch-size=30"],
        "ablate": [f"--workdir={workdir}", f"--config={sweep}"],
        "evaluate": [f"--workdir={workdir}", "--num=500"],
        "restore": [f"--workdir={restoring}", "--num=64", "--batch-size=16"],
    }


def start(name, arguments, out):
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return subprocess.Popen(
        [sys.executable, "-m", "diffjax.cli.main", name, *arguments, f"--out={out}"],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def complete(name, arguments, out):
    """Runs a command to its end; returns the seconds that it took."""
    began = time.monotonic()
    with start(name, arguments, out) as process:
        errors = process.communicate()[1]
        assert process.returncode == 0, errors
    return time.monotonic() - began


def result(out):
    """What a command has written, by file, without the seconds that it took."""
    files = [out] if out.is_file() else [path for path in sorted(out.rglob("*")) if path.is_file()]
    return {str(path.relative_to(out)): content(path) for path in files if path.name != "lock"}


def content(path):
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name].tobytes() for name in arrays.files}
    if path.suffix == ".csv":
        with path.open() as file:
            return [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    if path.suffix == ".json":
        return without_seconds(json.loads(path.read_text()))
    return path.read_bytes() if path.suffix == ".png" else None


def without_seconds(found):
    if not isinstance(found, dict):
        return found
    return {name: without_seconds(value) for name, value in found.items() if name not in ("seconds", "checksum")}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sample", "ablate", "evaluate", "restore"])
def test_twenty_kills(commands, tmp_path, name):
    arguments, killed = commands[name], 0
    suffix = ".json" if name == "evaluate" else ""
    complete(name, arguments, tmp_path / f"first{suffix}")  # compiles
    seconds = complete(name, arguments, tmp_path / f"whole{suffix}")
    rng, out = np.random.default_rng(0), tmp_path / f"killed{suffix}"
    for number in range(KILLS):
        with start(name, arguments, out) as process:
            try:
                process.wait(seconds * (number + rng.uniform()) / KILLS)
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
    assert killed >= KILLS / 2
    complete(name, arguments, out)
    assert result(out) == result(tmp_path / f"whole{suffix}")
