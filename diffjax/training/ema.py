"""Exponential moving averages of the parameters, of several decays at once."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def decay_at(step: jax.Array, decay: float) -> jax.Array:
    """The decay of update `step` (from 0): min(`decay`, (1 + step)/(10 + step)), a warm-up to `decay`."""
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def update(averages: dict[float, Any], params: Any, step: jax.Array) -> dict[float, Any]:
    """EMA ← d·EMA + (1 - d)·parameters, with d = `decay_at(step, decay)`, for each average by its decay."""
    return {
        decay: optax.incremental_update(params, average, 1.0 - decay_at(step, decay))
        for decay, average in averages.items()
    }
