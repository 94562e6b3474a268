"""Benchmark rows that run no network: the hardware's ceiling, counted costs, the sampling loop alone."""

import argparse
import importlib.util
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

import diffjax as dj
from benchmarks import costs, turns
from benchmarks.subject import Subject
from benchmarks.turns import Row
from diffjax import devices
from diffjax.runs import build

_SIDE, _MIB = {"cpu": 2048}, {"cpu": 256}


def product(of: Subject) -> tuple[Callable[[], jax.Array], float]:
    """Returns (a large matrix product on all devices, in the network's dtype; its FLOPs)."""
    side = _SIDE.get(of.device.platform, 8192)
    a, b = (jax.random.normal(jax.random.key(n), (side, side), of.run.network.dtype) for n in (0, 1))
    a, b = devices.split(a, side), devices.replicate(b, side)
    multiply = jax.jit(jnp.matmul)
    return lambda: multiply(a, b), 2.0 * side**3


def ceiling(of: Subject, args: argparse.Namespace) -> Iterator[Row]:
    """Yields the times of a matrix product and of a copy, against PyTorch's."""
    if importlib.util.find_spec("torch") is None:
        raise turns.LeftOutError("PyTorch is not installed")
    from benchmarks import pytorch

    multiply, flops = product(of)
    side = round((flops / 2) ** (1 / 3))
    x = jnp.zeros((_MIB.get(of.device.platform, 2048), 2**18))
    x = devices.split(x, len(x))
    add = jax.jit(lambda x: x + 1)
    theirs = pytorch.kernels(side, x.size, of)
    times = turns.take({"product": multiply, "copy": lambda: add(x), **theirs}, args.repeats)
    speed, bandwidth = (
        f"{amount / min(times[name]) / 1e9:.3g} {unit}"
        for name, amount, unit in (("product", flops, "GFLOP/s"), ("copy", 2 * x.nbytes, "GB/s"))
    )
    yield Row(f"{side}² matrix product, {speed}", "PyTorch's", times["product"], times["torch_product"])
    yield Row(f"{x.nbytes >> 20} MiB read and written, {bandwidth}", "PyTorch's", times["copy"], times["torch_copy"])


def cost(of: Subject, args: argparse.Namespace) -> Iterator[Row]:
    """Yields the FLOPs and bytes of one call: counted by layer, against XLA's count of the program."""
    model, shape = of.run.network, of.run.image_shape
    by_hand = costs.of_call(model, shape, of.batch)
    t = jax.ShapeDtypeStruct((of.batch,), jnp.int32)
    x = jax.ShapeDtypeStruct((of.batch, *shape), jnp.float32)
    program = jax.jit(lambda p, x, t: model.apply({"params": p}, x, t)).lower(build.params_shape(of.run.task), x, t)
    flops = program.cost_analysis()["flops"]
    moved = program.compile().cost_analysis()["bytes accessed"]
    what = f"of one call of the {of.name}, batch {of.batch}"
    yield Row(f"FLOPs {what}", "XLA's count", [by_hand.flops / 1e9], [flops / 1e9], "GFLOP")
    yield Row(f"bytes {what}", "XLA's count", [by_hand.bytes / 2**20], [moved / 2**20], "MiB")


def scan(of: Subject, args: argparse.Namespace) -> Iterator[Row]:
    """Yields the time of the loop with a network that does nothing, against as many passes of a bare loop."""
    steps = dj.samplers.ddim(dj.schedules.linear(), dj.timesteps.full(1000))
    x = dj.initial_noise(dj.sample_keys(0, 0, 64), (32, 32, 3))
    nothing = jax.tree_util.Partial(lambda x, t: x)

    @jax.jit
    def bare(x):
        return jax.lax.fori_loop(0, 1000, lambda i, x: 0.999 * x, x)

    times = turns.take({"ours": lambda: dj.sample(steps, nothing, x), "bare": lambda: bare(x)}, args.repeats)
    yield Row("1000-step scan, free network, 64×32×32×3", "1000 × (0.999·x), bare loop", times["ours"], times["bare"])
