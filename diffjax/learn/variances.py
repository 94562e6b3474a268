"""The moments of a network by timestep, from which the optimal variances follow (Analytic-DPM, Bao et al. 2022)."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffjax.likelihood.variational import checked
from diffjax.loop import Clip, as_clip, network_call
from diffjax.noise import keys_of, sample_noise
from diffjax.prediction import Predict
from diffjax.samplers import Moments
from diffjax.schedules import NoiseSchedule


def moments(
    schedule: NoiseSchedule,
    predict: Predict,
    x0: jax.Array,
    key: jax.Array,
    *,
    clip: Clip = None,
    batch_size: int = 250,
) -> Moments:
    """Estimates E‖ε̂(x_t, t)‖²/d and the error of x̂0 at every timestep, from one noise of each example.

    Calls the network T times a batch.

    Args:
      schedule: the noise schedule.
      predict: as in `sample`.
      x0: `[N, …]`, data; N ≥ 2.
      key: typed keys `[N]`, or one key; sample n at t has the noise of `fold_in(key_n, t)`.
      clip: the transform of x̂0, as in `sample`, for its error.
      batch_size: examples at a time.

    Raises:
      ValueError: fewer than two examples, or arguments that are invalid for `sample`.
    """
    x0, predict = checked(predict, x0)
    if len(x0) < 2 or batch_size < 1:
        raise ValueError(f"{len(x0)} examples and batch_size={batch_size} must be ≥ 2 and ≥ 1")
    keys = keys_of(key, len(x0))
    parts = [
        moments_by_example(schedule, predict, x0[start : start + batch_size], keys[start : start + batch_size], clip)
        for start in range(0, len(x0), batch_size)
    ]
    return mean_moments(*(np.concatenate(part, axis=1) for part in zip(*parts, strict=True)))


def mean_moments(eps_square: ArrayLike, x0_mse: ArrayLike) -> Moments:
    """Returns the moments from those of N examples (`moments_by_example`), `[T, N]`."""
    eps_square, x0_mse = np.asarray(eps_square, np.float64), np.asarray(x0_mse, np.float64)
    return Moments(
        *mean_and_error(eps_square),
        *mean_and_error(x0_mse),
        num=eps_square.shape[1],
    )


def mean_and_error(values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean over examples and its standard error, `[T]` each, of values `[T, N]`."""
    values = np.asarray(values, np.float64)
    return values.mean(1), values.std(1, ddof=1) / np.sqrt(values.shape[1])


def moments_by_example(
    schedule: NoiseSchedule, predict: Predict, x0: jax.Array, keys: jax.Array, clip: Clip = None
) -> tuple[jax.Array, jax.Array]:
    """Returns ‖ε̂‖²/d and ‖x̂0 - x_0‖²/d of each example of one batch, `[T, B]` each; as `moments`."""
    rows = (
        np.arange(schedule.num_timesteps, dtype=np.int32),
        schedule.sqrt_alpha_bars,
        schedule.sqrt_one_minus_alpha_bars,
    )
    return _squares(rows, predict, x0, keys, as_clip(clip))


@jax.jit
def _squares(rows, predict: Predict, x0: jax.Array, keys: jax.Array, clip: Clip) -> tuple[jax.Array, jax.Array]:
    axes = tuple(range(1, x0.ndim))

    def body(carry, row):
        t, signal, noise = row[0], row[1].astype(x0.dtype), row[2].astype(x0.dtype)
        x_t = signal * x0 + noise * sample_noise(keys, t, x0.shape[1:], x0.dtype)
        found = network_call(predict, x_t, jnp.full(len(x0), t), signal, noise, clip)
        return carry, (jnp.mean(found.eps**2, axes), jnp.mean((found.x0 - x0) ** 2, axes))

    return jax.lax.scan(body, None, rows)[1]
