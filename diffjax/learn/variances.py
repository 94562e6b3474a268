"""The moments of a network by timestep, from which the optimal variances follow (Analytic-DPM, Bao et al. 2022)."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffjax.likelihood import mean_and_error
from diffjax.likelihood.every_timestep import Noised, at_every_timestep
from diffjax.likelihood.variational import checked
from diffjax.loop import Clip, as_clip
from diffjax.noise import keys_of
from diffjax.prediction import Predict, Prediction, as_predict
from diffjax.process import Scales
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


def moments_by_example(
    schedule: NoiseSchedule, predict: Predict, x0: jax.Array, keys: jax.Array, clip: Clip = None
) -> tuple[jax.Array, jax.Array]:
    """Returns ‖ε̂‖²/d and ‖x̂0 - x_0‖²/d of each example of one batch, `[T, B]` each; as `moments`."""
    return at_every_timestep(_squares, Scales.of(schedule), (), as_predict(predict), x0, keys, as_clip(clip))


def _squares(at: Noised, output: Prediction, _: tuple[()]) -> tuple[jax.Array, jax.Array]:
    axes = tuple(range(1, at.x0.ndim))
    return jnp.mean(output.eps**2, axes), jnp.mean((output.x0 - at.x0) ** 2, axes)
