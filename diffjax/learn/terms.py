"""What the variational bound needs to know of a network to give the bound of every grid: two numbers a timestep."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffjax.likelihood.every_timestep import Noised, at_every_timestep
from diffjax.likelihood.variational import check_pixels, check_variances, checked, discretized_gaussian_log_prob
from diffjax.loop import Clip, as_clip
from diffjax.noise import keys_of
from diffjax.prediction import Predict, Prediction, as_predict
from diffjax.process import Scales
from diffjax.schedules import NoiseSchedule


class Terms(NamedTuple):
    """The means over images that `bound_costs` takes."""

    x0_mse: NDArray[np.float64]
    """`[T]`: the squared error of x̂0 by timestep."""
    decoder: NDArray[np.float64]
    """`[T]`: -log P(x_0 | x_t) in bits/dim if the last step of a grid starts at t."""


def decoder_terms(
    schedule: NoiseSchedule,
    predict: Predict,
    x0: jax.Array,
    key: jax.Array,
    *,
    decoder_variance: ArrayLike | None = None,
    clip: Clip = None,
    batch_size: int = 250,
) -> Terms:
    """Estimates the error of x̂0 and the decoder's term at every timestep: T network calls a batch.

    The sum of the `bound_costs` of a grid's steps is the bound of its chain without the prior's term, as
    `likelihood.bound` gives it on the respaced schedule. With all T timesteps the two agree to rounding, because sample
    n has the noise of `fold_in(key_n, t)` in both.

    Args:
      schedule: the noise schedule.
      predict: as in `sample`.
      x0: `[N, …]`, 8-bit images in [-1, 1].
      key: typed keys `[N]`, or one key.
      decoder_variance: the variance of the decoder's Gaussian if the last step starts at t, `[T]`; None: 1 - ᾱ_t, the
        larger of DDPM's two. The `x0_mse` of an earlier call gives shorter codes.
      clip: the transform of x̂0, as in `sample`.
      batch_size: images at a time.

    Raises:
      ValueError: images that are not 8-bit images in [-1, 1], variances that are not `[T]` finite numbers > 0, or
        arguments that are invalid for `sample`.
    """
    x0, predict = checked(predict, x0)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be ≥ 1")
    keys = keys_of(key, len(x0))
    parts = [
        terms_by_image(schedule, predict, x0[part], keys[part], decoder_variance=decoder_variance, clip=clip)
        for part in (slice(start, start + batch_size) for start in range(0, len(x0), batch_size))
    ]
    return mean_terms(*(np.concatenate(part, axis=1) for part in zip(*parts, strict=True)))


def mean_terms(x0_mse: ArrayLike, decoder: ArrayLike) -> Terms:
    """Returns the means over images of the terms of `terms_by_image`, `[T, N]`."""
    return Terms(*(np.mean(np.asarray(part, np.float64), axis=1) for part in (x0_mse, decoder)))


def terms_by_image(
    schedule: NoiseSchedule,
    predict: Predict,
    x0: jax.Array,
    keys: jax.Array,
    *,
    decoder_variance: ArrayLike | None = None,
    clip: Clip = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns the terms of each image, (x0_mse, decoder) `[T, B]`, of one batch; as `decoder_terms`."""
    check_pixels(x0)
    variances = 1.0 - schedule.alpha_bars if decoder_variance is None else decoder_variance
    log_var = np.log(check_variances(schedule, "decoder_variance", variances))
    return at_every_timestep(
        _error_and_decoder, Scales.of(schedule), log_var, as_predict(predict), x0, keys, as_clip(clip)
    )


def _error_and_decoder(at: Noised, output: Prediction, log_var: jax.Array) -> tuple[jax.Array, jax.Array]:
    axes = tuple(range(1, at.x0.ndim))
    nats = -discretized_gaussian_log_prob(at.x0, output.x0, log_var)
    return jnp.mean((output.x0 - at.x0) ** 2, axes), jnp.mean(nats, axes) / math.log(2.0)
