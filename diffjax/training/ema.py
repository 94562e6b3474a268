"""Exponential moving averages of the parameters, with several decays at once."""

from typing import Any

import jax
import jax.numpy as jnp


def decay_at(step: jax.Array, decay: float) -> jax.Array:
    """Returns the decay of update `step` (from 0): min(`decay`, (1 + step)/(10 + step)), a warm-up to `decay`."""
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def update(averages: dict[float, Any], params: Any, step: jax.Array) -> dict[float, Any]:
    """Updates each average: EMA ← EMA + (1 - d)·(parameters - EMA), with d = `decay_at(step, decay)`."""

    def moved(average, decay):
        weight = 1.0 - decay_at(step, decay)
        # As a difference, so that unchanged parameters leave their average unchanged to the bit.
        return jax.tree.map(lambda mean, new: mean + weight * (new - mean), average, params)

    return {decay: moved(average, decay) for decay, average in averages.items()}
