"""Measures what the library itself costs. Each row compares two things in one run, turn by turn.

python experiments/benchmark.py [--repeats 5] [--rows scan network] [--json FILE]

  scan      1000 DDIM steps (η = 0) through a network that costs nothing, 64 images of 32×32×3: the loop's own time
  network   a 20-step DDIM sample from DDPM's CIFAR-10 UNet (35.7 million parameters), over 20 single jitted calls
  digits    the input pipeline of configs/digits.py, over the gradient of its network, which training cannot outrun
  cifar10   the same for configs/cifar10.py, with random bytes for CIFAR-10

Times are medians, with the smallest and the largest; a ratio is the median of the ratios of each turn.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import diffjax as dj
from diffjax import data, launch
from diffjax.training import setup

sys.path.append(str(Path(__file__).parents[1]))
from configs import cifar10, digits


def main() -> None:
    """Runs the rows that are asked for and prints them as a Markdown table."""
    rows = {"scan": scan_alone, "network": sample_over_calls, "digits": digits_pipeline, "cifar10": cifar10_pipeline}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4, help="images in the rows 'network' and 'cifar10'")
    parser.add_argument("--rows", nargs="+", choices=rows, default=list(rows))
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    if args.repeats < 1 or args.batch < 1:
        parser.error(f"--repeats={args.repeats} and --batch={args.batch} must be ≥ 1")
    launch.start()
    device = jax.devices()[0]
    print(f"{device.device_kind} ({device.platform}), JAX {jax.__version__}, {args.repeats} turns\n")
    print("| measured | compared with | ratio | time, s (min … max) | of the other, s |\n|---|---|---|---|---|")
    results = []
    for name in args.rows:
        result = rows[name](args)
        results.append({"row": name, **result})
        times = [
            f"{statistics.median(t):.3g} ({min(t):.3g} … {max(t):.3g})" for t in (result["times"], result["others"])
        ]
        ratio = f"{result['ratio']:.3f}"
        print(f"| {result['measured']} | {result['other']} | {ratio} | {times[0]} | {times[1]} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"device": device.device_kind, "rows": results}, indent=2) + "\n")


def scan_alone(args: argparse.Namespace) -> dict:
    """The loop with nothing to call, beside as many passes over the same arrays in a bare loop."""
    steps = dj.samplers.ddim(dj.schedules.linear(), dj.timesteps.full(1000))
    x = dj.initial_noise(dj.sample_keys(0, 0, 64), (32, 32, 3))
    nothing = jax.tree_util.Partial(lambda x, t: x)

    @jax.jit
    def bare(x):
        return jax.lax.fori_loop(0, 1000, lambda i, x: 0.999 * x, x)

    times, others = _turns(lambda: dj.sample(steps, nothing, x), lambda: bare(x), args.repeats)
    return _row("1000-step scan, free network, 64×32×32×3", "1000 × (0.999·x), bare loop", times, others)


def sample_over_calls(args: argparse.Namespace) -> dict:
    """A sample of 20 steps over 20 single calls."""
    model = dj.models.UNet()
    shape = (args.batch, 32, 32, 3)
    x = jax.random.normal(jax.random.key(0), shape)
    t = jnp.zeros(args.batch, jnp.int32)
    predict = dj.models.predictor(model, _random_params(model, x, t))
    steps = dj.samplers.ddim(dj.schedules.linear(), dj.timesteps.trailing(1000, 20))
    call = jax.jit(predict)

    def calls():
        for _ in range(20):
            call(x, t).block_until_ready()

    times, others = _turns(lambda: dj.sample(steps, predict, x, clip=1.0), calls, args.repeats)
    return _row(f"20-step sample, 35.7M UNet, batch {args.batch}", "20 single calls", times, others)


def digits_pipeline(args: argparse.Namespace) -> dict:
    """Digits read, over digits trained on."""
    config = digits.get_config()
    source, _, prepare = setup.images(config)
    return _pipeline_over_gradient("digits", config, source, prepare, config.train.batch_size, args.repeats)


def cifar10_pipeline(args: argparse.Namespace) -> dict:
    """Images of CIFAR-10's size read from memory and flipped, over the same trained on."""
    config = cifar10.get_config()
    images = np.random.default_rng(0).integers(0, 256, (10_000, *config.data.image_shape), np.uint8)
    prepare = partial(data.prepare, shape=config.data.image_shape, flip=config.data.flip)
    return _pipeline_over_gradient("cifar10", config, data.ArraySource(images), prepare, args.batch, args.repeats)


def _pipeline_over_gradient(name, config, source, prepare, batch_size, repeats):
    """Seconds per 1000 images: out of the pipeline, and through the network's gradient in batches of `batch_size`."""
    per_batch, num_batches = config.train.batch_size, 100
    batches = data.batches(source, batch_size=per_batch, seed=0, prepare=prepare)
    model = setup.experiment(config).model
    x = jax.random.normal(jax.random.key(0), (batch_size, *config.data.image_shape))
    t = jnp.zeros(batch_size, jnp.int32)
    rngs = {"dropout": jax.random.key(1)}
    params = _random_params(model, x, t)
    gradient = jax.jit(jax.grad(lambda p: jnp.mean(model.apply({"params": p}, x, t, train=True, rngs=rngs) ** 2)))

    def read():
        for _ in range(num_batches):
            next(batches)

    times, others = _turns(read, lambda: gradient(params), repeats)
    times = [1000 * seconds / (num_batches * per_batch) for seconds in times]
    others = [1000 * seconds / batch_size for seconds in others]
    return _row(f"1000 images of {name}, read", f"the same through configs/{name}.py's gradient", times, others)


def _random_params(model, x, t):
    leaves, tree = jax.tree.flatten(jax.eval_shape(model.init, jax.random.key(0), x, t)["params"])
    return tree.unflatten([0.02 * jax.random.normal(jax.random.key(n), p.shape) for n, p in enumerate(leaves)])


def _turns(first: Callable, second: Callable, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of each, measured in turn so that a slow spell of the machine meets both; the first turn is dropped."""
    times = [[], []]
    for turn in range(repeats + 1):
        for function, record in zip((first, second), times, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(function())
            if turn:
                record.append(time.perf_counter() - start)
    return tuple(times)


def _row(measured: str, other: str, times: list[float], others: list[float]) -> dict:
    ratio = statistics.median(a / b for a, b in zip(times, others, strict=True))
    return {"measured": measured, "other": other, "ratio": ratio, "times": times, "others": others}


if __name__ == "__main__":
    main()
