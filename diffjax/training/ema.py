"""The exponential moving average of the parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def decay_at(step: jax.Array, decay: float) -> jax.Array:
    """The decay of update `step` (from 0): min(`decay`, (1 + step)/(10 + step)), a warm-up to `decay`."""
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def update(ema_params: Any, params: Any, step: jax.Array, decay: float) -> Any:
    """EMA ← d·EMA + (1 - d)·parameters, with d = `decay_at(step, decay)`."""
    return optax.incremental_update(params, ema_params, 1.0 - decay_at(step, decay))
