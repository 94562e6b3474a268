"""The training state: everything that one step passes to the next."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from diffjax.training.timestep_sampling import LossHistory


@flax.struct.dataclass
class TrainState:
    """A pytree without a device axis: the same on one device and on many."""

    step: jax.Array
    """int32 `[]`: the number of steps done, skipped ones included."""
    params: Any
    ema_params: dict[float, Any]
    """Moving averages of the parameters, by decay."""
    opt_state: optax.OptState
    key: jax.Array
    """A typed key; step n uses `fold_in(key, n)`, so the key never changes."""
    skipped: jax.Array
    """int32 `[]`: the number of latest steps in a row whose loss or gradient was not finite; they changed nothing."""
    history: LossHistory | None
    """The losses from which "importance" sampling of t gets its probabilities; None for other timestep samplings."""


def create(
    init: Callable[[jax.Array], Any],
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    *,
    ema_decays: Sequence[float],
    history: LossHistory | None = None,
) -> TrainState:
    """Returns the state before the first step; each EMA starts at the parameters.

    Args:
      init: key → parameters.
      optimizer: an optax optimizer.
      key: a typed key, for the parameters and for everything that training samples.
      ema_decays: the decays of the averages.
      history: an empty history, if the timestep sampling needs one.
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
