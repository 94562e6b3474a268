"""Stopping and going on, with real processes."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from processes import Run, free_port, wait_until

from diffjax.errors import UserError
from diffjax.training import run_config, setup
from diffjax.training.checkpoints import Checkpoints
from diffjax.training.loop import train

ROOT = Path(__file__).parents[2]
STEPS = 60


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    # The runs share all that is compiled; the fork server takes this environment along.
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("XLA_FLAGS", "")


@pytest.fixture
def make_config(tiny_config):
    def make(**fields):
        return tiny_config(**{"train__steps": STEPS, "train__checkpoint_every": 10, "train__keep": 100} | fields)

    return make


@pytest.fixture
def whole(made_once, make_config):
    """The workdir of a run that nothing interrupted, with all its checkpoints."""
    return made_once("whole", lambda path: complete(make_config(), path))


def complete(config, workdir, **options):
    with Run(config, workdir, **options) as run:
        assert run.wait() == 0, run.output
    return run


def cut_back(workdir, to, step):
    """A copy of a workdir as if it had stopped at a checkpoint."""
    shutil.copytree(workdir, to)
    for folder in (to / "checkpoints").iterdir():
        if int(folder.name) > step:
            shutil.rmtree(folder)
    return to


def losses(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines}


def final_parameters(workdir):
    experiment = setup.experiment(run_config.load(workdir))
    with Checkpoints(workdir) as checkpoints:
        (step, params), (_, ema) = (
            checkpoints.restore_params(experiment.params_shape, ema=decay) for decay in (None, experiment.ema_decay)
        )
    leaves, _ = jax.tree.flatten_with_path({"params": params, "ema": ema})
    return step, {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same_run(a, b, *, rtol=0.0, atol=0.0, except_for=()):
    (step_a, params_a), (step_b, params_b) = final_parameters(a), final_parameters(b)
    assert step_a == step_b
    assert list(losses(a)) == list(losses(b)) == list(range(1, step_a + 1))
    np.testing.assert_allclose(list(losses(a).values()), list(losses(b).values()), rtol=rtol)
    for name in params_a:
        if not name.endswith(except_for):
            np.testing.assert_allclose(params_a[name], params_b[name], rtol=0.0, atol=atol, err_msg=name)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_bit_equal(whole, tmp_path, make_config, kills):
    workdir, rng = tmp_path / "killed", np.random.default_rng()
    metrics = workdir / "metrics.jsonl"

    def count_reports():
        return len(metrics.read_bytes().splitlines()) if metrics.exists() else 0

    for number, moment in enumerate(np.sort(rng.integers(1, STEPS - 20, kills + 1))):
        with Run(make_config(), workdir) as run:
            assert wait_until(lambda: count_reports() >= moment or not run.is_alive())  # noqa: B023
            wait_until(lambda: False, rng.uniform(0, 0.02))  # in the middle of a step, or while it saves
            assert run.is_alive(), run.output
            if number == 0:  # once it is asked to stop
                run.terminate()
                assert run.wait() == 0, run.output
                stopped = int(re.search(r"finished at step (\d+)", run.output)[1])
                assert moment <= stopped < STEPS
                assert (workdir / "checkpoints" / str(stopped)).exists()
            else:
                run.kill()
    complete(make_config(), workdir)
    assert_same_run(whole, workdir)


def test_from_one_device_to_four(whole, tmp_path, make_config):
    # The key's bias shifts all scores of a softmax alike: its gradient is rounding, which Adam scales up.
    cut = cut_back(whole, tmp_path / "four", 30)
    complete(make_config(data__workers=1), cut, devices=4)  # nor does it matter who reads
    assert_same_run(whole, cut, rtol=1e-5, atol=1e-5, except_for="['k']['bias']")


@pytest.mark.slow
def test_from_one_device_to_four_in_float64(tmp_path, make_config):
    config = make_config(model__dtype="float64", train__steps=20)
    complete(config, tmp_path / "one", x64=True)
    cut = cut_back(tmp_path / "one", tmp_path / "four", 10)
    complete(config, cut, devices=4, x64=True)
    with jax.enable_x64(True):
        assert_same_run(tmp_path / "one", cut, rtol=1e-9, atol=1e-9, except_for="['k']['bias']")


def test_two_processes_are_one_run_and_end_together(tmp_path, make_config):
    config = make_config(train__steps=20)
    workdir = tmp_path / "two"

    def start():
        port = free_port()
        return [
            Run(config, workdir, distributed=True, coordinator=f"127.0.0.1:{port}", num_processes=2, process_id=n)
            for n in range(2)
        ]

    first, second = start()
    with first, second:
        assert wait_until((workdir / "checkpoints" / "10").exists)
        second.kill()
        assert first.wait(60) not in (0, None)
        assert "error: another process of this run seems to have ended" in first.output
        assert "step 20" not in first.output
    first, second = start()
    with first, second:
        assert first.wait() == second.wait() == 0, first.output + second.output
    complete(config, tmp_path / "one", devices=2)
    assert_same_run(tmp_path / "one", workdir, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_one_of_two_processes_is_preempted(tmp_path, make_config):
    config = make_config(train__steps=10_000)
    where = {"distributed": True, "coordinator": f"127.0.0.1:{free_port()}", "num_processes": 2}
    first, second = (Run(config, tmp_path / "two", process_id=n, **where) for n in range(2))
    with first, second:
        assert wait_until((tmp_path / "two" / "checkpoints" / "10").exists)
        second.terminate()
        assert first.wait() == second.wait() == 0, first.output + second.output
    steps = [int(re.search(r"finished at step (\d+)", run.output)[1]) for run in (first, second)]
    assert steps[0] == steps[1] == final_parameters(tmp_path / "two")[0] < 10_000


def test_a_damaged_checkpoint_is_put_aside_for_the_one_before(whole, tmp_path, make_config):
    workdir = shutil.copytree(whole, tmp_path / "run")
    for path in (workdir / "checkpoints" / "60").rglob("*"):
        path.is_file() and path.write_bytes(path.read_bytes()[:20])
    run = complete(make_config(), workdir)
    assert re.search(
        r"^warning: cannot read checkpoint .*checkpoints/60: .*; using .*checkpoints/50 instead", run.output, re.M
    )
    assert_same_run(whole, workdir)
    assert (workdir / "damaged" / "60").is_dir()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model__channels": 16}, "holds a run with another config: config.model.channels is 16 but was 8"),
        ({}, r"cannot read checkpoint .*checkpoints/20: .* \(nor can 10 be\) — nothing was changed"),
    ],
)
def test_bad_resume_is_one_line_and_loses_nothing(whole, tmp_path, make_config, fields, words):
    workdir = cut_back(whole, tmp_path / "run", 20)
    if not fields:
        for path in (workdir / "checkpoints").rglob("*"):
            path.is_file() and path.write_bytes(b"")
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=words) as caught:
        train(make_config(**fields), workdir, progress=False)
    assert "\n" not in str(caught.value)
    assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()} == before


def test_the_command_stops_when_asked_goes_on_and_draws(tmp_path, tiny_config, tiny_flags):
    workdir = tmp_path / "run"
    fields = {"train__steps": 300, "train__checkpoint_every": 50}
    command = [sys.executable, "experiments/train.py", "--config=configs/digits.py", f"--workdir={workdir}"]
    command += tiny_flags(**fields)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert wait_until(lambda: (workdir / "checkpoints" / "50").exists() or process.poll() is not None)
    with pytest.raises(UserError, match=f"{workdir} is in use by process {process.pid} on "):
        train(tiny_config(**fields), workdir, progress=False)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 0
    step, _ = final_parameters(workdir)
    assert output == f"stopped after step {step}, which is saved; the same command goes on from there\n"

    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    pictures = [workdir / name for name in ("samples_ddpm.png", "samples_ddim.png", "denoising.png")]
    assert result.stdout.splitlines() == [f"going on from step {step}", *map(str, pictures)]
    assert all(path.exists() for path in pictures)
    assert list(losses(workdir)) == list(range(1, 301))
