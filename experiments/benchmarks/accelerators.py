"""What fits where: the memory of a training step of each config on a TPU, by images a device, without a TPU.

python experiments/benchmarks/accelerators.py --configs cifar10 lsun --topology v5e:2x2 --out accelerators.json

Compiles each step for two numbers of images a device (`--shares`): the peak is nearly linear in their number, so both
give the largest batch of a device. Finished configs in `--out` are not compiled again.
"""

import argparse
import json
from pathlib import Path

import jax

from diffjax.errors import UserError
from diffjax.runs import config_files, dry_run, resolve
from diffjax.runs.chips import CHIPS

CONFIGS = ("digits", "fashion_mnist", "cifar10", "cifar10_iddpm", "celeba64", "imagenet64", "lsun", "sr3_faces_16_128")
SHOWN = ("TPU v5 lite", "TPU v6 lite", "TPU v5")


def main():
    """Compiles what is not in the file yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=CONFIGS)
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--shares", type=int, nargs=2, default=(4, 8), help="images a device")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    devices = dry_run.topology(args.topology)
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    for name in args.configs:
        for share in args.shares:
            key = f"{name} {share}"
            if key in found:
                continue
            fields = {"train.batch_size": share * len(devices), "model.dtype": args.dtype}
            try:
                config = resolve.override(resolve.resolve(config_files.load(name)), fields)
                found[key] = dry_run.read(dry_run.training(config, devices))._asdict()
            except UserError as error:
                found[key] = {"error": str(error)}
            print(key, found[key], flush=True)
            args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found, args.configs, args.shares))


def table(found, configs, shares) -> str:
    """Returns the table in Markdown: memory without images, memory of an image, and the largest batch of each chip."""
    low, high = shares
    lines = ["| config | without images | an image | " + " | ".join(CHIPS[kind].name for kind in SHOWN) + " |"]
    lines.append("|---" * (3 + len(SHOWN)) + "|")
    for name in configs:
        a, b = found[f"{name} {low}"], found[f"{name} {high}"]
        if "error" in a or "error" in b:
            lines.append(f"| {name} | {a.get('error') or b.get('error')} |")
            continue
        image = (b["peak"] - a["peak"]) / (high - low)
        fixed = a["peak"] - low * image
        most = [int((CHIPS[kind].memory - fixed) / image) for kind in SHOWN]
        cells = [f"{fixed / 2**20:.0f} MiB", f"{image / 2**20:.3g} MiB", *map(str, most)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
