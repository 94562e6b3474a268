"""What the cells of a sweep compute: distances of samples, errors of encoding and decoding, bits/dim.

Each kind is a function of the sweep's config and its cells that gives a `Kind`. What cannot be is refused there, before
any cell is computed.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from diffjax import likelihood, timesteps
from diffjax.errors import UserError, naming
from diffjax.evaluation import on_images, quality, samples
from diffjax.evaluation.sweeps import Cell
from diffjax.sampling import Clip
from diffjax.tasks import generation
from diffjax.training import guided, run_config, setup
from diffjax.training.checkpoints import Checkpoints
from diffjax.training.loop import train

NUM_PICTURES = 8
"""How many images a cell leaves to be looked at."""

_FIELDS = ("sampler", "steps", "grid", *setup.KNOBS, *guided.FIELDS, "clip", "num", "ema_decay")


class Kind(NamedTuple):
    """How cells are computed, and what all of them share."""

    compute: Callable[[Cell], tuple[dict[str, Any], np.ndarray | None]]
    """Cell → (its figures, and pictures uint8 `[≤ 8, H, W, C]` if there are any)."""
    protocol: dict[str, Any]
    """What makes a figure that figure, JSON-able."""
    originals: np.ndarray | None = None
    """What the pictures are of, uint8 `[≤ 8, H, W, C]`."""


class _Trained(NamedTuple):
    config: ConfigDict
    experiment: setup.Experiment
    ema_decay: float


class _Way(NamedTuple):
    """How a cell samples."""

    experiment: setup.Experiment
    """With the cell's table and guidance."""
    num: int
    clip: Clip
    ema_decay: float


def quality_of_samples(config: ConfigDict, grid: list[Cell], workdir: Path) -> Kind:
    """Distances of a trained workdir's samples to what it was trained on.

    Raises:
      UserError: a workdir, a field or a cell that cannot be.
    """
    trained = _trained(config, workdir)
    ways = {cell.name: _way(config, cell, trained) for cell in grid}
    measure, protocol = _measure(config, trained.config, [way.num for way in ways.values()])
    params, facts = _restored(trained, workdir, {way.ema_decay for way in ways.values()})

    def compute(cell: Cell) -> tuple[dict[str, Any], np.ndarray]:
        way = ways[cell.name]
        return measure(params[way.ema_decay], way.experiment, way.num, way.clip)

    facts |= {"sample": dict(config.sample), "num": config.num, "seed": config.seed}
    return Kind(compute, protocol | facts)


def training(config: ConfigDict, grid: list[Cell], base: ConfigDict, folder: Path) -> Kind:
    """Distances of samples of a network that is trained for each cell, as `base` with the cell's fields, in `folder`.

    Raises:
      UserError: a field or a cell that cannot be.
    """
    configs = {cell.name: _changed(base, cell) for cell in grid}
    for changed in configs.values():
        setup.objective(changed, setup.experiment(changed))
    measure, protocol = _measure(config, base, [config.num])

    def compute(cell: Cell) -> tuple[dict[str, Any], np.ndarray]:
        changed = configs[cell.name]
        state = train(changed, folder / cell.name)
        if int(state.step) < changed.train.steps:
            raise UserError(f"stopped after step {int(state.step)} of {cell.name}; the same command goes on from there")
        experiment = setup.experiment(changed)
        params = state.ema_params[experiment.ema_decay]
        return measure(params, experiment, config.num, generation.CLIP)

    facts = {"config": json.loads(base.to_json()), "num": config.num, "seed": config.seed}
    return Kind(compute, protocol | facts)


def reconstruction(config: ConfigDict, grid: list[Cell], workdir: Path) -> Kind:
    """Mean squared errors of encoding images and decoding them again.

    Raises:
      UserError: a workdir, a field or a cell that cannot be.
    """
    trained = _trained(config, workdir)
    for cell in grid:
        if cell.fields.keys() != {"steps"}:
            raise UserError(
                f"config.axes: {cell.name} sets {', '.join(cell.fields) or 'nothing'}, must set steps alone"
            )
        with naming("config.axes: steps"):
            timesteps.trailing(trained.experiment.schedule.num_timesteps, cell.fields["steps"])
    images, labels, description = _real(config, trained.config, config.num)
    params, facts = _restored(trained, workdir, {trained.ema_decay})

    def compute(cell: Cell) -> tuple[dict[str, Any], np.ndarray]:
        errors, back = on_images.reconstruct(
            trained.experiment, params[trained.ema_decay], images, labels, num_steps=cell.fields["steps"],
            batch_size=config.batch_size,
        )  # fmt: skip
        return {"mse": float(np.mean(errors, dtype=np.float64))}, back[:NUM_PICTURES]

    facts |= {"images": description, "error": "mean squared, pixels in [0, 1]"}
    return Kind(compute, facts, images[:NUM_PICTURES])


def bits(config: ConfigDict, grid: list[Cell], workdir: Path) -> Kind:
    """The variational bound in bits/dim, of the chain that `ddpm` samples by: S of the T timesteps, and its variance.

    Raises:
      UserError: a workdir, a field or a cell that cannot be: a learned variance where the network predicts none.
    """
    trained = _trained(config, workdir)
    chains = {}
    for cell in grid:
        fields = {**config.sample, **cell.fields}
        if fields.get("sampler") != "ddpm" or not fields.get("variance"):
            raise UserError(f"config.sample: {fields}: a bound is that of sampler='ddpm' with a variance")
        way = _way(config, cell, trained)
        if way.num < 2:
            raise UserError(f"config.num: {way.num} must be ≥ 2: a standard error needs two images")
        if way.experiment.guide is not None:
            raise UserError(f"config.sample.guidance: {fields['guidance']}: a bound is that of the network unguided")
        chains[cell.name] = way, way.experiment.steps.grid[-2::-1], fields["variance"]
    ways = [way for way, _, _ in chains.values()]
    images, labels, description = _real(config, trained.config, max(way.num for way in ways))
    params, facts = _restored(trained, workdir, {way.ema_decay for way in ways})

    def compute(cell: Cell) -> tuple[dict[str, Any], None]:
        way, indices, variance = chains[cell.name]
        found = on_images.bound(
            trained.experiment, params[way.ema_decay], images[: way.num], labels[: way.num], variance=variance,
            clip=way.clip, indices=indices, batch_size=config.batch_size, seed=config.seed,
        )  # fmt: skip
        parts = {"bound": found.total, "L_T": found.prior, "L_0": found.terms[0]}
        figures = {}
        for name, values in parts.items():
            figures[name], figures[f"{name}_error"] = likelihood.mean_and_error(values)
        return {**figures, "calls": len(indices), "num": way.num}, None

    facts |= {
        "images": description,
        "figures": "bits/dim, mean ± standard error over images; one draw a timestep",
        "sample": dict(config.sample),
        "num": config.num,
        "seed": config.seed,
    }
    return Kind(compute, facts)


def _trained(config: ConfigDict, workdir: Path) -> _Trained:
    trained = run_config.load(workdir)
    experiment = setup.experiment(trained)
    decay = config.ema_decay or experiment.ema_decay
    _check_decay("config.ema_decay", decay, trained)
    return _Trained(trained, experiment, decay)


def _check_decay(field: str, decay: float, trained: ConfigDict) -> None:
    if decay not in trained.train.ema_decays:
        raise UserError(f"{field}: {decay} is none of the run's {tuple(trained.train.ema_decays)}")


def _restored(trained: _Trained, workdir: Path, decays: set[float]) -> tuple[dict[float, Any], dict[str, Any]]:
    """(parameters by EMA decay, what the protocol says of those that a cell has unless it says otherwise)."""
    params = {}
    with Checkpoints(workdir) as checkpoints:
        for decay in sorted(decays):
            step, params[decay] = checkpoints.restore_params(trained.experiment.params_shape, ema=decay)
    return params, {"workdir": str(workdir.resolve()), "step": step, "parameters": f"EMA {trained.ema_decay}"}


def _way(config: ConfigDict, cell: Cell, trained: _Trained) -> _Way:
    """What a cell asks for: it sets fields of `config.sample`, and num, clip and ema_decay."""
    experiment, fields = trained.experiment, {**config.sample, **cell.fields}
    if unknown := fields.keys() - set(_FIELDS):
        raise UserError(f"config.axes: {sorted(unknown)[0]!r} of {cell.name} is not one of {', '.join(_FIELDS)}")
    options = ConfigDict(dict.fromkeys((*setup.KNOBS, *guided.FIELDS)) | fields)
    steps = setup.sampler(experiment.schedule, options)
    setup.check_variance(options.variance, experiment.learns_variance)
    guide = guided.guide(
        options, experiment.schedule, num_classes=experiment.model.num_classes, label_dropout=experiment.label_dropout
    )
    decay = fields.get("ema_decay", trained.ema_decay)
    _check_decay(f"config.axes: ema_decay of {cell.name}", decay, trained.config)
    changed = experiment._replace(steps=steps, guide=guide)
    return _Way(changed, fields.get("num", config.num), fields.get("clip", generation.CLIP), decay)


def _changed(base: ConfigDict, cell: Cell) -> ConfigDict:
    changed = base.copy_and_resolve_references()
    with naming("config.axes"):
        try:
            changed.update_from_flattened_dict(cell.fields)
        except (KeyError, TypeError) as error:
            raise UserError(f"config.axes: {error}") from error
    return changed


def _measure(config: ConfigDict, trained: ConfigDict, nums: list[int]):
    """((parameters, experiment, num, clip) → (figures, pictures), what all of them share)."""
    source, _, prepare = setup.images(trained)
    shape = tuple(trained.data.image_shape)
    extract = quality.extractor(config.extractor, shape)
    count, names = (
        min(len(source), config.reference_num),
        tuple(name for name in config.figures if name != "accuracy"),  # which comes by itself
    )
    for num in nums:
        quality.check(num, count, extract, names)
    real, _ = on_images.read(source, prepare, count)
    description = f"the first {count} images that {trained.data.source} was trained on"
    reference = quality.Reference(extract(real).features, description)

    def measure(params, experiment, num, clip) -> tuple[dict[str, Any], np.ndarray]:
        drawn, labels = samples.draw(experiment, params, num, seed=config.seed, clip=clip, batch_size=config.batch_size)
        found = quality.figures(drawn, reference, extract, names, labels=labels)
        floors = {f"{name}_floor": figure.floor for name, figure in found.items() if figure.floor is not None}
        values = {name: figure.value for name, figure in found.items()}
        return values | floors | {"calls": experiment.steps.num_rows, "num": num}, drawn[:NUM_PICTURES]

    facts = {"reference": description, "extractor": extract.protocol, "figures": names, "rounding": "nearest"}
    return measure, facts


def _real(config: ConfigDict, trained: ConfigDict, num: int) -> tuple[np.ndarray, np.ndarray, str]:
    """(images, labels, which they are): the named arrays of the npz, or else what is held out, or else trained on."""
    if config.images:
        with naming("config.images"):
            changed = run_config.with_data(trained, {"images": config.images, "labels": config.labels})
        source, _, prepare = setup.images(changed)
        which = config.images
    else:
        source, held_out, prepare = setup.images(trained)
        which = "the held-out ones" if len(held_out) else "the training ones"
        source = held_out if len(held_out) else source
    if not 1 <= num <= len(source):
        raise UserError(f"config.num: {num}: allowed is 1 … {len(source)}, the images there are")
    return *on_images.read(source, prepare, num), f"{num} of {which}"
