"""A sweep by its command line: computed once, gone on with, shared."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

from diffjax import likelihood, process, sampling, schedules
from diffjax.errors import UserError
from diffjax.evaluation import ablations, on_images, sweeps
from diffjax.noise import sample_keys
from diffjax.training import run_config, setup, state
from diffjax.training.checkpoints import Checkpoints

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
        "images.png",
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
    # Two go on at once, each with its own cells, into the same tables and pictures.
    shards = [
        subprocess.Popen(
            command(sweep, workdir, tmp_path / "killed", f"--shard={k}/2"),
            cwd=ROOT, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for k in range(2)
    ]  # fmt: skip
    for process in shards:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert not list((tmp_path / "killed").glob("*.part"))
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
        ({"extractor": "none.pth"}, "no weights of FID's Inception at none.pth: get them from https.*sha256 6726825d"),
        ({"num": 60}, "num=60 samples: .* needs at least 65; the kernel distance alone .figures. does with 2"),
        ({"axes": (("N", (("60", {"num": 60, "steps": 2}),)),)}, "num=60 samples: .* needs at least 65"),
        ({"reference_num": 60}, "reference_num=60 real images: .* needs at least 65"),
        ({"figures": ("kernel", "fid")}, r"figures=\('kernel', 'fid'\) must be some of 'kernel', 'frechet'"),
        ({"within": "bits"}, "config.within: 'bits' is not one of 'kernel', 'frechet'"),
        ({"axes": (("η", (("0", {"etta": 0.0}),)),)}, "config.axes: 'etta' of η=0 is not one of sampler, steps"),
        (
            {"axes": (("v", (("learned", {"sampler": "ddpm", "variance": "learned_range", "steps": 2}),)),)},
            "config.sample.variance: 'learned_range' needs a network that predicts it .*config.train.hybrid",
        ),
        ({"axes": ()}, "config.axes"),
        ({"ema_decay": 0.5}, "config.ema_decay: 0.5 is none of"),
        ({"axes": (("S", (("30", {"steps": 30}),)),)}, "config.sample.steps: num_steps=30"),
    ],
)
def test_bad_sweeps(changes, words, workdir, ablate, tmp_path, monkeypatch):
    from configs.ablations import ddim_table1

    config = ddim_table1.get_config()
    config.axes = (("S", (("2", {"steps": 2}),)),)
    config.update(changes)
    monkeypatch.setattr(sampling, "sample", None)  # before any of it
    with pytest.raises(UserError, match=words):
        ablate.run(config, workdir, tmp_path / "out", "0/1")
    assert not (tmp_path / "out" / "cells").exists()


@pytest.mark.usefixtures("quick_compilation")
def test_few_samples_have_a_kernel_distance(workdir, ablate, tmp_path):
    from configs.ablations import ddim_table1

    config = ddim_table1.get_config()
    config.update({"num": 5, "figures": ("kernel",), "axes": (("S", (("2", {"steps": 2}),)),)})
    ablate.run(config, workdir, tmp_path, "0/1")
    with (tmp_path / "table.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row.keys() >= {"kernel", "kernel_floor"}
    assert "frechet" not in row


@pytest.mark.usefixtures("ablate", "quick_compilation")
def test_cells_of_other_values_compile_nothing(workdir, count_compilations):
    """η, σ̂ and the grid are values of the table: one program has them all."""
    from configs.ablations import ddim_table1

    config = ddim_table1.get_config()
    config.num, config.batch_size, config.sample.steps = 100, 50, 3
    values = ({"eta": 0.2}, {"eta": 1.0}, {"sigma_hat": True}, {"eta": 0.5, "grid": "leading"})
    grid = [sweeps.Cell({"n": str(n)}, fields) for n, fields in enumerate(values)]
    kind = ablations.quality_of_samples(config, grid, workdir)
    found = [kind.compute(grid[0])]
    count_compilations()
    found += [kind.compute(cell) for cell in grid[1:]]
    assert count_compilations() == 0
    assert len({figures["frechet"] for figures, _ in found}) == 4
    assert {pictures.shape for _, pictures in found} == {(8, 8, 8, 1)}


def test_cells_have_the_average_they_name(workdir, tmp_path):
    config = run_config.load(workdir)
    config.train.ema_decays = (0.995, 0.5)
    run_config.save(config, tmp_path / "two")
    with Checkpoints(workdir) as checkpoints:
        _, trained = checkpoints.restore_params(setup.experiment(config).params_shape, ema=0.995)
    nothing = jax.tree.map(jnp.zeros_like, trained)
    created = state.create(lambda key: trained, optax.sgd(0.1), jax.random.key(0), ema_decays=(0.995, 0.5))
    with Checkpoints(tmp_path / "two", keep=1) as checkpoints:
        checkpoints.save(created.replace(ema_params={0.995: trained, 0.5: nothing}), {})
    (own, _), (other, _) = figures_by_decay(tmp_path / "two", (0.995, 0.5))
    assert other["frechet"] > own["frechet"] + 1  # a network of nothing leaves noise
    ((alone, _),) = figures_by_decay(workdir, (0.995,))
    assert own == alone
    with pytest.raises(UserError, match=r"config.axes: ema_decay of EMA=0.9: 0.9 is none of the run's \(0.995, 0.5\)"):
        figures_by_decay(tmp_path / "two", (0.9,))


def figures_by_decay(workdir, decays):
    from configs.ablations import base

    config = base.quality()
    config.num, config.batch_size, config.sample.steps = 100, 50, 3
    grid = [sweeps.Cell({"EMA": str(decay)}, {"ema_decay": decay}) for decay in decays]
    kind = ablations.quality_of_samples(config, grid, workdir)
    return [kind.compute(cell) for cell in grid]


@pytest.fixture
def hybrid(workdir, tmp_path):
    """A workdir like `workdir` whose network has a learned variance, not trained at all."""
    config = run_config.load(workdir)
    config.train.hybrid = 0.001
    path = tmp_path / "hybrid"
    run_config.save(config, path)
    experiment = setup.experiment(config)
    init = jax.jit(lambda key: setup.init_params(experiment.model, experiment.image_shape, key))
    created = state.create(init, optax.sgd(0.1), jax.random.key(0), ema_decays=config.train.ema_decays)
    with Checkpoints(path, keep=1) as checkpoints:
        checkpoints.save(created, {})
    return path


@pytest.mark.usefixtures("quick_compilation")
def test_bits_by_variance(workdir, hybrid, ablate, tmp_path):
    from configs.ablations import variance

    config = variance.get_config()
    config.axes = (("S", tuple((str(steps), {"steps": steps}) for steps in (3, 20))), config.axes[1])
    config.num, config.batch_size = 12, 8
    with pytest.raises(UserError, match=r"config.sample.variance: 'learned_range' needs a network .*'fixed_large'$"):
        ablate.run(config, workdir, tmp_path / "out", "0/1")
    assert not (tmp_path / "out").exists()
    ablate.run(config, hybrid, tmp_path / "out", "0/1")
    with (tmp_path / "out" / "table.csv").open() as file:
        rows = {(row["S"], row["variance"]): row for row in csv.DictReader(file)}
    assert len({row["bound"] for row in rows.values()}) == 6
    assert all(0 < float(row["bound_error"]) < float(row["bound"]) for row in rows.values())
    assert " ± " in (tmp_path / "out" / "table.md").read_text()
    # ε̂ = 0 and log σ² midway is what a network starts from.
    experiment = setup.experiment(run_config.load(hybrid))
    _, held_out, prepare = setup.images(run_config.load(hybrid))
    images, _ = on_images.read(held_out, prepare, 12)
    found = likelihood.bound(
        schedules.respace(experiment.schedule, [0, 10, 19]),
        lambda x, t: process_of_zero(experiment.schedule, x, jnp.array([0, 10, 19])[t]),
        jnp.asarray(images / 127.5 - 1, jnp.float32), sample_keys(0, 0, 12), variance="learned_range", clip=1.0,
    )  # fmt: skip
    assert float(rows["3", "learned_range"]["bound"]) == pytest.approx(float(found.total.mean()), rel=1e-5)


def process_of_zero(schedule, x, t):
    eps = jnp.zeros_like(x)
    return sampling.Prediction(process.predict_x0(schedule, x, t, eps), eps, jnp.full_like(x, 0.5))


@pytest.mark.usefixtures("quick_compilation")
def test_reconstruction_and_training(workdir, ablate, tmp_path):
    from configs.ablations import ddim_table2, schedules

    config = ddim_table2.get_config()
    config.axes = (("S", (("2", {"steps": 2}), ("10", {"steps": 10}))),)
    config.num = 20
    ablate.run(config, workdir, tmp_path / "errors", "0/1")
    with (tmp_path / "errors" / "table.csv").open() as file:
        few, many = (float(row["mse"]) for row in csv.DictReader(file))
    assert 0 < many < few
    assert (tmp_path / "errors" / "images.png").exists()
    config.axes = (("S", (("21", {"steps": 21}),)),)
    with pytest.raises(UserError, match="config.axes: steps: num_steps=21 is out of range"):
        ablate.run(config, workdir, tmp_path / "errors", "0/1")
    config.update({"axes": (("S", (("2", {"steps": 2}),)),), "num": 360})
    with pytest.raises(UserError, match="config.num: 360: allowed is 1 … 359, the images there are"):
        ablate.run(config, workdir, tmp_path / "errors", "0/1")

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
    good, config.axes = config.axes, (*config.axes, ("bad", (("bad", {"train.target": "epsilon"}),)))
    with pytest.raises(UserError, match="config.train.target"):
        ablate.run(config, None, tmp_path / "runs", "0/1")
    config.axes = good
    ablate.run(config, None, tmp_path / "runs", "0/1")
    with (tmp_path / "runs" / "table.csv").open() as file:
        linear, cosine = (float(row["frechet"]) for row in csv.DictReader(file))
    assert linear != cosine
