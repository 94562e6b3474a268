"""Training objectives, one value an example."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax import process
from diffjax.schedules import NoiseSchedule

NORMS = ("l2", "l1")


def noise_prediction(
    schedule: NoiseSchedule,
    predict: Callable[[jax.Array, jax.Array], jax.Array],
    x0: jax.Array,
    t: jax.Array,
    noise: jax.Array,
    *,
    norm: str = "l2",
) -> jax.Array:
    """Distance of ε̂(x_t, t) from ε, the mean over each example's elements: `[B]` (L_simple, DDPM Eq. 14).

    Args:
      x0, noise: `[B, …]`; t: `int[B]` in 0 … T-1.
      norm: "l2" (squared error) or "l1" (absolute error).

    Raises:
      ValueError: another norm.
    """
    if norm not in NORMS:
        raise ValueError(f"norm={norm!r} is not one of {', '.join(map(repr, NORMS))}")
    error = predict(process.q_sample(schedule, x0, t, noise), t) - noise
    return jnp.mean(error**2 if norm == "l2" else jnp.abs(error), axis=range(1, error.ndim))
