"""Measures the time and memory that the library takes. Each row times two things in one run, in turn.

python experiments/benchmark.py [--model digits] [--rows call sample train] [--repeats 5] [--json FILE]

  ceiling   a large matrix product and a copy of memory, over PyTorch's
  cost      FLOPs and bytes of a network call, counted layer by layer, over XLA's own count
  call      one network call, over PyTorch's, and over the matrix product of as many FLOPs
  sample    a DDIM sample (η = 0, 20 --steps), over as many single calls, and over diffusers' scheduler and network
  train     a training step (Adam, clipped gradient, EMA), over PyTorch's, and over the product of as many FLOPs
  scan      1000 DDIM steps through a network that costs nothing, 64 images of 32×32×3: the loop's own time
  pipeline  reading images (random bytes, except for the digits), over training on as many
  bf16      one network call in bfloat16, over float32, with its error
  memory    of a gradient, per image: kept for the backward pass, and held in all; and its time; `remat` over without
  compile   the programs of the training step and of the sampler: from the cache on disk, over compiled anew
  start     from process start to 64 samples of the digits (DDIM, 50 steps): with programs in the cache, over without

A ratio is the other value divided by the measured one: above 1, the measured one is faster or smaller. It is the median
(with the smallest and largest) over the turns. The network is a config's, and PyTorch's is the UNet of diffusers with
the same weights, channels-last, on all cores; without PyTorch and diffusers, the rows that need them are left out.
"""

import argparse
import json
import sys
from pathlib import Path

import jax

from diffjax.cli import launch

sys.path.append(str(Path(__file__).parents[1]))
from benchmarks import compiled, kernels, networks, subject, turns

ROWS = {
    "ceiling": kernels.ceiling,
    "cost": kernels.cost,
    "call": networks.call,
    "sample": networks.sample,
    "train": networks.train,
    "scan": kernels.scan,
    "pipeline": networks.pipeline,
    "bf16": networks.bf16,
    "memory": compiled.memory,
    "compile": compiled.compile_times,
    "start": compiled.start,
}


def main() -> None:
    """Runs the chosen rows and prints them as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="default: all")
    parser.add_argument("--model", choices=subject.MODELS, default="digits", help="the config of the network")
    parser.add_argument("--batch", type=int, help="batch size (default: the config's; 8 for cifar10 on a CPU)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="the network's dtype")
    parser.add_argument("--device", choices=("cpu", "gpu", "tpu"), help="default: JAX's default")
    parser.add_argument("--steps", type=int, default=20, help="sampler steps (default: 20)")
    parser.add_argument("--steps-per-call", type=int, default=1, help="optimizer steps per call in 'train'")
    parser.add_argument("--torch-compile", action="store_true", help="apply torch.compile to PyTorch's network")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default: 5)")
    parser.add_argument("--json", type=Path, help="a JSON file for the figures")
    args = parser.parse_args()
    for flag in ("repeats", "batch", "steps", "steps_per_call"):
        if getattr(args, flag) is not None and getattr(args, flag) < 1:
            parser.error(f"--{flag.replace('_', '-')}={getattr(args, flag)} must be ≥ 1")
    if args.device:
        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(args.device, args.device))
    launch.start(batch_size=args.batch)
    of = subject.load(args.model, args.batch, args.dtype)
    devices = f"{jax.device_count()} × {of.device.device_kind} ({of.device.platform})"
    setting = f"{devices}, JAX {jax.__version__}, {args.model}, batch {of.batch}, {args.dtype}, {args.repeats} turns"
    print(f"{setting}\n\n{turns.HEADER}", flush=True)
    records = []
    for name in args.rows:
        try:
            for row in ROWS[name](of, args):
                records.append({"row": name, **turns.record(row)})
                print(turns.markdown(row), flush=True)
        except turns.LeftOutError as reason:
            print(f"| {name} | left out: {reason} | | | |", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"setting": setting, "rows": records}, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
