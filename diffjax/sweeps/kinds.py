"""The kinds of sweeps: what a cell computes, and what the fields that it sets mean.

A kind is a function of the cells, of options that a sweep's config may set, and of any of `workdir`, the folder of a
trained run, and `folder`, where it may keep files. It checks everything before any cell is computed, and returns a
`Kind`. A config names one of `KINDS`, or another function by its import path.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax import likelihood, timesteps
from diffjax.errors import UserError, naming
from diffjax.metrics.registry import USUAL
from diffjax.registry import Registry
from diffjax.runs import build, real_images, resolve
from diffjax.runs.config import SAMPLE
from diffjax.runs.run import Run, load_part
from diffjax.samplers import SAMPLERS, analytic, ddpm, load_moments
from diffjax.sweeps import networks, trained
from diffjax.sweeps.cells import Cell
from diffjax.sweeps.networks import NUM_PICTURES, Measurement
from diffjax.tasks.base import TASKS
from diffjax.tasks.distillation import Distillation
from diffjax.training.checkpoints import has_checkpoint

KINDS = Registry("kind of sweep", package="diffjax.sweeps")


class Kind(NamedTuple):
    """The computation of cells, and the facts that all of them share."""

    compute: Callable[[Cell], tuple[dict[str, Any], np.ndarray | None]]
    """Cell → (its figures, and images uint8 `[≤ 8, H, W, C]` if there are any)."""
    protocol: dict[str, Any]
    """The facts that the figures depend on, as JSON values."""
    figures: tuple[str, ...]
    """The figures that get a table and a plot; cells may have more of them."""
    originals: np.ndarray | None = None
    """The real images that the images of all cells were made from, uint8 `[≤ 8, H, W, C]`."""


@KINDS.register
def quality(
    grid: list[Cell],
    workdir: Path,
    *,
    num: int = 2000,
    batch_size: int = 500,
    seed: int = 0,
    extractor: str = "pixels",
    reference_num: int = 10_000,
    ema_decay: float | None = None,
    figures: tuple[str, ...] = USUAL,
    sample: dict | None = None,
) -> Kind:
    """Measures samples of a trained run against the images that it was trained on.

    A cell sets fields of `config.sample`, `num` and `ema_decay`. Samplers whose tables have the same shape (η, σ̂, the
    spacing, a fixed or learned variance) share one compiled program.

    Args:
      grid: the cells.
      workdir: the folder of the run.
      num: the number of samples.
      batch_size: samples at a time.
      seed: the seed of the noise.
      extractor: "pixels", a classifier's .safetensors file, the .pth file of FID's Inception, or an import path.
      reference_num: the largest number of real images.
      ema_decay: the decay of the parameters' average; None: the run's first.
      figures: the metrics; the Fréchet distance needs more samples and real images than there are features.
      sample: fields of config.sample that all cells have in common; the others are as in the run's config.

    Raises:
      UserError: an invalid workdir, field or cell, or a run that restores images.
      ValueError: an option that is out of range.
    """
    _check(num=num, batch_size=batch_size, seed=seed, reference_num=reference_num)
    shared = networks.of_workdir(workdir, ema_decay, sample)
    planned = {cell.name: networks.of_cell(shared, cell, num) for cell in grid}
    measure = Measurement(
        shared.config, [count for _, count in planned.values()], extractor=extractor, reference_num=reference_num,
        figures=figures, seed=seed, batch_size=batch_size,
    )  # fmt: skip
    params, facts = networks.restored(shared, [run for run, _ in planned.values()])

    def compute(cell: Cell) -> tuple[dict[str, Any], np.ndarray]:
        run, count = planned[cell.name]
        return measure(dataclasses.replace(run, params=params[run.ema]), count)

    facts |= {"sample": resolve.to_dict(shared.config.sample), "num": num, "seed": seed}
    return Kind(compute, measure.protocol | facts, figures)


@KINDS.register
def training(
    grid: list[Cell],
    folder: Path,
    *,
    base: str,
    fields: dict | None = None,
    num: int = 2000,
    batch_size: int = 500,
    seed: int = 0,
    extractor: str = "pixels",
    reference_num: int = 10_000,
    figures: tuple[str, ...] = USUAL,
) -> Kind:
    """Trains a network for each cell, and measures its samples against the images of the base config.

    A cell sets fields of the config, such as "train.target". Its network is sampled as its `config.sample` says.

    Args:
      grid: the cells.
      folder: the folder of the cells' workdirs.
      base: the config that all cells start from: a name, a file or a module.
      fields: fields that are changed for all cells.
      num: the number of samples.
      batch_size: samples at a time.
      seed: the seed of the samples' noise.
      extractor: "pixels", a classifier's .safetensors file, the .pth file of FID's Inception, or an import path.
      reference_num: the largest number of real images.
      figures: the metrics; the Fréchet distance needs more samples and real images than there are features.

    Raises:
      UserError: an invalid config, field or cell, or a task that restores images.
      ValueError: an option that is out of range.
    """
    _check(num=num, batch_size=batch_size, seed=seed, reference_num=reference_num)
    common = trained.common_config(base, fields)
    configs = {}
    for cell in grid:
        with networks.naming_cell(cell):
            configs[cell.name] = changed = resolve.override(common, cell.fields)
            networks.check_generates(trained.checked_task(changed), "config.base")
    measure = Measurement(
        common, [num], extractor=extractor, reference_num=reference_num, figures=figures, seed=seed,
        batch_size=batch_size,
    )  # fmt: skip

    def compute(cell: Cell) -> tuple[dict[str, Any], np.ndarray]:
        return measure(trained.run(configs[cell.name], folder / cell.name), num)

    facts = {"config": resolve.to_dict(common), "num": num, "seed": seed}
    return Kind(compute, measure.protocol | facts, figures)


@KINDS.register
def distillation(
    grid: list[Cell],
    folder: Path,
    *,
    base: str,
    fields: dict | None = None,
    num: int = 2000,
    batch_size: int = 500,
    seed: int = 0,
    extractor: str = "pixels",
    reference_num: int = 10_000,
    figures: tuple[str, ...] = USUAL,
) -> Kind:
    """Distils a chain of students, each the teacher of the next cell's, and measures their samples.

    There is one axis; a cell sets `task.num_steps`, half of that of the cell before, and other fields of the config.
    The teacher of the first is that of the base config. Each student is sampled in its own number of steps, and so is
    the first teacher beside it (`teacher_frechet`, …).

    Args:
      grid: the cells.
      folder: the folder of the cells' workdirs.
      base: the config that all cells start from, of the task distillation: a name, a file or a module.
      fields: fields that are changed for all cells.
      num: the number of samples.
      batch_size: samples at a time.
      seed: the seed of the samples' noise.
      extractor: "pixels", a classifier's .safetensors file, the .pth file of FID's Inception, or an import path.
      reference_num: the largest number of real images.
      figures: the metrics; the Fréchet distance needs more samples and real images than there are features.

    Raises:
      UserError: an invalid config, field or cell, another task, or a teacher that does not fit a student.
      ValueError: an option that is out of range.
    """
    _check(num=num, batch_size=batch_size, seed=seed, reference_num=reference_num)
    if len(grid[0].labels) > 1:
        raise UserError(f"config.axes: {', '.join(grid[0].labels)} must be one axis: the students are one chain")
    common = trained.common_config(base, fields)
    if not issubclass(TASKS[common.task.name], Distillation):
        raise UserError(f"config.base: its task {common.task.name!r} must be 'distillation'")
    configs, previous, teacher = {}, None, None
    for cell in grid:
        changes = {"sample.num_steps": cell.fields.get("task.num_steps", common.task.num_steps)} | cell.fields
        if configs:
            changes |= {"task.teacher": str(folder / previous.name), "task.teacher_target": None}
        with networks.naming_cell(cell):
            configs[cell.name] = changed = resolve.override(common, changes)
            task = trained.checked_task(changed)
            part = task.initial_parts["teacher"]
            if teacher is None:
                teacher = load_part(part)
            else:
                with naming(part.field):
                    part.check(build.task(configs[previous.name]))
        previous = cell
    measure = Measurement(
        common, [num], extractor=extractor, reference_num=reference_num, figures=figures, seed=seed,
        batch_size=batch_size,
    )  # fmt: skip

    def compute(cell: Cell) -> tuple[dict[str, Any], np.ndarray]:
        config, workdir = configs[cell.name], folder / cell.name
        if cell is not grid[0] and not has_checkpoint(workdir):
            trained.check_end(build.task(config).initial_parts["teacher"])
        found, pictures = measure(trained.run(config, workdir), num)
        beside, _ = measure(teacher.with_options(**resolve.to_dict(config.sample)), num)
        return found | {f"teacher_{name}": beside[name] for name in figures if name in beside}, pictures

    facts = {"config": resolve.to_dict(common), "num": num, "seed": seed}
    return Kind(compute, measure.protocol | facts, (*figures, *(f"teacher_{name}" for name in figures)))


@KINDS.register
def reconstruction(
    grid: list[Cell],
    workdir: Path,
    *,
    num: int = 200,
    batch_size: int = 200,
    ema_decay: float | None = None,
    data: dict | None = None,
) -> Kind:
    """Measures the mean squared error of encoding images and decoding them again (DDIM §5.4).

    A cell sets `num_steps`, the number of steps each way.

    Args:
      grid: the cells.
      workdir: the folder of the run.
      num: the number of images, held-out ones if there are any, else training images.
      batch_size: images at a time.
      ema_decay: the decay of the parameters' average; None: the run's first.
      data: other images: the fields of config.data that describe them.

    Raises:
      UserError: an invalid workdir, field or cell, or a run that restores images.
      ValueError: an option that is out of range.
    """
    _check(num=num, batch_size=batch_size)
    shared = networks.of_workdir(workdir, ema_decay)
    for cell in grid:
        if cell.fields.keys() != {"num_steps"}:
            found = ", ".join(cell.fields) or "nothing"
            raise UserError(f"config.axes: {cell.name} sets {found}; it must set num_steps alone")
        with networks.naming_cell(cell), naming("num_steps"):
            timesteps.trailing(
                shared.schedule.num_timesteps, SAMPLE.fields["num_steps"].check(cell.fields["num_steps"])
            )
    images, labels, description = networks.real(shared.config, data, num)
    params, facts = networks.restored(shared, [shared])
    run = dataclasses.replace(shared, params=params[shared.ema])

    def compute(cell: Cell) -> tuple[dict[str, Any], np.ndarray]:
        errors, decoded = real_images.reconstruct(
            run, images, labels, num_steps=cell.fields["num_steps"], batch_size=batch_size
        )
        return {"mse": float(np.mean(errors, dtype=np.float64))}, decoded[:NUM_PICTURES]

    facts |= {"images": description, "error": "mean squared, pixels in [0, 1]"}
    return Kind(compute, facts, ("mse",), images[:NUM_PICTURES])


@KINDS.register
def bits(
    grid: list[Cell],
    workdir: Path,
    *,
    num: int = 200,
    batch_size: int = 200,
    seed: int = 0,
    ema_decay: float | None = None,
    figures: tuple[str, ...] = ("bound",),
    data: dict | None = None,
    sample: dict | None = None,
) -> Kind:
    """Measures the variational bound in bits/dim of the chain that DDPM's sampler visits (Nichol & Dhariwal 2021).

    A cell sets fields of `config.sample`, `num` and `ema_decay`. The sampler must be `ddpm` or `analytic` with η = 1;
    the bound is that of its timesteps and its variance. The decoder of `analytic` has the variance of the error of x̂0.

    Args:
      grid: the cells.
      workdir: the folder of the run.
      num: the number of images, held-out ones if there are any, else training images.
      batch_size: images at a time.
      seed: the seed of the noise.
      ema_decay: the decay of the parameters' average; None: the run's first.
      figures: the figures that get a table and a plot: some of bound, L_T and L_0.
      data: other images: the fields of config.data that describe them.
      sample: fields of config.sample that all cells have in common; the others are as in the run's config.

    Raises:
      UserError: an invalid workdir, field or cell, or a run that restores images.
      ValueError: an option that is out of range.
    """
    _check(num=num, batch_size=batch_size, seed=seed)
    if not figures or set(figures) - {"bound", "L_T", "L_0"}:
        raise ValueError(f"figures={figures} must be some of 'bound', 'L_T', 'L_0'")
    shared = networks.of_workdir(workdir, ema_decay, sample)
    planned = {cell.name: networks.of_cell(shared, cell, num) for cell in grid}
    for cell in grid:
        with networks.naming_cell(cell):
            _check_chain(*planned[cell.name])
    images, labels, description = networks.real(shared.config, data, max(count for _, count in planned.values()))
    params, facts = networks.restored(shared, [run for run, _ in planned.values()])

    def compute(cell: Cell) -> tuple[dict[str, Any], None]:
        planned_run, count = planned[cell.name]
        run = dataclasses.replace(planned_run, params=params[planned_run.ema])
        indices = run.sampler.grid[-2::-1]
        found = real_images.bound(
            run, images[:count], labels[:count], variance=_variance(run), clip=run.clip, indices=indices,
            batch_size=batch_size, seed=seed,
        )  # fmt: skip
        values = {}
        for name, terms in {"bound": found.total, "L_T": found.prior, "L_0": found.terms[0]}.items():
            values[name], values[f"{name}_error"] = likelihood.mean_and_error(terms)
        return {**values, "calls": len(indices), "num": count}, None

    facts |= {
        "images": description,
        "figures": "bits/dim, mean ± standard error over images; one noise per timestep",
        "sample": resolve.to_dict(shared.config.sample),
        "num": num,
        "seed": seed,
    }
    return Kind(compute, facts, figures)


def _variance(run: Run) -> str | np.ndarray:
    """Returns the variance of each step of a run's sampler, from the last one up, as `likelihood.bound` takes it."""
    if SAMPLERS[run.config.sample.sampler] is ddpm:
        return run.config.sample.variance
    decoder = load_moments(run.config.sample.path, run.schedule).x0_mse
    return np.append(decoder[run.sampler.grid[-2]], run.sampler.d[-2::-1] ** 2)


def _check_chain(run: Run, num: int) -> None:
    """Checks that a sampler is DDPM's, unguided, and that there are two images."""
    name = run.config.sample.sampler
    if SAMPLERS[name] not in (ddpm, analytic):
        raise UserError(
            f"config.sample.sampler: {name!r} must be 'ddpm' or 'analytic': a bound is that of its chain and its "
            "variance"
        )
    if SAMPLERS[name] is analytic and run.config.sample.eta != 1.0:
        raise UserError(f"config.sample.eta: {run.config.sample.eta} must be 1 for a bound: the chain is DDPM's")
    if run.sampling.guidance is not None:
        scale = run.config.sample.guidance_scale
        raise UserError(f"config.sample.guidance_scale: {scale} must be None: a bound is that of the unguided network")
    if num < 2:
        raise UserError(f"config.num: {num} must be ≥ 2: a standard error needs two images")


def _check(**values: int) -> None:
    """Checks that whole numbers are at least 1, a seed at least 0."""
    for name, value in values.items():
        least = 0 if name == "seed" else 1
        if not value >= least:
            raise ValueError(f"{name}={value} must be ≥ {least}")
