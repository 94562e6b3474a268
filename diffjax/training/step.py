"""The data-parallel training step: the only file that knows of pmap.

The state has no device axis: it goes in and comes out replicated (`in_axes=None`, `out_axes=None`) and is donated.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffjax.training import draws, ema
from diffjax.training.packing import pack
from diffjax.training.state import TrainState

NUM_BUCKETS = 4
"""Equal parts of 0 … T-1 by which the metrics report the loss."""

_AXIS = "data"

Loss = Callable[[Any, Any, jax.Array, jax.Array, jax.Array], jax.Array]
"""(parameters, batch, t `[B]`, keys `[B]` by example, dropout key) → loss of each example `[B]`."""

DrawBatch = Callable[[Any, jax.Array, jax.Array, jax.Array], Any]
"""(data, the state's key, step, numbers `[B]` of examples in the global batch) → those examples."""


def make_train_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    num_timesteps: int,
    batch_size: int,
    devices: Sequence[jax.Device],
    timesteps: str = "uniform",
    accumulate: int = 1,
    steps_per_dispatch: int = 1,
    draw_batch: DrawBatch | None = None,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """(state, batches laid out by `put_batches`) → (next state, metrics), K = `steps_per_dispatch` optimizer steps.

    `devices` are those of all processes (`all_devices`); each process passes its state, replicated over its own
    devices, and its own share of the global batch, split over them.

    The n-th example of the global batch draws from the n-th child of the step's key, whatever device it is on; only
    dropout masks depend on the number of devices. The gradient is that of the mean loss over the global batch. One
    all-reduce a step carries it, and each example's loss, from which every device makes the same metrics:

        loss, grad_norm              `[K]`
        skipped                      `[K]`, `TrainState.skipped` after the step
        bucket_loss, bucket_weight   `[K, NUM_BUCKETS]`, sums: their quotient is the mean loss of that part of 0 … T-1

    A step whose loss or gradient is not finite leaves parameters, optimizer, EMA and history as they are. Pass the
    state through `replicate` once; each call consumes the state it is given.

    Args:
      num_timesteps: T.
      batch_size: the global batch's, of one optimizer step.
      devices: all of them, of every process.
      timesteps: how t is drawn, of `draws.KINDS`.
      accumulate: micro-batches in which each device takes its share, one after the other; dropout aside, the result is
        that of one.
      draw_batch: for data that stays on the devices: in place of batches the step is given what `put_resident` gives,
        and draws its own.

    Raises:
      ValueError: a batch that cannot be shared out (`check_batch_size`).
    """
    check_batch_size(batch_size, len(devices), accumulate)
    share = batch_size // len(devices)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        device = lax.axis_index(_AXIS)
        state_key = jax.random.wrap_key_data(state.key)
        key, dropout_key = jax.random.split(jax.random.fold_in(state_key, state.step))
        everyone = jnp.arange(batch_size)
        t, weight = draws.draw(
            timesteps, key, everyone, batch_size=batch_size, num_timesteps=num_timesteps, history=state.history
        )
        mine = device * share + jnp.arange(share)
        if draw_batch is not None:
            batch = draw_batch(batch, state_key, state.step, mine)
        if any(len(column) != share for column in jax.tree.leaves(batch)):
            sizes = [len(column) for column in jax.tree.leaves(batch)]
            raise ValueError(f"a device was given {sizes} examples; its share of batch_size={batch_size} is {share}")

        def part_loss(params, batch, t, weight, keys, dropout_key):
            losses = loss(params, batch, t, keys, dropout_key)
            return jnp.sum(weight * losses) / batch_size, losses

        def part_gradient(total, part):
            gradients, losses = jax.grad(part_loss, has_aux=True)(state.params, *part)
            return jax.tree.map(jnp.add, total, gradients), losses

        examples = (batch, t[mine], weight[mine], draws.noise_keys(key, mine))
        parts = jax.tree.map(lambda column: column.reshape(accumulate, -1, *column.shape[1:]), examples)
        dropout_keys = jax.random.split(jax.random.fold_in(dropout_key, device), accumulate)
        zeros = jax.tree.map(jnp.zeros_like, state.params)
        gradients, losses = _scan(part_gradient, zeros, (*parts, dropout_keys), accumulate)
        losses = jnp.zeros(batch_size, losses.dtype).at[mine].set(losses.reshape(-1))
        gradients, losses = _all_reduce((gradients, losses))

        metrics = {"loss": jnp.mean(weight * losses), "grad_norm": optax.tree.norm(gradients)}
        in_bucket = t * NUM_BUCKETS // num_timesteps == jnp.arange(NUM_BUCKETS)[:, None]
        metrics["bucket_loss"] = jnp.sum(jnp.where(in_bucket, weight * losses, 0.0), axis=1)
        metrics["bucket_weight"] = jnp.sum(jnp.where(in_bucket, weight, 0.0), axis=1)

        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new = {
            "params": params,
            "ema_params": ema.update(state.ema_params, params, state.step),
            "opt_state": opt_state,
            "history": None if state.history is None else draws.record(state.history, t, losses),
        }
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
        old = {name: getattr(state, name) for name in new}
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, old)
        metrics["skipped"] = jnp.where(finite, 0, state.skipped + 1)
        return state.replace(step=state.step + 1, skipped=metrics["skipped"], **kept), metrics

    def dispatch(state: TrainState, batches: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        if draw_batch is not None:
            return _scan(lambda state, _: step(state, batches[0]), state, None, steps_per_dispatch)
        return _scan(step, state, batches, steps_per_dispatch)

    in_axes = (None, 0 if draw_batch is None else (None, 0))
    mapped = jax.pmap(
        dispatch, axis_name=_AXIS, in_axes=in_axes, out_axes=(None, None), donate_argnums=0, devices=devices
    )

    def train_step(state: TrainState, batches: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        # Where pmap spans processes, a typed key would go by way of the host.
        state, metrics = mapped(state.replace(key=jax.random.key_data(state.key)), batches)
        return state.replace(key=jax.random.wrap_key_data(state.key)), metrics

    return train_step


def _scan(body: Callable, carry: Any, xs: Any, length: int) -> tuple[Any, Any]:
    """`lax.scan`, but for a loop of one, which XLA would keep (on the CPU what is in a loop runs many times slower)."""
    if length > 1:
        return lax.scan(body, carry, xs, length=length)
    carry, y = body(carry, jax.tree.map(lambda column: column[0], xs))
    return carry, jax.tree.map(lambda value: value[None], y)


def _all_reduce(tree: Any) -> Any:
    """The sum over devices."""
    packed, unpack = pack(tree)
    return unpack(lax.psum(packed, _AXIS))


def all_devices() -> list[jax.Device]:
    """The devices of every process, process by process: the order in which the step counts them."""
    return [device for process in range(jax.process_count()) for device in jax.local_devices(process_index=process)]


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """The state laid out as the step wants and returns it, so that even the first call can consume it."""
    return jax.device_put(tree, NamedSharding(Mesh(np.array(devices), (_AXIS,)), PartitionSpec()))


def put_batches(batches: Sequence[Any], devices: Sequence[jax.Device]) -> Any:
    """K host batches, their arrays `[B, …]`, as one dispatch takes them: `[devices, K, B/devices, …]`, on the devices.

    Of several processes each gives its own share of the global batch, and its own devices.
    """

    def split(*columns):
        return np.stack([column.reshape(len(devices), -1, *column.shape[1:]) for column in columns], axis=1)

    return jax.device_put(jax.tree.map(split, *batches), _by_device(devices))


def put_resident(data: Any, devices: Sequence[jax.Device]) -> Any:
    """Data that stays on the devices, whole on each, as a step with `draw_batch` takes it."""
    # pmap wants to map something.
    return replicate(data, devices), jax.device_put(np.zeros(len(devices), np.int32), _by_device(devices))


def _by_device(devices: Sequence[jax.Device]) -> NamedSharding:
    return NamedSharding(Mesh(np.array(devices), (_AXIS,)), PartitionSpec(_AXIS))


def check_batch_size(batch_size: int, num_devices: int, accumulate: int = 1) -> None:
    """Whether a batch can be shared out evenly.

    Raises:
      ValueError: if not.
    """
    if accumulate < 1:
        raise ValueError(f"accumulate={accumulate} must be ≥ 1")
    parts = f"the {num_devices} devices" + (f" times accumulate={accumulate}" if accumulate > 1 else "")
    if batch_size < 1 or batch_size % (num_devices * accumulate):
        raise ValueError(f"batch_size={batch_size} must be a positive multiple of {parts}")
