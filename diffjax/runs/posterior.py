"""Restores measured images by posterior sampling with an unconditional network, and measures the samples."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from diffjax import data, devices
from diffjax.data import degradations
from diffjax.data.pixels import to_float, to_uint8
from diffjax.errors import UserError, naming
from diffjax.inverse import registry
from diffjax.inverse.operators import Operator
from diffjax.metrics import calibration
from diffjax.metrics.image_quality import Pair
from diffjax.metrics.records import Figure
from diffjax.noise import sample_keys
from diffjax.registry import Registry
from diffjax.runs import build, resolve
from diffjax.runs.config import Section
from diffjax.runs.run import Run

_OF_THE_MEASUREMENT, _OF_SAMPLE = 0, 1
"""What a key of an image is folded with: for the noise of y, and, plus k, for its sample k."""


class Named(NamedTuple):
    """An entry of a registry with values for its options."""

    name: str
    options: dict[str, Any]


class Measured(NamedTuple):
    """Images and their measurements."""

    pairs: list[Pair]
    """The images, with A⁺y in 8 bits as the condition."""
    y: np.ndarray
    """float32 `[N, …]`: A·x + σ_y·noise of the images in [-1, 1]."""
    operator: Operator
    noise_std: float


def parse(name: str, texts: Mapping[str, str], of: Registry, where: str) -> Named:
    """Returns an entry of a registry with the options of a command line (option → text), checked.

    Raises:
      UserError: an unknown name or option, or an invalid value; it begins with `where`.
    """
    with naming(where):
        known, given = registry.options_of(name, of), {}
        for option, text in texts.items():
            if option not in known:
                allowed = ", ".join(known) or "none"
                raise ValueError(f"{name}: {option!r} is not an option; the options are: {allowed}")
            try:
                given[option] = known[option].parse(text)
            except ValueError as error:
                raise ValueError(f"{name}: {option}: {error}") from error
    return named(name, given, of, where)


def named(name: str, options: Mapping[str, Any] | None, of: Registry, where: str) -> Named:
    """Returns an entry of a registry with values for its options, checked; the others get their defaults.

    Raises:
      UserError: an unknown name or option, or an invalid value; it begins with `where`.
    """
    with naming(where):
        section = Section("", registry.options_of(name, of))
    return Named(name, dict(resolve.resolve(dict(options or {}), section=section, name=f"{where} {name}")))


def check(run: Run) -> None:
    """Checks that a network can be a prior.

    Raises:
      UserError: a network that restores images, or one with classes.
    """
    if run.task.is_conditional:
        raise UserError(
            f"{run.source} restores images by itself; posterior sampling takes a network that generates them"
        )
    if run.task.num_classes is not None:
        raise UserError(f"{run.source} is conditioned on classes; posterior sampling takes an unconditional network")


def measured(config: ml_collections.ConfigDict, chosen: Named, num: int, *, noise_std: float, seed: int) -> Measured:
    """Returns the first `num` held-out images (training images if none are held out) with measurements of them.

    Args:
      config: a resolved config, for its images.
      chosen: the operator.
      num: the number of images.
      noise_std: σ_y, in units of images in [-1, 1].
      seed: the seed of the measurements' noise.

    Raises:
      UserError: missing or invalid data, fewer than `num` images, or an operator for other images.
    """
    with naming(f"--operator {chosen.name}"):
        operator = registry.operator(chosen.name, config.data.image_shape, chosen.options)
    images = build.images(config)
    source = images.held_out if len(images.held_out) else images.source
    if num > len(source):
        raise UserError(f"num={num} must be ≤ {len(source)}, the number of images")
    with naming("config.data"):
        truth = np.stack([data.prepared(source[n], None, images.prepare, None)["image"] for n in range(num)])
    exact = operator(to_float(jnp.asarray(truth)))
    keys = jax.vmap(jax.random.fold_in, (0, None))(sample_keys(seed, 0, num), _OF_THE_MEASUREMENT)
    noise = jax.vmap(lambda key: jax.random.normal(key, exact.shape[1:]))(keys)
    y = np.asarray(exact + noise_std * noise)
    if chosen.name in ("box", "random_mask"):
        y = np.where(np.asarray(operator(jnp.ones_like(exact))) > 0, y, 0.0)
    shown = _shown(operator, y, chosen)
    record = None
    if chosen.name == "downsampling":
        record = degradations.Degradation(chosen.options["kind"], chosen.options["factor"])
    pairs = [Pair(image, condition, record) for image, condition in zip(truth, shown, strict=True)]
    return Measured(pairs, y, operator, noise_std)


def _shown(operator: Operator, y: np.ndarray, chosen: Named) -> np.ndarray:
    """Returns measurements as pictures, uint8 `[N, H, W, C]`: enlarged bicubically, or Aᵀy."""
    height, width, channels = operator.image_shape
    if chosen.name == "downsampling":
        return np.stack([degradations.upsample(image, (height, width)) for image in np.asarray(to_uint8(y))])
    return np.asarray(to_uint8(operator.adjoint(y) * (channels if chosen.name == "grey" else 1)))


def sample(run: Run, method: Named, images: Measured, num_samples: int, *, seed: int, batch_size: int) -> np.ndarray:
    """Samples each image's posterior: uint8 `[K, N, H, W, C]`; a sample depends on its seed, image and number alone.

    Args:
      run: the prior; its `config.sample` has the grid and the clipping.
      method: the method.
      images: the measurements.
      num_samples: K, the number of samples of each image.
      seed: the seed of the samples.
      batch_size: samples at a time, rounded up to a multiple of the number of devices.

    Raises:
      UserError: an operator or an option that the method does not take.
    """
    num = len(images.y)
    keys = sample_keys(seed, 0, num)
    numbers = np.stack(np.meshgrid(np.arange(num_samples), np.arange(num), indexing="ij"), axis=-1).reshape(-1, 2)
    size = devices.round_up(min(batch_size, len(numbers)))
    predict, operator = devices.replicate((run.predictor(), images.operator), size)
    found = []
    for start in range(0, len(numbers), size):
        part = numbers[start : start + size]
        part = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])  # one program serves all
        problem = registry.Problem(
            predict=predict,
            schedule=run.sampling.schedule,
            grid=run.sampler.grid,
            operator=operator,
            y=devices.split(jnp.asarray(images.y[part[:, 1]]), size),
            keys=devices.split(jax.vmap(jax.random.fold_in)(keys[part[:, 1]], _OF_SAMPLE + part[:, 0]), size),
            noise_std=images.noise_std,
            clip=run.clip,
        )
        with naming(f"--method {method.name}"):
            x = registry.sample(method.name, problem, method.options)
        if not np.isfinite(x).all():
            raise UserError(f"--method {method.name}: samples are not finite; try other options or more steps")
        found.append(np.asarray(to_uint8(x)))
    return np.concatenate(found)[: len(numbers)].reshape(num_samples, num, *images.operator.image_shape)


def figures(images: Measured, samples: np.ndarray) -> dict[str, Figure]:
    """Returns what only posterior samples have: their residual and, of two or more an image, their calibration.

    residual: the root mean square of A·x - y, σ_y for images that explain the measurement as well as the truth does.
    rank_deviation, spread_over_error: `metrics.calibration`, of all elements of the images.

    Args:
      images: the measurements.
      samples: uint8 `[K, N, H, W, C]`.
    """
    difference = images.operator(to_float(jnp.asarray(samples[0]))) - images.y
    found = {"residual": Figure(float(jnp.sqrt(jnp.mean(difference**2))))}
    if len(samples) > 1:
        truth = np.stack([pair.truth for pair in images.pairs])
        found["rank_deviation"] = Figure(calibration.rank_deviation(truth, samples))
        found["spread_over_error"] = Figure(calibration.spread_over_error(truth, samples))
    return found


def mean(samples: np.ndarray) -> list[np.ndarray]:
    """Returns the mean of the samples `[K, N, H, W, C]` of each image, uint8."""
    return list(np.round(np.mean(samples, axis=0, dtype=np.float64)).astype(np.uint8))


def describe(run: Run, method: Named, num_samples: int) -> str:
    """Returns a description of the sampling, for a table."""
    options = ", ".join(f"{name} {value}" for name, value in method.options.items())
    grid = run.config.sample
    return f"{method.name} ({options}), num_steps {grid.num_steps}, {grid.timestep_spacing}, {num_samples} samples"
