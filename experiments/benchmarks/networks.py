"""Benchmark rows of a whole network: a call, a sample, a training step, the input pipeline, bfloat16."""

import argparse
import importlib.util
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import diffjax as dj
from benchmarks import costs, kernels, turns
from benchmarks.subject import Subject
from benchmarks.turns import Row
from diffjax import data
from diffjax.runs import build


def call(of: Subject, args: argparse.Namespace) -> Iterator[Row]:
    """Yields the time of one network call."""
    x, t, predict = of.x, of.t, of.predict()
    ask = jax.jit(lambda predict, x, t: predict(x, t))
    multiply, flops = kernels.product(of)
    functions = {"ours": lambda: ask(predict, x, t), "product": multiply}
    note = ""
    if theirs := _pytorch(of, args):
        functions["torch"] = theirs.call(np.asarray(x), np.asarray(t))
        note = f", relative difference {_error(theirs.to_numpy(functions['torch']()), functions['ours']()):.0e}"
    times = turns.take(functions, args.repeats)
    measured = f"one call, {of.name}, batch {of.batch}"
    if theirs:
        yield Row(measured, f"{theirs.name}{note}", times["ours"], times["torch"])
    count = costs.of_call(of.run.network, of.run.image_shape, of.batch).flops
    yield _over_product(measured, times, count / flops)


def sample(of: Subject, args: argparse.Namespace) -> Iterator[Row]:
    """Yields the time of a DDIM sample."""
    x, t, predict = of.x, of.t, of.predict()
    steps = dj.samplers.ddim(of.run.schedule, dj.timesteps.trailing(of.run.schedule.num_timesteps, args.steps))
    ask = jax.jit(lambda predict, x, t: predict(x, t))

    def calls():
        for _ in range(args.steps):
            ask(predict, x, t).block_until_ready()

    functions = {"ours": lambda: dj.sample(steps, predict, x, clip=of.run.clip), "calls": calls}
    note = ""
    if theirs := _pytorch(of, args):
        functions["torch"] = theirs.ddim(np.asarray(x), args.steps)
        note = f", relative difference {_error(theirs.to_numpy(functions['torch']()), functions['ours']()):.0e}"
    times = turns.take(functions, args.repeats)
    measured = f"{args.steps}-step sample, {of.name}, batch {of.batch}"
    yield Row(measured, f"{args.steps} single calls", times["ours"], times["calls"])
    if theirs:
        yield Row(measured, f"{theirs.name}{note}", times["ours"], times["torch"])


def train(of: Subject, args: argparse.Namespace) -> Iterator[Row]:
    """Yields the time of a training step."""
    multiply, flops = kernels.product(of)
    functions = {"ours": _trainer(of, args.steps_per_call), "product": multiply}
    if theirs := _pytorch(of, args):
        functions["torch"] = theirs.trainer(of.images)
    times = turns.take(functions, args.repeats)
    times["ours"] = turns.scaled(times["ours"], 1 / args.steps_per_call)
    measured = f"training step, {of.name}, batch {of.batch}"
    if theirs:
        yield Row(measured, theirs.name, times["ours"], times["torch"])
    count = 3 * costs.of_call(of.run.network, of.run.image_shape, of.batch).flops
    yield _over_product(measured, times, count / flops)


def pipeline(of: Subject, args: argparse.Namespace) -> Iterator[Row]:
    """Yields the time of reading images, against training on as many."""
    if args.model == "digits":
        found = build.images(of.config)
        source, prepare = found.source, found.prepare
    else:
        shape = of.run.image_shape
        source = data.ArraySource(np.random.default_rng(0).integers(0, 256, (10_000, *shape), np.uint8))
        prepare = partial(data.prepare, shape=shape, random_flip=of.config.data.random_flip)
    per_batch, num_batches = 64, 100
    batches = data.batches(source, batch_size=per_batch, seed=0, prepare=prepare)

    def read():
        for _ in range(num_batches):
            next(batches)

    times = turns.take({"read": read, "train": _trainer(of)}, args.repeats)
    yield Row(
        f"1000 images of {args.model}, read",
        "the same, trained on",
        turns.scaled(times["read"], 1000 / (per_batch * num_batches)),
        turns.scaled(times["train"], 1000 / of.batch),
    )


def bf16(of: Subject, args: argparse.Namespace) -> Iterator[Row]:
    """Yields the time of one call in bfloat16, against float32."""
    x, t = of.x, of.t
    ask = jax.jit(lambda predict, x, t: predict(x, t))
    functions = {dtype: partial(ask, of.predict(jnp.dtype(dtype)), x, t) for dtype in ("bfloat16", "float32")}
    error = _error(functions["bfloat16"](), functions["float32"]())
    times = turns.take(functions, args.repeats)
    measured = f"one call in bfloat16, {of.name}, batch {of.batch}"
    yield Row(measured, f"float32, relative difference {error:.0e}", times["bfloat16"], times["float32"])


def _trainer(of: Subject, steps_per_call: int = 1):
    """Returns a function that continues training by one call of the compiled step."""
    step, state, batches = of.training(steps_per_call)

    def train():
        nonlocal state
        state, metrics = step(state, batches)
        # The step is done when the parameters are computed.
        return metrics, state.step, state.params

    return train


def _pytorch(of: Subject, args: argparse.Namespace):
    """Returns the same network in PyTorch, or None if PyTorch or diffusers is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "diffusers")):
        return None
    from benchmarks import pytorch

    return pytorch.Network(of, compiled=args.torch_compile)


def _over_product(measured: str, times: dict[str, list[float]], share: float) -> Row:
    return Row(measured, "a matrix product of as many FLOPs", times["ours"], turns.scaled(times["product"], share))


def _error(value, reference) -> float:
    """Returns ‖Δ‖₂/‖reference‖₂."""
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    return np.linalg.norm(value - reference) / np.linalg.norm(reference)
