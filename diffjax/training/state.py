"""What training carries from step to step."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from diffjax.training.draws import LossHistory


@flax.struct.dataclass
class TrainState:
    """A pytree without a device axis: the same on one device and on many."""

    step: jax.Array
    """int32 `[]`: steps done, those skipped too."""
    params: Any
    ema_params: dict[float, Any]
    """Averages of the parameters, by decay."""
    opt_state: optax.OptState
    key: jax.Array
    """A typed key; step n draws from `fold_in(key, n)`, so it never changes."""
    skipped: jax.Array
    """int32 `[]`: steps in a row, up to the last, whose loss or gradient was not finite: they changed nothing."""
    history: LossHistory | None
    """What "importance" draws t by; None for the other draws."""


def create(
    init: Callable[[jax.Array], Any],
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    *,
    ema_decays: Sequence[float],
    history: LossHistory | None = None,
) -> TrainState:
    """The state before the first step; each EMA starts at the parameters.

    Args:
      init: key → parameters.
    """
    init_key, train_key = jax.random.split(key)
    params = init(init_key)
    return TrainState(
        step=jnp.int32(0),
        params=params,
        ema_params={decay: jax.tree.map(jnp.copy, params) for decay in ema_decays},
        opt_state=optimizer.init(params),
        key=train_key,
        skipped=jnp.int32(0),
        history=history,
    )
