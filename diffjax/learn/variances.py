"""The optimal variances of a sampler's steps from the mean square of ε̂ (Analytic-DPM, Bao et al. 2022)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffjax.likelihood.variational import checked
from diffjax.loop import network_call
from diffjax.noise import keys_of, sample_noise
from diffjax.prediction import Predict
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler


class Moments(NamedTuple):
    """What a network predicts on average, by timestep."""

    eps_square: NDArray[np.float64]
    """`[T]`: E‖ε̂‖²/d, the mean over examples and elements."""
    error: NDArray[np.float64]
    """`[T]`: its standard error over examples."""
    num: int
    """The number of examples."""


def moments(
    schedule: NoiseSchedule, predict: Predict, x0: jax.Array, key: jax.Array, *, batch_size: int = 250
) -> Moments:
    """Estimates E‖ε̂(x_t, t)‖²/d at every timestep from one noise of each example: T network calls a batch.

    Args:
      schedule: the noise schedule.
      predict: as in `sample`; it must return ε̂ or a `Prediction`.
      x0: `[N, …]`, data; N ≥ 2.
      key: typed keys `[N]`, or one key; sample n at t has the noise of `fold_in(key_n, t)`.
      batch_size: examples at a time.

    Raises:
      ValueError: fewer than two examples, or arguments that are invalid for `sample`.
    """
    x0, predict = checked(predict, x0)
    if len(x0) < 2 or batch_size < 1:
        raise ValueError(f"{len(x0)} examples and batch_size={batch_size} must be ≥ 2 and ≥ 1")
    keys = keys_of(key, len(x0))
    rows = (
        np.arange(schedule.num_timesteps, dtype=np.int32),
        schedule.sqrt_alpha_bars,
        schedule.sqrt_one_minus_alpha_bars,
    )
    squares = [
        np.asarray(
            _squares(rows, predict, x0[start : start + batch_size], keys[start : start + batch_size]), np.float64
        )
        for start in range(0, len(x0), batch_size)
    ]
    by_example = np.concatenate(squares, axis=1)
    return Moments(by_example.mean(1), by_example.std(1, ddof=1) / np.sqrt(len(x0)), len(x0))


@jax.jit
def _squares(rows, predict: Predict, x0: jax.Array, keys: jax.Array) -> jax.Array:
    """Returns ‖ε̂‖²/d, `[T, B]`."""

    def body(carry, row):
        t, signal, noise = row[0], row[1].astype(x0.dtype), row[2].astype(x0.dtype)
        x_t = signal * x0 + noise * sample_noise(keys, t, x0.shape[1:], x0.dtype)
        eps = network_call(predict, x_t, jnp.full(len(x0), t), signal, noise).eps
        return carry, jnp.mean(eps**2, axis=range(1, x0.ndim))

    return jax.lax.scan(body, None, rows)[1]


def analytic_variances(
    schedule: NoiseSchedule,
    grid: ArrayLike,
    eps_square: ArrayLike,
    *,
    eta: float = 1.0,
    largest: float | None = 1.0,
) -> NDArray[np.float64]:
    """Returns the variance σ*² of each step that minimises the KL divergence of the reverse chain (Bao et al. 2022).

        σ*² = λ² + (√((1-ᾱ_t)/α) - √(1-ᾱ_s-λ²))²·(1 - E‖ε̂‖²/d),     α = ᾱ_t/ᾱ_s          (Theorem 1)

    λ is the σ of DDIM's mean (Eq. 16 there, scaled by η; η = 1 is DDPM's mean). The result is bounded below by λ² and
    above by the two limits of Theorem 2, the second of which needs data within ± `largest`. It is 0 on a step to clean
    data, where samplers add no noise.

    Args:
      schedule: the noise schedule.
      grid: `[S+1]`, descending, of indices or real times.
      eps_square: `[T]`: E‖ε̂‖²/d by timestep (`moments`); between timesteps it is interpolated linearly.
      eta: η in [0, 1].
      largest: the largest absolute value of the data; None: no such limit.

    Raises:
      ValueError: another length of `eps_square`, η outside [0, 1], or an invalid grid.
    """
    from diffjax.samplers.base import descending

    eps_square = np.asarray(eps_square, np.float64)
    if eps_square.shape != (schedule.num_timesteps,):
        raise ValueError(f"eps_square of shape {eps_square.shape} must be [{schedule.num_timesteps}]")
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta={eta} must be within [0, 1]")
    levels = descending(schedule, grid)
    ab_t, ab_s = levels.ab_t, levels.ab_s
    square = np.interp(np.maximum(levels.t, 0), np.arange(schedule.num_timesteps), eps_square)
    alpha = ab_t / ab_s
    mean = eta**2 * (1.0 - ab_s) / (1.0 - ab_t) * (1.0 - alpha)
    direction = np.sqrt(np.maximum(1.0 - ab_s - mean, 0.0))
    spread = (np.sqrt((1.0 - ab_t) / alpha) - direction) ** 2
    variance = mean + spread * np.clip(1.0 - square, 0.0, 1.0)
    if largest is not None:
        scale = (np.sqrt(ab_s) - direction * np.sqrt(ab_t / (1.0 - ab_t))) ** 2
        variance = np.minimum(variance, mean + scale * largest**2)
    return np.where(levels.s == -1, 0.0, variance)


def with_variances(table: Sampler, variances: ArrayLike) -> Sampler:
    """Returns a table of one row a step with noise of the given variances, `[S]`; the means stay as they are.

    Raises:
      ValueError: another number of variances than rows, negative ones, or a table of learned variance.
    """
    variances = np.asarray(variances, np.float64)
    if variances.shape != (table.num_rows,) or not np.all(variances >= 0.0) or table.log_var is not None:
        raise ValueError(
            f"variances of shape {variances.shape} must be {table.num_rows} numbers ≥ 0, for a table without log_var"
        )
    return dataclasses.replace(table, d=np.sqrt(variances))
