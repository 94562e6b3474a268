"""The kind of sweep that compares posterior sampling by method, steps and noise."""

from pathlib import Path
from typing import Any

import numpy as np

from diffjax.errors import UserError, naming
from diffjax.inverse.registry import METHODS, OPERATORS
from diffjax.metrics.features.base import pixels
from diffjax.metrics.image_quality import Measure
from diffjax.runs import posterior as posteriors
from diffjax.runs import resolve
from diffjax.runs.config import SAMPLE
from diffjax.runs.posterior import Named
from diffjax.runs.run import Run, load
from diffjax.sweeps import networks
from diffjax.sweeps.cells import Cell
from diffjax.sweeps.kinds import KINDS, Kind

_OWN = ("method", "method_options", "operator", "operator_options", "noise_std")
"""What a cell may set besides fields of `config.sample`."""


@KINDS.register
def posterior(
    grid: list[Cell],
    workdir: Path,
    *,
    operator: str = "downsampling",
    operator_options: dict | None = None,
    noise_std: float = 0.05,
    num: int = 64,
    num_samples: int = 4,
    batch_size: int = 256,
    seed: int = 0,
    ema_decay: float | None = None,
    figures: tuple[str, ...] = ("psnr", "residual", "spread_over_error"),
    data: dict | None = None,
) -> Kind:
    """Measures posterior samples by method, number of steps and noise (`diffjax restore --operator`).

    A cell sets `method` and `method_options`, `operator` and `operator_options`, `noise_std`, and fields of
    `config.sample` such as `num_steps`.

    Args:
      grid: the cells.
      workdir: the folder of the run, an unconditional network.
      operator: the measurement of cells that do not set it, a name in `inverse.OPERATORS` or an import path.
      operator_options: its options.
      noise_std: σ_y of cells that do not set it, ≥ 0.
      num: the number of images, held-out ones if there are any, else training images.
      num_samples: the number of samples of each image.
      batch_size: samples at a time.
      seed: the seed of measurements and samples.
      ema_decay: the decay of the parameters' average; None: the run's first.
      figures: the figures that get a table and a plot: psnr, ssim, kernel, consistency, residual, rank_deviation,
        spread_over_error.
      data: other images: the fields of config.data that describe them.

    Raises:
      UserError: an invalid workdir, field or cell, or a run that restores images or has classes.
      ValueError: an option that is out of range.
    """
    for name, value, least in (("num", num, 1), ("num_samples", num_samples, 2), ("batch_size", batch_size, 1)):
        if value < least:
            raise ValueError(f"{name}={value} must be ≥ {least}")
    run = load(workdir, ema=ema_decay)
    posteriors.check(run)
    common = {"operator": operator, "operator_options": operator_options, "noise_std": noise_std, "method": "mmps"}
    planned = {}
    for cell in grid:
        with networks.naming_cell(cell):
            planned[cell.name] = _planned(run, common | cell.fields)
    config = run.config if data is None else resolve.override(run.config, {f"data.{k}": v for k, v in data.items()})
    measured: dict[str, posteriors.Measured] = {}

    def compute(cell: Cell) -> tuple[dict[str, Any], np.ndarray]:
        changed, method, chosen, std = planned[cell.name]
        key = f"{chosen} {std}"
        if key not in measured:
            measured[key] = posteriors.measured(config, chosen, num, noise_std=std, seed=seed)
        images = measured[key]
        samples = posteriors.sample(changed, method, images, num_samples, seed=seed, batch_size=batch_size)
        measure = Measure(images.pairs, pixels(run.image_shape), run.image_shape)
        found = measure(list(samples[0])) | posteriors.figures(images, samples)
        values = {name: figure.value for name, figure in found.items()}
        average = measure(posteriors.mean(samples))["psnr"].value
        return {**values, "psnr_of_mean": average, "num": num}, samples[0, : networks.NUM_PICTURES]

    facts = {
        "workdir": run.source,
        "step": run.step,
        "parameters": run.parameters,
        "images": f"{num} of {config.data.source}, {num_samples} samples each",
        "sample": resolve.to_dict(run.config.sample),
        "seed": seed,
    } | {name: value for name, value in common.items() if name != "method"}
    return Kind(compute, facts, figures)


def _planned(run: Run, fields: dict[str, Any]) -> tuple[Run, Named, Named, float]:
    """Returns what a cell needs: the run with its grid, the method, the operator, σ_y; checked."""
    unknown = [name for name in fields if name not in _OWN and name not in SAMPLE.fields]
    if unknown:
        raise UserError(f"{unknown[0]} is neither one of {', '.join(_OWN)} nor a field of config.sample")
    std = fields["noise_std"]
    if isinstance(std, bool) or not isinstance(std, int | float) or not 0.0 <= std < float("inf"):
        raise UserError(f"noise_std: {std!r} must be a number ≥ 0")
    method = posteriors.named(fields["method"], fields.get("method_options"), METHODS, "method")
    chosen = posteriors.named(fields["operator"], fields["operator_options"], OPERATORS, "operator")
    with naming("operator"):
        OPERATORS[chosen.name](run.image_shape, **chosen.options)
    changed = run.with_options(**{name: value for name, value in fields.items() if name in SAMPLE.fields})
    return changed, method, chosen, float(std)
