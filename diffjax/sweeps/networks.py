"""Helpers that the kinds of sweeps share: the run of each cell, real images, the measurement of samples."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from diffjax.errors import UserError, naming
from diffjax.fields import Field
from diffjax.files import to_path
from diffjax.metrics import registry
from diffjax.runs import build, real_images, resolve, saved
from diffjax.runs.run import Run, of_config
from diffjax.sweeps.cells import Cell
from diffjax.tasks.base import Task

NUM_PICTURES = 8
"""The number of images that are saved with a cell."""

_NUM = Field(int, None, "", low=1)


@contextlib.contextmanager
def naming_cell(cell: Cell) -> Iterator[None]:
    """Makes the message of a `UserError` raised inside begin with the cell."""
    try:
        yield
    except UserError as error:
        raise UserError(f"config.axes: {cell.name}: {error}") from error


def of_workdir(workdir: Path, ema_decay: float | None, sample: Mapping[str, Any] | None = None) -> Run:
    """Returns the run of a workdir without its parameters.

    Args:
      workdir: the folder of the run.
      ema_decay: the decay of the parameters' average; None: the run's first.
      sample: fields of `config.sample` to change.

    Raises:
      UserError: an invalid workdir, decay or field, or a run that restores images.
    """
    config = saved.load(workdir)
    decay = config.train.ema_decays[0] if ema_decay is None else ema_decay
    _check_decay("config.ema_decay", decay, config)
    changes = {f"sample.{name}": value for name, value in resolve.flatten(sample or {}).items()}
    task = build.task(config)
    check_generates(task, f"--workdir={workdir}")
    return Run(resolve.override(config, changes), task, params=None, ema=decay, source=str(workdir))


def of_cell(shared: Run, cell: Cell, num: int) -> tuple[Run, int]:
    """Returns the run with the fields of a cell, and its number of images.

    Args:
      shared: the run that all cells start from.
      cell: sets fields of `config.sample`, `num` and `ema_decay`.
      num: the number of images of cells that do not set it.

    Raises:
      UserError: an invalid field; it names the cell.
    """
    fields = dict(cell.fields)
    with naming_cell(cell):
        with naming("num"):
            count = _NUM.check(fields.pop("num", num))
        decay = fields.pop("ema_decay", shared.ema)
        _check_decay("ema_decay", decay, shared.config)
        return dataclasses.replace(shared.with_options(**fields), ema=decay), count


def check_generates(task: Task, name: str) -> None:
    """Checks that a task generates images.

    Raises:
      UserError: one that restores images; the message begins with `name`.
    """
    if task.is_conditional:
        raise UserError(f"{name}: it restores images ({type(task).__name__}); a sweep needs a task that generates them")


def restored(shared: Run, planned: Iterable[Run]) -> tuple[dict[float, Any], dict[str, Any]]:
    """Returns (parameters by EMA decay, facts about them for the protocol).

    Args:
      shared: the run that all cells start from, whose decay is that of cells that do not set it.
      planned: the runs of the cells, without parameters.

    Raises:
      UserError: no checkpoint that can be read.
    """
    loaded = {}
    for run in planned:
        if run.ema not in loaded:
            loaded[run.ema] = of_config(run.config, run.source, ema=run.ema)
    step = next(iter(loaded.values())).step
    facts = {"workdir": str(to_path(shared.source).resolve()), "step": step, "parameters": f"EMA {shared.ema}"}
    return {decay: run.params for decay, run in loaded.items()}, facts


def real(
    config: ml_collections.ConfigDict, data: Mapping[str, Any] | None, num: int
) -> tuple[np.ndarray, np.ndarray, str]:
    """Returns real images uint8 `[num, H, W, C]`, their labels, and a description of them.

    Args:
      config: the config of the run.
      data: the fields of `config.data` that describe other images; without any, the images are those held out of
        training, or else the training images.
      num: the number of images.

    Raises:
      UserError: an invalid field, images that cannot be read, or too few of them.
    """
    if data:
        changes = resolve.flatten(data)
        found = build.images(saved.with_data(config, changes))
        source, which = found.source, ", ".join(f"{name}={value}" for name, value in changes.items())
    else:
        found = build.images(config)
        source, which = found.source, "the training ones"
        if len(found.held_out):
            source, which = found.held_out, "the held-out ones"
    if not 1 <= num <= len(source):
        raise UserError(f"config.num: {num} must be within 1 … {len(source)}, the number of images")
    return *real_images.read(source, found.prepare, num), f"{num} of {which}"


class Measurement:
    """Measures samples of runs against the images of a config.

    Args:
      config: the config whose images are the reference.
      nums: the numbers of samples that will be measured.
      extractor: the feature extractor (`metrics.extractor`).
      reference_num: the largest number of real images.
      figures: the metrics.
      seed: the seed of the noise.
      batch_size: samples at a time.

    Raises:
      UserError: an unknown extractor or metric, too few samples or real images, or images that cannot be read.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        nums: Iterable[int],
        *,
        extractor: str,
        reference_num: int,
        figures: tuple[str, ...],
        seed: int,
        batch_size: int,
    ):
        images = build.images(config)
        extract = registry.extractor(extractor, config.data.image_shape)
        count = min(len(images.source), reference_num)
        names = tuple(name for name in figures if not _needs_labels(name))
        for num in nums:
            registry.check(num, count, extract, names)
        description = f"the first {count} images that {config.data.source} was trained on"
        real_ones, _ = real_images.read(images.source, images.prepare, count)
        self._reference = registry.Reference(extract(real_ones).features, description)
        self._extract, self._names, self._seed, self._batch_size = extract, names, seed, batch_size
        self.protocol = {
            "reference": description,
            "extractor": extract.protocol,
            "figures": names,
            "rounding": "nearest",
        }
        """The facts that the figures depend on, as JSON values."""

    def __call__(self, run: Run, num: int) -> tuple[dict[str, Any], np.ndarray]:
        """Returns (figures, the first samples uint8 `[≤ 8, H, W, C]`) of `num` samples of a run."""
        samples = run.sample(num, seed=self._seed, batch_size=self._batch_size)
        found = registry.measure(samples, self._reference, self._extract, self._names, labels=run.labels(num))
        values = {name: figure.value for name, figure in found.items()}
        floors = {f"{name}_floor": figure.floor for name, figure in found.items() if figure.floor is not None}
        return values | floors | {"calls": run.sampler.num_rows, "num": num}, samples[:NUM_PICTURES]


def _needs_labels(name: str) -> bool:
    """Returns whether a metric is computed wherever there are labels (`metrics.measure`)."""
    return name in registry.METRICS and "labels" in registry.METRICS[name].needs


def _check_decay(field: str, decay: float, config: ml_collections.ConfigDict) -> None:
    if decay not in config.train.ema_decays:
        decays = ", ".join(map(str, config.train.ema_decays))
        raise UserError(f"{field}: {decay} is not one of the run's decays {decays}")
