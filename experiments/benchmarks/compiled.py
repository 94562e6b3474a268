"""Benchmark rows about compiled programs: their memory, their compile times, the time to the first samples."""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.experimental.compilation_cache import compilation_cache

import diffjax as dj
from benchmarks import turns
from benchmarks.subject import Subject
from benchmarks.turns import Row

_EXPERIMENTS = Path(__file__).parents[1]


def memory(of: Subject, args: argparse.Namespace) -> Iterator[Row]:
    """Yields memory and time of a batch's gradient on one device, with and without rematerialization."""
    x, t = jax.device_put((of.x, of.t), of.device)
    params = jax.device_put(of.run.params, of.device)

    def objective(remat, params, x, t):
        rngs = {"dropout": jax.random.key(0)}
        return jnp.mean(of.run.network.clone(remat=remat).apply({"params": params}, x, t, train=True, rngs=rngs) ** 2)

    def kept(remat, batch):
        """Returns the bytes that the forward pass of `batch` images keeps for the backward pass."""
        shapes = [jax.ShapeDtypeStruct((batch, *array.shape[1:]), array.dtype) for array in (x, t)]
        back = jax.eval_shape(
            lambda params, *of: jax.vjp(lambda p: objective(remat, p, *of), params)[1], params, *shapes
        )
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(back))

    kinds = (True, False)
    programs = {remat: jax.jit(jax.grad(partial(objective, remat))).lower(params, x, t).compile() for remat in kinds}
    held = {remat: [p.memory_analysis().temp_size_in_bytes / of.batch / 2**20] for remat, p in programs.items()}
    # The difference of two batch sizes, since the parameters are kept as well.
    images = {remat: [(kept(remat, 4) - kept(remat, 2)) / 2 / 2**20] for remat in kinds}
    times = turns.take({remat: partial(program, params, x, t) for remat, program in programs.items()}, args.repeats)
    what = f"gradient with remat, {of.name}, batch {of.batch}"
    yield Row(f"{what}: kept for the backward pass, an image", "without", images[True], images[False], "MiB")
    yield Row(f"{what}: memory of the program, an image", "without", held[True], held[False], "MiB")
    yield Row(f"{what}: time", "without", times[True], times[False])


def compile_times(of: Subject, args: argparse.Namespace) -> Iterator[Row]:
    """Yields the times of tracing, lowering and compiling, with the program in the cache and without."""
    step, state, batches = of.training()
    table = dj.samplers.ddim(of.run.schedule, dj.timesteps.trailing(of.run.schedule.num_timesteps, args.steps))

    def sampler(predict, x):
        return dj.sample(table, predict, x, clip=of.run.clip)

    for name, function, inputs in (
        ("training step", step, (state, batches)),
        (f"{args.steps}-step sampler", sampler, (of.predict(), of.x)),
    ):
        times = {"cold": [], "warm": []}
        for _ in range(args.repeats):
            with _empty_cache():
                for record in times.values():
                    jax.clear_caches()
                    record.append(turns.seconds(lambda: jax.jit(function).lower(*inputs).compile()))  # noqa: B023
        yield Row(f"{name}, {of.name}: compiled, cached on disk", "not cached", times["warm"], times["cold"])


def start(of: Subject, args: argparse.Namespace) -> Iterator[Row]:
    """Yields the time of `sample.py` for 64 digits, from the start of its process to its end."""
    times = {"cold": [], "warm": []}
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable, _EXPERIMENTS / "sample.py", "--weights", _EXPERIMENTS / "pretrained" / "digits",
                "--sampler", "ddim", "--steps", "50", "--num", "64", "--out", Path(folder) / "samples",
            ]  # fmt: skip
            environment = os.environ | {"DIFFJAX_CACHE": folder}
            environment.pop("JAX_COMPILATION_CACHE_DIR", None)
            run = partial(subprocess.run, command, env=environment, check=True, capture_output=True)
            for record in times.values():
                record.append(turns.seconds(run))
    yield Row("64 digits from process start, programs cached", "not cached", times["warm"], times["cold"])


@contextlib.contextmanager
def _empty_cache():
    """Sets up an empty compilation cache that keeps every program, for the `with` block."""
    options = {"jax_persistent_cache_min_compile_time_secs": 0, "jax_persistent_cache_min_entry_size_bytes": 0}
    with tempfile.TemporaryDirectory() as folder:
        options["jax_compilation_cache_dir"] = folder
        before = {name: getattr(jax.config, name) for name in options}
        for name, value in options.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        try:
            yield
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()
