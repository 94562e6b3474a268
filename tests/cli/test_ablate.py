"""A sweep by its command line: computed once, resumed, shared."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax import likelihood, process, runs, samplers, sampling, schedules
from diffjax.cli.main import main
from diffjax.noise import sample_keys
from diffjax.runs import build, real_images, resolve, saved
from diffjax.training import state
from diffjax.training.checkpoints import Checkpoints

ROOT = Path(__file__).parents[2]
SWEEP = """
def get_config():
    return {
        "axes": (
            ("S", (("2", {"num_steps": 2}), ("4", {"num_steps": 4}))),
            ("η", (("0.0", {"eta": 0.0}), ("1.0", {"eta": 1.0}), ("σ̂", {"sigma_hat": True}))),
        ),
        "skip": ((("S", "4"), ("η", "σ̂")),),
        "num": 100,
        "batch_size": 50,
    }
"""


@pytest.fixture
def sweep(tmp_path):
    path = tmp_path / "sweep.py"
    path.write_text(SWEEP)
    return path


def started(sweep, workdir, out, *flags, **pipes):
    command = [sys.executable, "-m", "diffjax.cli.main", "ablate"]
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return subprocess.Popen(
        [*command, f"--config={sweep}", f"--workdir={workdir}", f"--out={out}", *flags],
        cwd=ROOT, text=True, env=environment, **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | pipes),
    )  # fmt: skip


def table(out, *axes):
    with (out / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {tuple(row[axis] for axis in axes): {k: v for k, v in row.items() if k != "seconds"} for row in rows}


def test_killed_shared_and_whole_are_one(sweep, workdir, tmp_path):
    process = started(sweep, workdir, tmp_path / "whole")
    printed, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    whole = table(tmp_path / "whole", "S", "η")
    assert set(whole) == {("2", "0.0"), ("2", "1.0"), ("2", "σ̂"), ("4", "0.0"), ("4", "1.0")}
    assert all(float(row["frechet"]) > 0 and row["calls"] == row["S"] and row["num"] == "100" for row in whole.values())
    assert len({row["kernel"] for row in whole.values()}) == 5
    assert "| η \\ S | 2 | 4 |" in printed
    assert {path.name for path in (tmp_path / "whole").glob("*.png")} == {
        "curves_kernel.png",
        "curves_frechet.png",
        "images.png",
        "map.png",
    }

    cells = tmp_path / "killed" / "cells"
    process = started(
        sweep, workdir, tmp_path / "killed", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while len(list(cells.glob("*.json"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    assert 2 <= len(done) < 5
    # Two resume at once, each with its own cells, into the same tables and pictures.
    shards = [started(sweep, workdir, tmp_path / "killed", f"--shard={k}/2") for k in range(2)]
    for process in shards:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    assert not list((tmp_path / "killed").glob("*.part"))
    assert table(tmp_path / "killed", "S", "η") == whole
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())


def ablate(command, config, out, *flags, workdir=None):
    where = [] if workdir is None else ["--workdir", workdir]
    command("ablate", "--config", config, "--out", out, *where, *flags)


def in_python(path, text):
    path.write_text(f"def get_config():\n    return {text}\n")
    return path


def test_few_samples_have_a_kernel_distance(workdir, command, tmp_path):
    config = in_python(tmp_path / "s.py", {"axes": (("S", (("2", {"num_steps": 2}),)),), "figures": ("kernel",)})
    ablate(command, config, tmp_path / "out", "--config.num=5", workdir=workdir)
    (row,) = table(tmp_path / "out", "S").values()
    assert row.keys() >= {"kernel", "kernel_floor"}
    assert "frechet" not in row


@pytest.fixture
def hybrid(workdir, tmp_path):
    """A workdir like `workdir` whose network has a learned variance, not trained at all."""
    config = resolve.override(saved.load(workdir), {"train.vlb_weight": 0.001})
    path = tmp_path / "hybrid"
    saved.save(config, path)
    init = jax.jit(build.task(config).init)
    created = state.create(init, optax.sgd(0.1), jax.random.key(0), ema_decays=config.train.ema_decays)
    with Checkpoints(path, keep=1) as checkpoints:
        checkpoints.save(created, {})
    return path


def test_bits_by_variance(workdir, hybrid, command, tmp_path):
    axes = (
        ("S", tuple((str(steps), {"num_steps": steps}) for steps in (3, 20))),
        ("variance", tuple((name, {"variance": name}) for name in ("fixed_small", "fixed_large", "learned_range"))),
    )
    flags = [f"--config.axes={axes}", "--config.num=12", "--config.batch_size=8"]
    with pytest.raises(SystemExit, match=r"config.sample.variance: 'learned_range' needs a network .*'fixed_large'$"):
        ablate(command, "ablations/variance", tmp_path / "out", *flags, workdir=workdir)
    assert not (tmp_path / "out").exists()
    ablate(command, "ablations/variance", tmp_path / "out", *flags, workdir=hybrid)
    rows = table(tmp_path / "out", "S", "variance")
    assert len({row["bound"] for row in rows.values()}) == 6
    assert all(0 < float(row["bound_error"]) < float(row["bound"]) for row in rows.values())
    assert " ± " in (tmp_path / "out" / "table.md").read_text()
    # An untrained network predicts ε̂ = 0, and log σ² midway.
    run = runs.load(hybrid)
    found = build.images(run.config)
    images, _ = real_images.read(found.held_out, found.prepare, 12)
    found = likelihood.bound(
        schedules.respace(run.schedule, [0, 10, 19]),
        lambda x, t: prediction_of_zero(run.schedule, x, jnp.array([0, 10, 19])[t]),
        jnp.asarray(images / 127.5 - 1, jnp.float32), sample_keys(0, 0, 12), variance="learned_range", clip=1.0,
    )  # fmt: skip
    assert float(rows["3", "learned_range"]["bound"]) == pytest.approx(float(found.total.mean()), rel=1e-5)


def test_bits_of_analytic_variances(hybrid, command, tmp_path):
    """Of an untrained network: ε̂ = 0, so that σ² is its largest, that of data within ± 1."""
    run, path = runs.load(hybrid), tmp_path / "moments.json"
    ones = np.ones(20)
    moments = samplers.Moments(eps_square=0 * ones, error=ones, x0_mse=0.5 * ones, x0_mse_error=ones, num=9)
    samplers.save_moments(path, run.schedule, moments)
    fields = {"sampler": "analytic", "path": str(path), "num_steps": 3}
    axes = (("variance", (("analytic", fields), ("eta", fields | {"eta": 0.5}))),)
    flags = ["--config.num=12", "--config.batch_size=8"]
    with pytest.raises(SystemExit, match=r"config.sample.eta: 0.5 must be 1 for a bound"):
        ablate(command, "ablations/variance", tmp_path / "out", f"--config.axes={axes}", *flags, workdir=hybrid)
    axes = (("variance", (("analytic", fields),)),)
    ablate(command, "ablations/variance", tmp_path / "out", f"--config.axes={axes}", *flags, workdir=hybrid)
    (row,) = table(tmp_path / "out", "variance").values()
    found = build.images(run.config)
    images, _ = real_images.read(found.held_out, found.prepare, 12)
    grid = run.with_options(num_steps=3, timestep_spacing="linspace").sampler.grid
    variances = samplers.analytic_variances(run.schedule, grid, 0 * ones)
    schedule = schedules.respace(run.schedule, grid[-2::-1])
    expected = likelihood.bound(
        schedule, lambda x, t: prediction_of_zero(schedule, x, t), jnp.asarray(images / 127.5 - 1, jnp.float32),
        sample_keys(0, 0, 12), variance=np.append(0.5, variances[-2::-1]), clip=1.0,
    )  # fmt: skip
    assert float(row["bound"]) == pytest.approx(float(expected.total.mean()), rel=1e-5)


def prediction_of_zero(schedule, x, t):
    eps = jnp.zeros_like(x)
    return sampling.Prediction(process.predict_x0(schedule, x, t, eps), eps, jnp.full_like(x, 0.5))


def test_reconstruction(workdir, command, tmp_path):
    def errors(axis, *flags):
        ablate(
            command, "ablations/ddim_table2", tmp_path / "out", f"--config.axes={(('S', axis),)}", *flags,
            workdir=workdir,
        )  # fmt: skip
        return [float(row["mse"]) for row in table(tmp_path / "out", "S").values()]

    few, many = errors((("2", {"num_steps": 2}), ("10", {"num_steps": 10})), "--config.num=20")
    assert 0 < many < few
    assert (tmp_path / "out" / "images.png").exists()
    with pytest.raises(SystemExit, match="config.axes: S=21: num_steps.num_steps: 21 is out of range"):
        errors((("21", {"num_steps": 21}),))
    with pytest.raises(SystemExit, match="config.num: 360 must be within 1 … 359, the number of images"):
        errors((("2", {"num_steps": 2}),), "--config.num=360")
    with pytest.raises(SystemExit, match="config.data.image_key"):
        errors((("2", {"num_steps": 2}),), "--config.data.image_key=x_test")


def test_training(workdir, command, tmp_path):
    base = resolve.to_dict(saved.load(workdir))
    config = in_python(
        tmp_path / "s.py",
        {
            "kind": "training",
            "base": str(in_python(tmp_path / "base.py", base)),
            "fields": {
                "train": {"steps": 4, "checkpoint_every": 2, "final_pictures": False},
                "sample": {"num_steps": 3},
            },
            "axes": (("schedule", tuple((name, {"schedule.name": name}) for name in ("linear", "cosine"))),),
            "num": 70,
        },
    )
    axes = (("target", (("eps", {"train.target": "eps"}), ("bad", {"train.target": "epsilon"}))),)
    with pytest.raises(SystemExit, match="config.axes: target=bad: config.train.target: 'epsilon' must be one of"):
        ablate(command, config, tmp_path / "out", f"--config.axes={axes}")
    assert not (tmp_path / "out").exists()
    ablate(command, config, tmp_path / "out", "--config.fields.optimizer.warmup_steps=1")
    linear, cosine = (float(row["frechet"]) for row in table(tmp_path / "out", "schedule").values())
    assert linear != cosine
    run = runs.load(tmp_path / "out" / "runs" / "schedule=cosine")
    assert (run.step, run.config.optimizer.warmup_steps, run.config.sample.num_steps) == (4, 1, 3)


def test_own_kind_metric_and_sampler(workdir, command, tmp_path, monkeypatch):
    """A kind, a metric and a sampler of a module that is not part of the package."""
    (tmp_path / "own_sweeps.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    axes = (
        ("S", (("3", {"num_steps": 3}),)),
        ("sampler", (("ddim", {}), ("own", {"sampler": "own_sweeps:short", "keep": 0.5}))),
    )
    config = in_python(tmp_path / "s.py", {"axes": axes, "figures": ("kernel", "own_sweeps:contrast"), "num": 8})
    ablate(command, config, tmp_path / "out", workdir=workdir)
    rows = {name: row for (name,), row in table(tmp_path / "out", "sampler").items()}
    assert rows["ddim"]["kernel"] != rows["own"]["kernel"]
    contrasts = {name: float(row["own_sweeps:contrast"]) for name, row in rows.items()}
    best = max(contrasts, key=contrasts.get)
    assert f"| {best} | **{contrasts[best]:.4g}** |" in (tmp_path / "out" / "table.md").read_text()

    config = in_python(tmp_path / "k.py", {"kind": "own_sweeps:squares", "axes": (("n", (("3", {"n": 3}),)),)})
    ablate(command, config, tmp_path / "squares", "--config.power=3")
    assert [row["result"] for row in table(tmp_path / "squares", "n").values()] == ["27"]
    with pytest.raises(SystemExit, match="config.power: -1 must be ≥ 0"):
        ablate(command, config, tmp_path / "bad", "--config.power=-1")


OWN = '''
import numpy as np
from diffjax import samplers
from diffjax.sweeps.kinds import Kind

def short(schedule, grid, *, keep: float = 1.0):
    """DDIM with η = keep.

    Args:
      keep: η.
    """
    return samplers.ddim(schedule, grid, eta=keep)

def contrast(images):
    return float(np.std(images))

contrast.higher_is_better = True

def squares(grid, *, power: int = 2):
    """Powers of a number.

    Args:
      power: the exponent.
    """
    if power < 0:
        raise ValueError(f"power={power} must be ≥ 0")
    return Kind(lambda cell: ({"result": cell.fields["n"] ** power}, None), {"power": power}, ("result",))
'''


@pytest.mark.parametrize(
    ("flags", "status"), [(["--config", "ablations/ddim_table1"], 2), (["--config", "nowhere", "--out", "x"], 1)]
)
def test_wrong_usage(flags, status, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["ablate", *flags])
    assert (caught.value.code == 2) if status == 2 else caught.value.code.startswith("error: --config=nowhere")
    assert not list(tmp_path.iterdir())
