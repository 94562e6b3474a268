"""Compiles the programs of a config for devices that need not be there, and reads their memory and work.

devices = dry_run.topology("v5e:2x2")
report = dry_run.read(dry_run.training(config, devices), devices)
"""

import contextlib
import importlib.util
import math
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffjax.errors import UserError, naming
from diffjax.noise import initial_noise, sample_keys
from diffjax.runs import build, hlo, resolve
from diffjax.runs.chips import CHIPS, Bound, Chip, bound
from diffjax.sampling import sample
from diffjax.training import state, timestep_sampling
from diffjax.training.step import check_batch_size, make_train_step

_TOPOLOGY = re.compile(r"(v\d\w*):(\d+(?:x\d+)*)")
_WITHOUT_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}
"""Environment variables with which libtpu does not look for a TPU, nor speak of it."""


class Cost(NamedTuple):
    """What a compiled program needs of one device; loops count once."""

    compile_seconds: float
    arguments: int
    """Bytes of its inputs."""
    temporaries: int
    """Bytes of its intermediate arrays."""
    peak: int
    """The largest number of bytes in use at a time: arguments, results and temporaries."""
    flops: float
    bytes_moved: float
    """Bytes read from and written to the device's main memory (`hlo.Instruction.moved`)."""
    bytes_accessed: float
    """Bytes of each operand and result of each instruction, as XLA counts them: on-chip memory and caches included."""
    copies: int
    transposes: int
    collectives: dict[str, tuple[int, int]]
    """Kind → (number, bytes) of the exchanges between devices."""

    @property
    def exchanged(self) -> int:
        """The bytes that one device sends to others; an all-reduce sends its operand twice."""
        return sum(size * (2 if kind == "all-reduce" else 1) for kind, (_, size) in self.collectives.items())

    def times(self, count: int) -> "Cost":
        """Returns the cost with the work, not the memory, multiplied by the passes of a loop."""
        return self._replace(
            flops=self.flops * count,
            bytes_moved=self.bytes_moved * count,
            bytes_accessed=self.bytes_accessed * count,
        )

    def bound(self, chip: Chip) -> Bound:
        """Returns the least time on a chip."""
        return bound(chip, flops=self.flops, num_bytes=self.bytes_moved, exchanged=self.exchanged)


def topology(name: str) -> list[jax.Device]:
    """Returns the devices of a TPU slice, such as "v5e:2x4" or "v4:2x2x1", which compile and cannot run.

    "local" gives the devices of this machine.

    Raises:
      UserError: an unknown topology, or no libtpu.
    """
    if name == "local":
        return jax.devices()
    match = _TOPOLOGY.fullmatch(name)
    if match is None:
        raise UserError(f"topology: {name!r} must be GENERATION:SHAPE, as in v5e:2x4 or v4:2x2x1, or local")
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("topology: a TPU program needs libtpu to be compiled: pip install '.[tpu]'")
    for variable, value in _WITHOUT_TPU.items():
        os.environ.setdefault(variable, value)
    options: dict[str, Any] = {}
    shape = [int(number) for number in match[2].split("x")]
    if math.prod(shape) < 4:
        options["chips_per_host_bounds"] = (*shape, 1, 1)[:3]
    if match[1] == "v4":
        options["chip_config_name"] = "megacore"  # one JAX device a chip, as on the machines that Google lends
    try:
        return list(topologies.get_topology_desc(name, "tpu", **options).devices)
    except jax.errors.JaxRuntimeError as error:
        said = " ".join(str(error).split()).removeprefix("INVALID_ARGUMENT: ")
        if "lockfile" in said:
            said = "another process on this machine uses libtpu, which serves one at a time"
        raise UserError(f"topology: {name!r} cannot be compiled for: {said[:200]}") from error


def chip(devices: Sequence[jax.Device]) -> Chip | None:
    """Returns the peak figures of the devices; None for those that are not in `CHIPS`."""
    return CHIPS.get(devices[0].device_kind)


def training(config: ml_collections.ConfigDict, devices: Sequence[jax.Device]) -> jax.stages.Lowered:
    """Returns the program of one training step; neither data nor parameters are made.

    Raises:
      UserError: an invalid value, or a batch that cannot be split over the devices.
    """
    task, options = build.task(config), config.train
    with naming("config.train"):
        check_batch_size(options.batch_size, len(devices), options.grad_accumulation_steps)
    optimizer = build.optimizer(config, task)[1]
    step = make_train_step(task.loss(), optimizer, devices=devices, **build.step_options(config, task))
    history = timestep_sampling.initial_history(options.timestep_sampling, task.schedule.num_timesteps)
    create = partial(state.create, task.init, optimizer, ema_decays=options.ema_decays, history=history)
    shapes = jax.eval_shape(create, jax.random.key(0))
    lead = (len(devices), 1, options.batch_size // len(devices))
    batch = {"image": jax.ShapeDtypeStruct((*lead, *task.image_shape), jnp.uint8)}
    batch["label"] = jax.ShapeDtypeStruct(lead, jnp.int32)
    if task.is_conditional:
        batch["condition"] = batch["image"]
    return step.lower(shapes, batch)


def largest_batch(config: ml_collections.ConfigDict, devices: Sequence[jax.Device], at: Cost, memory: float) -> int:
    """Estimates the largest batch whose training step fits `memory` bytes of each device; it compiles one more program.

    The peak of a step is nearly a linear function of the batch; the line goes through the peaks of the config's batch
    and of another one.

    Args:
      config: the experiment.
      devices: the devices.
      at: the cost of the config's own step.
      memory: the bytes of a device.
    """
    unit = len(devices) * config.train.grad_accumulation_steps
    share = config.train.batch_size // unit
    other = max(1, share // 2) if share > 1 else 2
    changed = resolve.override(config, {"train.batch_size": other * unit})
    slope = (at.peak - read(training(changed, devices)).peak) / (share - other)
    return max(0, int(share + (memory - at.peak) / max(slope, 1.0))) * unit


def sampling(config: ml_collections.ConfigDict, devices: Sequence[jax.Device], num: int) -> jax.stages.Lowered:
    """Returns the program that samples, or restores, `num` images as `config.sample` describes.

    Raises:
      UserError: an invalid value.
    """
    task = build.task(config)
    how = build.sampling(config, task)
    mesh = Mesh(np.array(devices), "batch")
    everywhere, by_image = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("batch",)))

    def made(params, condition, seed):
        keys = sample_keys(seed, 0, num)
        if task.is_conditional:
            return task.restore(params, how, condition, keys)
        predict = task.predictor(params, guidance=how.guidance, **task.labels(np.arange(num)))
        x = jax.lax.with_sharding_constraint(initial_noise(keys, task.image_shape), by_image)
        return sample(how.sampler, predict, x, keys, clip=how.clip)

    shapes = jax.eval_shape(task.sampled_params, build.params_shape(task))
    condition = jax.ShapeDtypeStruct((num, *task.image_shape), jnp.float32)
    program = jax.jit(made, in_shardings=(everywhere, by_image, everywhere), out_shardings=by_image)
    return program.lower(shapes, condition, jax.ShapeDtypeStruct((), jnp.uint32))


def read(lowered: jax.stages.Lowered) -> Cost:
    """Compiles a program, and returns what it costs.

    Raises:
      UserError: a program that does not fit the memory of the devices.
    """
    started = time.perf_counter()
    with _one_line():
        compiled = lowered.compile()
    seconds = time.perf_counter() - started
    memory, counted = compiled.memory_analysis(), compiled.cost_analysis()
    found = list(hlo.instructions(compiled.as_text()))
    counts = Counter(one.opcode for one in found)
    exchanges = {
        kind: (counts[kind], sum(one.operands for one in found if one.opcode == kind))
        for kind in hlo.COLLECTIVES
        if counts[kind]
    }
    return Cost(
        compile_seconds=seconds,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        peak=memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes,
        flops=counted.get("flops", 0.0),
        bytes_moved=float(sum(one.moved for one in found)),
        bytes_accessed=counted.get("bytes accessed", 0.0),
        copies=counts["copy"],
        transposes=counts["transpose"],
        collectives=exchanges,
    )


@contextlib.contextmanager
def _one_line():
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        said = " ".join(str(error).split())
        if "RESOURCE_EXHAUSTED" not in said:
            raise
        needed = re.search(r"Used ([\d.]+\w) of ([\d.]+\w) hbm", said)
        how = f"{needed[1]} of {needed[2]}" if needed else said[:200]
        raise UserError(f"the program does not fit the memory of a device: {how}") from error
