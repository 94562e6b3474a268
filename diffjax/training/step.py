"""The data-parallel training step: the only file that uses pmap.

The state has no device axis: it is replicated as input and output (`in_axes=None`, `out_axes=None`), and donated. With
`shard_optimizer`, its averages and optimizer state are shards with a device axis between calls.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffjax.schedules import NoiseSchedule
from diffjax.training import ema
from diffjax.training.packing import pack
from diffjax.training.sharding import Shards
from diffjax.training.state import TrainState
from diffjax.training.timestep_sampling import noise_keys, record, sample_timesteps

NUM_BUCKETS = 4
"""Equal parts of 0 … T-1 by which the metrics report the loss."""

_AXIS = "data"

Loss = Callable[[Any, Any, jax.Array, jax.Array, jax.Array], jax.Array]
"""(parameters, batch, t `[B]`, keys `[B]` by example, dropout key) → loss of each example `[B]`."""

SampleBatch = Callable[[Any, jax.Array, jax.Array, jax.Array], Any]
"""(data, the state's key, step, numbers `[B]` of examples in the global batch) → these examples."""


@dataclasses.dataclass(frozen=True, eq=False)
class TrainStep:
    """A function (state, batches of `put_batches`) → (next state, metrics), compiled on its first call.

    With sharding, the state that it takes and returns is that of `shard`, and `gather` gives the whole state again;
    without, both return the state as it is.
    """

    mapped: Callable
    """The pmapped function, whose state has the data of its key in place of the key."""
    cut: Callable | None = None
    """The pmapped function (parameters, (EMA, optimizer state)) → their shards; None without sharding."""
    join: Callable | None = None
    """The pmapped function (parameters, shards) → (EMA, optimizer state)."""

    def __call__(self, state: TrainState, batches: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        """Runs the steps of one call."""
        # With several processes, pmap would copy a typed key by way of the host.
        state, metrics = self.mapped(state.replace(key=jax.random.key_data(state.key)), batches)
        return state.replace(key=jax.random.wrap_key_data(state.key)), metrics

    def lower(self, state: TrainState, batches: Any) -> jax.stages.Lowered:
        """Returns the program for inputs of these shapes (`jax.ShapeDtypeStruct`), to compile without running it.

        The state is a whole one, as before `shard`.
        """
        state = state.replace(key=jax.eval_shape(jax.random.key_data, state.key))
        if self.cut is not None:
            average, opt_state = jax.eval_shape(self.cut, state.params, (state.ema_params, state.opt_state))
            state = state.replace(ema_params=average, opt_state=opt_state)
        return self.mapped.lower(state, batches)

    def shard(self, state: TrainState) -> TrainState:
        """Returns the state with the averages and the optimizer's state split over the devices."""
        if self.cut is None:
            return state
        average, opt_state = self.cut(state.params, (state.ema_params, state.opt_state))
        return state.replace(ema_params=average, opt_state=opt_state)

    def gather(self, state: TrainState) -> TrainState:
        """Returns the whole state, the same on every device: what is saved, and sampled with."""
        if self.join is None:
            return state
        average, opt_state = self.join(state.params, (state.ema_params, state.opt_state))
        return state.replace(ema_params=average, opt_state=opt_state)


def make_train_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    schedule: NoiseSchedule,
    batch_size: int,
    devices: Sequence[jax.Device],
    timestep_sampling: str = "uniform",
    sampling_options: Mapping[str, Any] | None = None,
    grad_accumulation_steps: int = 1,
    steps_per_call: int = 1,
    sample_batch: SampleBatch | None = None,
    shard_optimizer: bool = False,
) -> TrainStep:
    """Returns the function (state, batches of `put_batches`) → (next state, metrics) of `steps_per_call` = K steps.

    `devices` are those of all processes (`all_devices`); each process passes its state, replicated over its own
    devices, and its own share of the global batch, split over them.

    The n-th example of the global batch uses the n-th child of the step's key, whatever device it is on; only dropout
    masks depend on the number of devices. The gradient is that of the mean loss over the global batch. One all-reduce
    per step sums it, and also collects the examples' losses, from which every device computes the same metrics:

        loss, grad_norm              `[K]`
        skipped                      `[K]`, `TrainState.skipped` after the step
        finite                       bool `[K, B]`, whether the loss of each example is finite
        bucket_loss, bucket_weight   `[K, NUM_BUCKETS]`, sums: their quotient is the mean loss of that part of 0 … T-1

    A step whose loss or gradient is not finite leaves parameters, optimizer, EMA and history unchanged. Pass the state
    through `replicate` once; each call donates its state.

    Args:
      loss: the loss of a task (`tasks.Task.loss`).
      optimizer: an optax optimizer.
      schedule: the noise schedule.
      batch_size: the size of the global batch of one optimizer step.
      devices: all devices of all processes.
      timestep_sampling: a name in `TIMESTEP_SAMPLINGS`, or an import path.
      sampling_options: its options.
      steps_per_call: K, the number of optimizer steps in one call.
      grad_accumulation_steps: the number of micro-batches in which each device computes the gradient of its share; only
        dropout masks depend on it.
      sample_batch: the function that samples a batch from data on the devices; the step then takes the result of
        `put_on_device` in place of batches.
      shard_optimizer: whether each device holds and updates only its share of the optimizer's state and of the
        averages (ZeRO stage 1): gradients are reduced and scattered, new parameters gathered. The optimizer must be
        one of `optimizers.optimizer`. Pass the state through `TrainStep.shard`.

    Raises:
      ValueError: a batch that cannot be split evenly (`check_batch_size`).
    """
    check_batch_size(batch_size, len(devices), grad_accumulation_steps)
    share = batch_size // len(devices)
    shards = Shards(_AXIS, len(devices)) if shard_optimizer else None

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        device = lax.axis_index(_AXIS)
        state_key = jax.random.wrap_key_data(state.key)
        key, dropout_key = jax.random.split(jax.random.fold_in(state_key, state.step))
        everyone = jnp.arange(batch_size)
        t, weight = sample_timesteps(
            timestep_sampling,
            key,
            everyone,
            batch_size=batch_size,
            schedule=schedule,
            history=state.history,
            options=sampling_options,
        )
        mine = device * share + jnp.arange(share)
        if sample_batch is not None:
            batch = sample_batch(batch, state_key, state.step, mine)
        if any(len(column) != share for column in jax.tree.leaves(batch)):
            sizes = [len(column) for column in jax.tree.leaves(batch)]
            raise ValueError(f"a device got {sizes} examples; its share of batch_size={batch_size} is {share}")

        def part_loss(params, batch, t, weight, keys, dropout_key):
            losses = loss(params, batch, t, keys, dropout_key)
            return jnp.sum(weight * losses) / batch_size, losses

        def part_gradient(total, part):
            gradients, losses = jax.grad(part_loss, has_aux=True)(state.params, *part)
            return jax.tree.map(jnp.add, total, gradients), losses

        examples = (batch, t[mine], weight[mine], noise_keys(key, mine))
        parts = jax.tree.map(lambda column: column.reshape(grad_accumulation_steps, -1, *column.shape[1:]), examples)
        dropout_keys = jax.random.split(jax.random.fold_in(dropout_key, device), grad_accumulation_steps)
        zeros = jax.tree.map(jnp.zeros_like, state.params)
        gradients, losses = lax.scan(part_gradient, zeros, (*parts, dropout_keys))
        losses = jnp.zeros(batch_size, losses.dtype).at[mine].set(losses.reshape(-1))
        if shards is None:
            gradients, losses = _all_reduce((gradients, losses))
            params, grad_norm, extra = state.params, optax.tree.norm(gradients), {}
        else:
            losses, gradients = lax.psum(losses, _AXIS), shards.sum(pack(gradients)[0])
            params, grad_norm = shards.own(pack(state.params)[0]), shards.norm(gradients)
            extra = {"grad_norm": grad_norm}

        metrics = {"loss": jnp.mean(weight * losses), "grad_norm": grad_norm}
        metrics["finite"] = jnp.isfinite(losses)
        in_bucket = t * NUM_BUCKETS // schedule.num_timesteps == jnp.arange(NUM_BUCKETS)[:, None]
        metrics["bucket_loss"] = jnp.sum(jnp.where(in_bucket, weight * losses, 0.0), axis=1)
        metrics["bucket_weight"] = jnp.sum(jnp.where(in_bucket, weight, 0.0), axis=1)

        updates, opt_state = optimizer.update(gradients, state.opt_state, params, **extra)
        new_params = optax.apply_updates(params, updates)
        new = {
            "params": new_params,
            "ema_params": ema.update(state.ema_params, new_params, state.step),
            "opt_state": opt_state,
            "history": None if state.history is None else record(state.history, t, losses),
        }
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
        old = {name: getattr(state, name) for name in new} | {"params": params}
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, old)
        if shards is not None:
            whole, unpack = pack(state.params)
            kept["params"] = unpack(shards.whole(kept["params"], whole))
        metrics["skipped"] = jnp.where(finite, 0, state.skipped + 1)
        return state.replace(step=state.step + 1, skipped=metrics["skipped"], **kept), metrics

    def call(state: TrainState, batches: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        if sample_batch is not None:
            return lax.scan(lambda state, _: step(state, batches[0]), state, length=steps_per_call)
        return lax.scan(step, state, batches)

    axes = None if shards is None else _SHARDED
    in_axes = (axes, 0 if sample_batch is None else (None, 0))
    mapped = jax.pmap(call, axis_name=_AXIS, in_axes=in_axes, out_axes=(axes, None), donate_argnums=0, devices=devices)
    return TrainStep(mapped) if shards is None else TrainStep(mapped, *_cut_and_join(optimizer, shards, devices))


_SHARDED = TrainState(step=None, params=None, ema_params=0, opt_state=0, key=None, skipped=None, history=None)
"""The device axes of a state whose averages and optimizer state are shards."""


def _cut_and_join(
    optimizer: optax.GradientTransformation, shards: Shards, devices: Sequence[jax.Device]
) -> tuple[Callable, Callable]:
    """Returns `TrainStep.cut` and `TrainStep.join`."""

    def cut(params, parts, _):
        averages, opt_state = parts
        return shards.own(({decay: pack(average)[0] for decay, average in averages.items()}, opt_state))

    def join(params, parts):
        averages, opt_state = parts
        like, unpack = pack(params)
        whole = {decay: unpack(shards.whole(average, like)) for decay, average in averages.items()}
        return whole, shards.whole(opt_state, jax.eval_shape(optimizer.init, params))

    same = {"axis_name": _AXIS, "devices": devices}
    cut = jax.pmap(cut, in_axes=(None, None, 0), out_axes=0, **same)
    # pmap needs at least one argument with a device axis.
    count = sum(device.process_index == jax.process_index() for device in devices)
    return partial(_with_axis, cut, np.zeros(count, np.int32)), jax.pmap(join, in_axes=(None, 0), out_axes=None, **same)


def _with_axis(mapped: Callable, axis: np.ndarray, params: Any, parts: Any) -> Any:
    return mapped(params, parts, axis)


def _all_reduce(tree: Any) -> Any:
    """Returns the sum over devices."""
    packed, unpack = pack(tree)
    return unpack(lax.psum(packed, _AXIS))


def all_devices() -> list[jax.Device]:
    """Returns the devices of every process, process by process: the order in which the step counts them."""
    return [device for process in range(jax.process_count()) for device in jax.local_devices(process_index=process)]


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Puts the state on the devices as the step takes and returns it, so that the first call can donate it too."""
    return jax.device_put(tree, NamedSharding(Mesh(np.array(devices), (_AXIS,)), PartitionSpec()))


def put_batches(batches: Sequence[Any], devices: Sequence[jax.Device]) -> Any:
    """Puts K host batches, arrays `[B, …]`, on the devices as one call takes them: `[devices, K, B/devices, …]`.

    With several processes, each passes its own share of the global batch and its own devices.
    """

    def split(*columns):
        return np.stack([column.reshape(len(devices), -1, *column.shape[1:]) for column in columns], axis=1)

    return jax.device_put(jax.tree.map(split, *batches), _by_device(devices))


def put_on_device(data: Any, devices: Sequence[jax.Device]) -> Any:
    """Puts a whole data set on each device, as a step with `sample_batch` takes it."""
    # pmap needs at least one argument with a device axis.
    return replicate(data, devices), jax.device_put(np.zeros(len(devices), np.int32), _by_device(devices))


def _by_device(devices: Sequence[jax.Device]) -> NamedSharding:
    return NamedSharding(Mesh(np.array(devices), (_AXIS,)), PartitionSpec(_AXIS))


def check_batch_size(batch_size: int, num_devices: int, grad_accumulation_steps: int = 1) -> None:
    """Checks that a batch can be split evenly over devices and micro-batches.

    Raises:
      ValueError: it cannot be split evenly.
    """
    if grad_accumulation_steps < 1:
        raise ValueError(f"grad_accumulation_steps={grad_accumulation_steps} must be ≥ 1")
    parts = f"the {num_devices} devices"
    if grad_accumulation_steps > 1:
        parts += f" times grad_accumulation_steps={grad_accumulation_steps}"
    if batch_size < 1 or batch_size % (num_devices * grad_accumulation_steps):
        raise ValueError(f"batch_size={batch_size} must be a positive multiple of {parts}")
