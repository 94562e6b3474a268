"""Stopping and going on, with real processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from diffjax.training import setup
from diffjax.training.checkpoints import Checkpoints

ROOT = Path(__file__).parents[2]
STEPS = {"train__steps": 60, "train__checkpoint_every": 10}


def command(workdir, flags):
    return [sys.executable, "experiments/train.py", "--config=configs/digits.py", f"--workdir={workdir}", *flags]


def run(workdir, flags):
    return subprocess.run(
        command(workdir, flags), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )


def environment():
    # One device, as a user has; compiled programs are shared between the runs.
    return os.environ | {
        "XLA_FLAGS": "",
        "JAX_COMPILATION_CACHE_DIR": os.environ["DIFFJAX_TEST_CACHE"],
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.fixture(autouse=True)
def compilation_cache(shared_folder, monkeypatch):
    monkeypatch.setenv("DIFFJAX_TEST_CACHE", str(shared_folder / "compilation_cache"))


def final_parameters(workdir):
    experiment = setup.experiment(setup.load_config(workdir))
    with Checkpoints(workdir) as checkpoints:
        decays = (None, experiment.ema_decay)
        params, ema = (checkpoints.restore_params(experiment.params_shape, ema=decay) for decay in decays)
        return checkpoints.latest_step, [np.asarray(leaf) for leaf in jax.tree.leaves((params, ema))]


def reports(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def finished(made_once, tiny_flags):
    """(a copy of a finished run's workdir, a function: fields → its flags)."""

    def flags(**fields):
        return tiny_flags(**STEPS, **fields)

    def make(path):
        result = run(path, flags())
        assert result.returncode == 0, result.stderr

    return made_once("finished", make), flags


def test_sigkill_in_the_middle_ends_bit_equal(finished, tmp_path):
    uninterrupted, flags = finished
    process = subprocess.Popen(
        command(tmp_path / "killed", flags()), cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL
    )
    first = tmp_path / "killed" / "checkpoints" / "20"
    deadline = time.monotonic() + 300
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    again = run(tmp_path / "killed", flags())
    assert again.returncode == 0, again.stderr
    assert "going on from step" in again.stdout + again.stderr

    (step_a, whole), (step_b, killed) = (final_parameters(folder) for folder in (uninterrupted, tmp_path / "killed"))
    assert step_a == step_b == 60
    for a, b in zip(whole, killed, strict=True):
        np.testing.assert_array_equal(a, b)
    losses = [[(r["step"], r["loss"]) for r in reports(folder)] for folder in (uninterrupted, tmp_path / "killed")]
    assert losses[0] == losses[1]
    assert [step for step, _ in losses[0]] == list(range(1, 61))


def test_a_finished_run_draws_its_pictures_again(finished):
    workdir, flags = finished
    pictures = [workdir / name for name in ("samples_ddpm.png", "samples_ddim.png", "denoising.png")]
    before = [path.read_bytes() for path in pictures]
    for path in pictures:
        path.unlink()
    assert run(workdir, flags()).returncode == 0
    assert [path.read_bytes() for path in pictures] == before


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model__channels": 16}, "error: .* holds a run with another config: config.model.channels is 16 but was 8"),
        ({}, "error: cannot read checkpoint"),
    ],
)
def test_bad_resume_is_one_line_and_loses_nothing(finished, fields, words):
    workdir, flags = finished
    if not fields:
        for path in (workdir / "checkpoints" / "60").rglob("*"):
            path.is_file() and path.write_bytes(b"")
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    result = run(workdir, flags(**fields))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert re.search(words, result.stderr.strip().splitlines()[-1])
    assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()} == before
