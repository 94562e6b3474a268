"""Stopping and resuming, with real processes."""

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
from processes import Process, pair, wait_until

from diffjax import runs
from diffjax.errors import UserError
from diffjax.runs import resolve
from diffjax.runs.train import train

ROOT = Path(__file__).parents[2]
STEPS = 40
ENDED = "error: another process of this run seems to have ended (no answer from process 1); start them all again"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")  # the fork server takes it along


@pytest.fixture
def make_config(tiny_config):
    def make(**fields):
        ours = {"train__steps": STEPS, "train__checkpoint_every": 5, "train__max_to_keep": 100}
        return tiny_config(**ours | {"train__final_pictures": False} | fields)

    return make


@pytest.fixture
def whole(made_once, make_config):
    """The workdir of a run that nothing interrupted, with all its checkpoints."""
    return made_once("whole", lambda path: complete(make_config(), path))


def complete(config, workdir, **options):
    with Process(config, workdir, **options) as process:
        assert process.wait() == 0, process.output
    return process


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
    raw, averaged = (runs.load(workdir, ema=ema) for ema in (False, None))
    leaves, _ = jax.tree.flatten_with_path({"params": raw.params, "ema": averaged.params})
    return raw.step, {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same_run(a, b, *, rtol=0.0, atol=0.0, except_for=()):
    (step_a, params_a), (step_b, params_b) = final_parameters(a), final_parameters(b)
    assert step_a == step_b
    assert list(losses(a)) == list(losses(b)) == list(range(1, step_a + 1))
    np.testing.assert_allclose(list(losses(a).values()), list(losses(b).values()), rtol=rtol)
    for name in params_a:
        if not name.endswith(except_for):
            np.testing.assert_allclose(params_a[name], params_b[name], rtol=0.0, atol=atol, err_msg=name)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_bit_equal(whole, tmp_path, make_config, kills):
    workdir, rng = tmp_path / "killed", np.random.default_rng()
    config, metrics = make_config(), workdir / "metrics.jsonl"

    def count_reports():
        return len(metrics.read_bytes().splitlines()) if metrics.exists() else 0

    for number, moment in enumerate(np.sort(rng.integers(1, STEPS - 15, kills + 1))):
        with Process(config, workdir) as process:
            assert wait_until(lambda: count_reports() >= moment or not process.is_alive())  # noqa: B023
            wait_until(lambda: False, rng.uniform(0, 0.02))  # in the middle of a step, or while it saves
            assert process.is_alive(), process.output
            if number == 0:  # SIGTERM once
                process.terminate()
                assert process.wait() == 0, process.output
                stopped = int(re.search(r"finished at step (\d+)", process.output)[1])
                assert moment <= stopped < STEPS
                assert (workdir / "checkpoints" / str(stopped)).exists()
            else:
                process.kill()
    complete(config, workdir)
    assert_same_run(whole, workdir)


def test_from_one_device_to_four(whole, tmp_path, make_config):
    # The key's bias shifts all scores of a softmax alike: its gradient is rounding, which Adam scales up.
    cut = cut_back(whole, tmp_path / "four", 20)
    complete(make_config(data__num_workers=1), cut, devices=4)  # nor does it matter who reads
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
    config, workdir = make_config(train__steps=20), tmp_path / "two"
    first, second = pair(config, workdir, {"killed": (2, 0.05)})
    with first, second:
        assert first.wait() == 1, first.output
        assert ENDED in first.output
        assert second.wait() == -signal.SIGKILL
    assert 5 in {int(path.name) for path in (workdir / "checkpoints").glob("[0-9]")}
    first, second = pair(config, workdir)
    with first, second:
        assert first.wait() == second.wait() == 0, first.output + second.output
    complete(config, tmp_path / "one", devices=2)
    assert_same_run(tmp_path / "one", workdir, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_two_processes_with_other_configs_end_before_they_begin(tmp_path, make_config):
    second = {"config": make_config(optimizer__learning_rate=0.5)}
    first, second = pair(make_config(), tmp_path / "two", second)
    with first, second:
        assert first.wait() == second.wait() == 1, first.output + second.output
        words = "in process 1, config.optimizer.learning_rate is 0.5, in process 0 it is "
        assert len([line for line in first.output.splitlines() if words in line]) == 1
        assert wait_until(lambda: words in second.output, 10), second.output
    assert not (tmp_path / "two").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.03, 0.1, 0.2, 0.5, 1.0])
def test_a_process_that_ends_while_a_checkpoint_is_written_is_named(tmp_path, make_config, seconds):
    first, second = pair(make_config(train__steps=2000), tmp_path / "two", {"killed": (1, seconds)})
    with first, second:
        assert first.wait() == 1, first.output
        assert ENDED in first.output
        assert "Make room" not in first.output


def test_a_full_disk_of_one_of_two_processes_is_reported_as_such(tmp_path, make_config):
    first, second = pair(make_config(train__steps=2000), tmp_path / "two", {"limit": 1000})
    with first, second:
        assert first.wait() == second.wait() == 1, first.output + second.output
        assert ENDED in first.output
        full = (
            rf"error: cannot write a checkpoint in {tmp_path}/two/checkpoints: File too large; that of step 5 is whole"
        )
        assert wait_until(lambda: re.search(full, second.output), 10), second.output


@pytest.mark.slow
def test_one_of_two_processes_is_preempted(tmp_path, make_config):
    first, second = pair(make_config(train__steps=10_000), tmp_path / "two")
    with first, second:
        assert wait_until((tmp_path / "two" / "checkpoints" / "10").exists)
        second.terminate()
        assert first.wait() == second.wait() == 0, first.output + second.output
    steps = [int(re.search(r"finished at step (\d+)", process.output)[1]) for process in (first, second)]
    assert steps[0] == steps[1] == final_parameters(tmp_path / "two")[0] < 10_000


def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(whole, tmp_path, make_config):
    workdir = shutil.copytree(whole, tmp_path / "run")
    for path in (workdir / "checkpoints" / "40").rglob(
        "d/*"
    ):  # the arrays: TensorStore's threads see it, and report it
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] + b"xyz" + content[len(content) // 2 + 3 :])
    process = complete(make_config(), workdir)
    assert re.search(
        r"^warning: cannot read checkpoint .*checkpoints/40: .*; using .*checkpoints/35 instead", process.output, re.M
    )
    assert len(process.output.splitlines()) == 3, process.output  # the warning, the start, the end
    assert_same_run(whole, workdir)
    assert (workdir / "damaged" / "40").is_dir()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model__base_channels": 16}, "holds a run with another config: config.model.base_channels is 16 but was 8"),
        ({}, r"cannot read checkpoint .*checkpoints/10: .* \(nor can 5 be\) — nothing was changed"),
    ],
)
def test_bad_resume_is_one_line_and_loses_nothing(whole, tmp_path, make_config, fields, words):
    workdir = cut_back(whole, tmp_path / "run", 10)
    if not fields:
        for path in (workdir / "checkpoints").rglob("*"):
            path.is_file() and path.write_bytes(b"")
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=words) as caught:
        train(make_config(**fields), workdir, progress=False)
    assert "\n" not in str(caught.value)
    assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()} == before


def test_the_command_stops_on_sigint_resumes_and_makes_pictures(tmp_path, tiny_config):
    workdir, file = tmp_path / "run", tmp_path / "tiny.py"
    config = tiny_config(train__steps=10**6, train__checkpoint_every=20, optimizer__lr_schedule="constant")
    file.write_text(f"def get_config():\n    return {resolve.to_dict(config)!r}\n")
    command = [sys.executable, "-m", "diffjax.cli.main", "train", f"--config={file}", f"--workdir={workdir}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert wait_until(lambda: (workdir / "checkpoints" / "20").exists() or process.poll() is not None)
    with pytest.raises(UserError, match=f"{workdir} is in use by process {process.pid} on "):
        train(config, workdir, progress=False)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 0
    step, _ = final_parameters(workdir)
    assert output == f"stopped after step {step}, which is saved; the same command resumes from there\n"

    # At a constant rate, fewer steps in all are the same run.
    command += [f"--config.train.steps={step + 10}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    pictures = [workdir / name for name in ("denoising.png", "samples.png")]
    assert result.stdout.splitlines() == [f"resuming from step {step}", *map(str, pictures)]
    assert all(path.exists() for path in pictures)
    assert list(losses(workdir)) == list(range(1, step + 11))
