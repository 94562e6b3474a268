"""What training carries from step to step."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """A pytree without a device axis: the same on one device and on many."""

    step: jax.Array
    """int32 `[]`: optimizer steps done."""
    params: Any
    ema_params: Any
    opt_state: optax.OptState
    key: jax.Array
    """A typed key; step n draws from `fold_in(key, n)`, so it never changes."""


def create(init: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
    """The state before the first step; the EMA starts at the parameters.

    Args:
      init: key → parameters.
    """
    init_key, train_key = jax.random.split(key)
    params = init(init_key)
    return TrainState(
        step=jnp.int32(0),
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        key=train_key,
    )
