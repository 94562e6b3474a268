"""The methods that `diffjax restore` compares: trained runs that restore images, alone or in a cascade."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from diffjax.data import degradations
from diffjax.data.pixels import to_float, to_uint8
from diffjax.errors import UserError
from diffjax.fields import Field
from diffjax.runs import resolve, run
from diffjax.runs.config import SCHEMA, Section
from diffjax.runs.run import Run
from diffjax.tasks.base import Restore

OPTIONS = {
    "num_samples": Field(int, 1, "The number of samples whose mean is the restored image.", low=1, high=10_000),
    "noise_scale": Field(float, 1.0, "The factor of x_T and of the noise of each step.", low=0.0, high=1e3),
}
"""The options of a method besides the fields of `config.sample`."""


class Method(NamedTuple):
    """A function that restores images, and its description for a table."""

    restore: Restore
    sampler: str = "none"
    """A description of its sampling; "none" if it does not sample."""
    source: str = ""
    """The run that it uses; empty if it uses none."""
    parameters: str = "none"
    """Which parameters of the run: "EMA 0.9999", "raw"."""
    takes_small: bool = False
    """Whether its input is the small image itself, not the enlarged one."""


class Cascade(NamedTuple):
    """A super-resolution network, and those that enlarge its output further."""

    config: ml_collections.ConfigDict
    """The config of the images to restore: those of the last stage, reduced by the product of all factors."""
    shape: tuple[int, int, int]
    """(H, W, C) of the last stage's images."""
    factors: list[int]
    """The factor by which each stage enlarges; empty for a single network."""
    later: list[Method]
    """All stages but the first."""


def load(workdir: str | os.PathLike) -> Run:
    """Loads a run whose network restores images.

    Raises:
      UserError: as `runs.load`, or a run that generates images.
    """
    found = run.load(workdir)
    found.restorer()
    return found


def parse(config: ml_collections.ConfigDict, texts: Mapping[str, str]) -> dict[str, Any]:
    """Returns the values of a command line's texts (field → text), in the form that `sampled` takes.

    Raises:
      UserError: an unknown field, or an invalid value.
    """
    section = SCHEMA.fields["sample"]
    schema = SCHEMA._replace(fields={**SCHEMA.fields, "sample": section._replace(fields={**section.fields, **OPTIONS})})
    parsed = resolve.parse(config, {f"sample.{field}": text for field, text in texts.items()}, schema=schema)
    values = resolve.flatten(parsed.sample)
    return {field: values[field] for field in texts if field in values}


def baselines(network: Run) -> dict[str, Method]:
    """Returns the methods that are part of the model itself, such as a predictor, by name."""
    found = network.task.baselines(network.params)
    return {name: Method(restore, "none", *_identity(network)) for name, restore in found.items()}


def sampled(network: Run, options: Mapping[str, Any]) -> Method:
    """Returns the network as a method, with some options changed.

    Args:
      network: a run that restores images.
      options: fields of `config.sample` (those of its section as "schedule.num_timesteps") and of `OPTIONS`.

    Raises:
      UserError: an unknown field, or an invalid value.
    """
    own = {name: options[name] for name in OPTIONS if name in options}
    checked = resolve.resolve(own, section=Section("", OPTIONS), name="config.sample")
    changed = network.with_options(**{name: value for name, value in options.items() if name not in OPTIONS})
    restore = changed.restorer(noise_scale=checked.noise_scale)
    if checked.num_samples > 1:
        restore = partial(average, restore, num=checked.num_samples)
    return Method(restore, _describe(changed, own), *_identity(network))


def others(workdirs: Sequence[str | os.PathLike], shape: tuple[int, int, int]) -> dict[str, Method]:
    """Returns other runs to compare with, each sampled as in its own config, by name.

    The names are those of their tasks' classes, such as "super_resolution"; if two of these are equal, those of the
    folders; if two of these are equal, the paths.

    Raises:
      UserError: a workdir without a run that restores images of that shape.
    """
    found = [load(workdir) for workdir in workdirs]
    for other, workdir in zip(found, workdirs, strict=True):
        if other.image_shape != shape:
            raise UserError(f"{workdir} restores images of shape {other.image_shape}; they must be {shape}")
    tasks = [_snake_case(type(other.task).__name__) for other in found]
    candidates = (tasks, [Path(workdir).name for workdir in workdirs], list(map(str, workdirs)))
    names = next((names for names in candidates if len(set(names)) == len(names)), candidates[-1])
    methods = [Method(other.restorer(), _describe(other), *_identity(other)) for other in found]
    return dict(zip(names, methods, strict=True))


def cascade_of(first: Run, stages: Sequence[tuple[Run, Mapping[str, Any]]]) -> Cascade:
    """Returns the cascade of a network and of later stages, each given as a run and the options that `sampled` takes.

    Raises:
      UserError: a stage that is not a super-resolution, or whose input is not the output of the stage before it.
    """
    shape = first.image_shape
    if not stages:
        return Cascade(first.config, shape, [], [])
    config, factors, later = first.config, [_factor(first)], []
    for stage, options in stages:
        factors.append(_factor(stage))
        wanted = (factors[-1] * shape[0], factors[-1] * shape[1], shape[2])
        if stage.image_shape != wanted:
            raise UserError(
                f"{stage.source} makes images {stage.image_shape}, {factors[-1]} times as large as its input; after "
                f"images {shape} that must be {wanted}"
            )
        later.append(sampled(stage, options))
        config, shape = stage.config, wanted
    kinds = first.config.data.degradation.kinds
    changes = {"data.degradation.kinds": kinds, "data.degradation.factor": math.prod(factors)}
    return Cascade(resolve.override(config, changes), shape, factors, later)


def in_turn(methods: Sequence[Method], factors: Sequence[int]) -> Method:
    """Returns a method that applies the given ones in turn to the small image, then enlarges by the factors left.

    Args:
      methods: the first stages of the cascade; for the stages without a method it enlarges bicubically.
      factors: the factors by which all stages enlarge.
    """

    def restore(low: Any, keys: Any) -> Any:
        sizes = [tuple(math.prod(factors[: n + 1]) * size for size in low.shape[1:3]) for n in range(len(factors))]
        stages = [(method.restore, size) for method, size in zip(methods, sizes, strict=False)]
        made = cascade(stages, to_uint8(low), keys)[-1]
        if len(methods) < len(factors):
            made = np.stack([degradations.upsample(image, sizes[-1]) for image in made])
        return to_float(jnp.asarray(made))

    first, *later = methods
    described = [first.sampler, *(f"{method.source}: {method.sampler}" for method in later)]
    parameters = "; then ".join(dict.fromkeys(method.parameters for method in methods))
    return Method(restore, "; then ".join(described), first.source, parameters, takes_small=True)


def cascade(stages: Sequence[tuple[Restore, tuple[int, int]]], low: np.ndarray, keys: jax.Array) -> list[np.ndarray]:
    """Returns the output of each stage, whose input is the output of the one before: uint8 `[B, H, W, C]` (SR3, §4.4).

    Args:
      stages: (restore, (height, width) of its output), smallest first.
      low: uint8 `[B, h, w, C]`, the input of the first stage; each input is enlarged bicubically.
      keys: `[B]`; stage n uses `fold_in(key, n)` of each.
    """
    made = []
    for n, (restore, size) in enumerate(stages):
        enlarged = np.stack([degradations.upsample(image, size) for image in low])
        x = restore(to_float(jnp.asarray(enlarged)), jax.vmap(jax.random.fold_in, (0, None))(keys, n))
        low = to_uint8(x)
        made.append(low)
    return made


def average(restore: Restore, condition: jax.Array, keys: jax.Array, num: int) -> jax.Array:
    """Returns the mean of `num` restorations, `[B, H, W, C]`; the n-th uses `fold_in(key, n)` of each key.

    The variance of independent samples falls as 1/num, towards the conditional mean (Whang et al. 2022, §4).

    Raises:
      ValueError: num < 1.
    """
    if num < 1:
        raise ValueError(f"num={num} must be ≥ 1")
    total = 0.0
    for n in range(num):
        total += restore(condition, jax.vmap(jax.random.fold_in, (0, None))(keys, n))
    return total / num


def _factor(network: Run) -> int:
    options = network.config.data.degradation
    if not network.task.enlarges or len(options.kinds) != 1 or options.kinds[0] not in degradations.REDUCTIONS:
        raise UserError(
            f"{network.source}: a cascade is of super-resolution by one of {', '.join(degradations.REDUCTIONS)}"
        )
    return options.factor


def _describe(network: Run, own: Mapping[str, Any] | None = None) -> str:
    """Returns a description of a run's sampling, for a table: its names, and the options that are not the defaults."""
    if not network.task.samples:
        return "none"
    section, options = SCHEMA.fields["sample"], network.config.sample
    defaults = {path: field.default for path, field in resolve.walk(options, section)}
    always = ("sampler", "num_steps", *section.named)
    values = resolve.flatten(options)
    names = [name for name in defaults if name in values and (name in always or values[name] != defaults[name])]
    shown = {name: values[name] for name in names} | dict(own or {})
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def _identity(network: Run) -> tuple[str, str]:
    """Returns `Method.source` and `Method.parameters`."""
    return f"{network.source}, step {network.step}", network.parameters


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
