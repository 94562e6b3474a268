"""Ways to restore an image, as experiments/restore.py compares them: networks of workdirs, one or several in turn."""

import math
import os
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import ml_collections
import numpy as np

from diffjax import viz
from diffjax.data import degradations
from diffjax.errors import UserError
from diffjax.tasks import conditional, super_resolution
from diffjax.tasks.generation import normalize
from diffjax.training import restoration, setup, trained
from diffjax.training.flags import assignment
from diffjax.training.trained import Trained

_OWN = ("draws", "noise_scale")


class Way(NamedTuple):
    """How images are restored, or not."""

    restore: conditional.Restore
    sampler: str = "none"
    """What there is to say of it in a table."""
    small: bool = False
    """Whether it is given the image as small as it was made, not enlarged."""


class Stages(NamedTuple):
    """A network, and those of super-resolution that go on from what it makes, if there are any."""

    config: ml_collections.ConfigDict
    """Whose data are restored: the last one's, made as many times smaller as all of them enlarge."""
    shape: tuple[int, int, int]
    """Of what the last one makes."""
    factors: list[int]
    """By how much each enlarges, where there are several."""
    later: list[Way]
    """All but the first."""


def load(workdir: str | os.PathLike) -> Trained:
    """`trained.load` of a network that restores.

    Raises:
      UserError: as that, or one that does not.
    """
    found = trained.load(workdir)
    if found.experiment.task is None:
        raise UserError(f"{workdir} generates images, and restores none (config.task.name)")
    return found


def sampled(network: Trained, text: str) -> Way:
    """What a --sample asks for: "steps=25,draws=8".

    Raises:
      UserError: a field that is none, or a value that cannot be.
    """
    config = ml_collections.ConfigDict(network.config.to_dict())
    fields = dict(assignment("--sample", part) for part in text.split(",") if part)
    own = {name: fields.pop(name) for name in _OWN if name in fields}
    if unknown := fields.keys() - config.sample.keys():
        allowed = ", ".join((*config.sample, *_OWN))
        raise UserError(f"--sample {text}: {min(unknown)!r} is no field of config.sample; allowed are {allowed}")
    with config.sample.ignore_type():
        config.sample.update(fields)
    experiment = setup.experiment(config)
    scale, draws = own.get("noise_scale", 1.0), own.get("draws", 1)
    if not scale >= 0.0:
        raise UserError(f"--sample {text}: noise_scale={scale} must be ≥ 0")
    if not (isinstance(draws, int) and draws >= 1):
        raise UserError(f"--sample {text}: draws={draws} must be a whole number ≥ 1")
    restore = restoration.restorer(experiment, network.params, noise_scale=float(scale))
    chosen = {key: value for key, value in config.sample.items() if value is not None} | own
    sampler = ", ".join(f"{key} {value}" for key, value in chosen.items())
    return Way(restore if draws == 1 else partial(_average, restore, num=draws), sampler)


def regression(workdir: str | os.PathLike, shape: tuple[int, int, int]) -> Way:
    """What a regression makes of the input.

    Raises:
      UserError: a workdir that is none, or of other images.
    """
    other = load(workdir)
    if other.experiment.image_shape != shape or other.config.task.name != "regression":
        raise UserError(f"--regression {workdir}: must be a regression of images {shape}")
    return Way(restoration.restorer(other.experiment, other.params))


def stages(first: Trained, texts: Sequence[str]) -> Stages:
    """What each --cascade asks for: "WORKDIR" or "WORKDIR,steps=25,…", the fields as `sampled` has them.

    Raises:
      UserError: a stage that is no super-resolution, or does not go on from what the one before it makes.
    """
    shape = first.experiment.image_shape
    if not texts:
        return Stages(first.config, shape, [], [])
    config, factors, later = first.config, [_factor(first, "--workdir")], []
    for text in texts:
        workdir, _, fields = text.partition(",")
        stage = load(workdir)
        factors.append(_factor(stage, f"--cascade {workdir}"))
        wanted = (factors[-1] * shape[0], factors[-1] * shape[1], shape[2])
        if stage.experiment.image_shape != wanted:
            raise UserError(
                f"--cascade {workdir}: it makes images {stage.experiment.image_shape}, {factors[-1]} times as large as "
                f"its input; after images {shape} that must be {wanted}"
            )
        way = sampled(stage, fields)
        later.append(way._replace(sampler=f"{workdir} (step {stage.step}): {way.sampler}"))
        config, shape = stage.config, wanted
    config = ml_collections.ConfigDict(config.to_dict())
    config.data.degradation.update(kinds=first.config.data.degradation.kinds, factor=math.prod(factors))
    return Stages(config, shape, factors, later)


def in_turn(ways: Sequence[Way], factors: Sequence[int]) -> Way:
    """The ways one after the other, from the small image on; factors without a way enlarge bicubically."""

    def restore(low: Any, keys: Any) -> Any:
        sizes = [tuple(math.prod(factors[: n + 1]) * size for size in low.shape[1:3]) for n in range(len(factors))]
        steps = [(way.restore, size) for way, size in zip(ways, sizes, strict=False)]
        made = super_resolution.cascade(steps, viz.to_uint8(low), keys)[-1]
        if len(ways) < len(factors):
            made = np.stack([degradations.upsample(image, sizes[-1]) for image in made])
        return normalize(jnp.asarray(made))

    return Way(restore, "; then ".join(way.sampler for way in ways), small=True)


def _factor(network: Trained, flag: str) -> int:
    name, options = network.config.task.name, network.config.data.degradation
    if name != "super_resolution" or len(options.kinds) != 1 or options.kinds[0] not in degradations.REDUCTIONS:
        raise UserError(f"{flag}: a cascade is of super-resolution by one of {', '.join(degradations.REDUCTIONS)}")
    return options.factor


def _average(restore, condition, keys, *, num):
    return conditional.average(restore, condition, keys, num)
