"""The data-parallel training step: the only file that knows of pmap.

The state has no device axis: it goes in and comes out replicated (`in_axes=None`, `out_axes=None`) and is donated.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffjax.training import ema
from diffjax.training.state import TrainState

_AXIS = "data"

Loss = Callable[[Any, Any, jax.Array, jax.Array], jax.Array]
"""(parameters, batch, keys `[B]` by example, dropout key) → loss of each example `[B]`."""


def make_train_step(
    loss: Loss, optimizer: optax.GradientTransformation, *, ema_decay: float, devices: list[jax.Device]
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """(state, batch split by `split_batch`) → (next state, {"loss", "grad_norm"}), one optimizer step.

    `devices` are those of all processes (`all_devices`); each process passes its state, replicated over its own
    devices, and its own share of the global batch, split over them.

    The n-th example of the global batch draws from the n-th child of the step's key, whatever device it is on; only
    dropout masks depend on the number of devices. Gradients and metrics are means over the global batch. Pass the
    state through `replicate` once; each call consumes the state it is given.
    """

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        device = lax.axis_index(_AXIS)
        size = len(jax.tree.leaves(batch)[0])
        example_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(example_key, device * size + jnp.arange(size))
        dropout_key = jax.random.fold_in(dropout_key, device)

        def mean_loss(params):
            return jnp.mean(loss(params, batch, keys, dropout_key))

        value, gradients = lax.pmean(jax.value_and_grad(mean_loss)(state.params), _AXIS)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        next_state = TrainState(
            step=state.step + 1,
            params=params,
            ema_params=ema.update(state.ema_params, params, state.step, ema_decay),
            opt_state=opt_state,
            key=state.key,
        )
        return next_state, {"loss": value, "grad_norm": optax.tree.norm(gradients)}

    return jax.pmap(step, axis_name=_AXIS, in_axes=(None, 0), out_axes=(None, None), donate_argnums=0, devices=devices)


def all_devices() -> list[jax.Device]:
    """The devices of every process, process by process: the order in which the step counts them."""
    return [device for process in range(jax.process_count()) for device in jax.local_devices(process_index=process)]


def replicate(state: TrainState, devices: list[jax.Device]) -> TrainState:
    """The state laid out as the step wants and returns it, so that even the first call can consume it."""
    return jax.device_put(state, NamedSharding(Mesh(np.array(devices), (_AXIS,)), PartitionSpec()))


def split_batch(batch: Any, num_devices: int) -> Any:
    """Every array `[B, …]` of the batch as `[num_devices, B/num_devices, …]`."""
    return jax.tree.map(lambda column: column.reshape(num_devices, -1, *column.shape[1:]), batch)


def check_batch_size(batch_size: int, num_devices: int) -> None:
    """Whether a batch can be shared out evenly.

    Raises:
      ValueError: if not.
    """
    if batch_size < 1 or batch_size % num_devices:
        raise ValueError(f"batch_size={batch_size} must be a positive multiple of the {num_devices} devices")
