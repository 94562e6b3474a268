"""Compiles an experiment for a TPU that need not be there: says what its programs need, and how fast they can be.

diffjax compile-for --config cifar10 --topology v5e:2x2
diffjax compile-for --config cifar10 --topology v5p:2x2x1 --config.train.batch_size=512 --what train --largest-batch

The topology is a generation and the shape of a slice: v2:2x2, v3:2x2, v4:2x2x1, v5e:2x4, v5p:2x2x1, v6e:16x16. It needs
libtpu (pip install '.[tpu]'), no TPU and no data. "local" compiles for the devices of this machine, such as its GPUs.

Figures are of one device and one training step, or one network call of the sampler. Bytes moved are those between
main memory and the core; XLA's own count (bytes_accessed in the JSON file) also has what stays in on-chip memory. The
least time takes the chip's published peaks of arithmetic, memory and links, whichever takes longest; a real run is
slower.
"""

import argparse
import json

import jax

from diffjax.cli import options
from diffjax.errors import UserError, writing
from diffjax.files import write
from diffjax.runs import dry_run
from diffjax.runs.chips import Chip
from diffjax.runs.dry_run import Cost

WHAT = ("train", "sample")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    options.add_config(parser, "the experiment")
    parser.add_argument("--topology", required=True, metavar="NAME", help="a TPU slice, as in v5e:2x4, or local")
    parser.add_argument(
        "--what", default=",".join(WHAT), metavar="NAMES", help="train, sample or train,sample (default: both)"
    )
    parser.add_argument("--num", type=options.positive, default=512, help="images to sample (default: 512)")
    parser.add_argument(
        "--largest-batch",
        action="store_true",
        help="also estimate the largest batch that can be trained; compiles again",
    )
    parser.add_argument("--out", type=options.path, metavar="FILE", help="write the figures to this JSON file too")


def run(args: argparse.Namespace) -> None:
    """Compiles, and prints a table of each program."""
    config = options.config(args)
    what = args.what.split(",")
    if unknown := [name for name in what if name not in WHAT]:
        raise UserError(f"--what: {unknown[0]!r} must be one of {', '.join(map(repr, WHAT))}")
    out = None if args.out is None else options.output_file(args.out)
    if args.topology != "local":
        jax.config.update("jax_platforms", "cpu")  # libtpu finds no TPU here
    devices = dry_run.topology(args.topology)
    if "sample" in what and args.num % len(devices):
        raise UserError(f"--num={args.num} must be a multiple of the {len(devices)} devices")
    chip, found = dry_run.chip(devices), {}
    for name in what:
        images = config.train.batch_size if name == "train" else args.num
        lowered = dry_run.training(config, devices) if name == "train" else dry_run.sampling(config, devices, args.num)
        cost = dry_run.read(lowered)
        if name == "train":
            cost = cost.times(config.train.grad_accumulation_steps)
        found[name] = record(cost, chip, images)
        if name == "train" and args.largest_batch:
            if chip is None:
                raise UserError(f"--largest-batch: the memory of {devices[0].device_kind} is not known")
            found[name]["largest_batch"] = dry_run.largest_batch(config, devices, cost, chip.memory)
        title = f"{name}: {args.config}, {images} images on {len(devices)} × {devices[0].device_kind}"
        print(f"{title}, {config.model.get('dtype', 'float32')}", *lines(name, found[name], chip), sep="\n  ")
    if out is not None:
        facts = {"config": args.config, "topology": args.topology, "devices": len(devices)}
        with writing(out):
            write(out, json.dumps(facts | found, indent=1) + "\n")
        print(out)


def record(cost: Cost, chip: Chip | None, images: int) -> dict:
    """Returns the figures of a program, for JSON."""
    figures = cost._asdict() | {"images": images, "exchanged": cost.exchanged}
    figures["collectives"] = {kind: {"count": n, "bytes": size} for kind, (n, size) in cost.collectives.items()}
    if chip is not None:
        least = cost.bound(chip)
        figures |= {f"{resource}_seconds": seconds for resource, seconds in least._asdict().items()}
        figures |= {"least_seconds": least.seconds, "limit": least.limit}
    return figures


def lines(name: str, figures: dict, chip: Chip | None) -> list[str]:
    """Returns the figures of a program as lines of text."""
    exchanges = [f"{one['count']} {kind} ({_bytes(one['bytes'])})" for kind, one in figures["collectives"].items()]
    flops, moved = figures["flops"], figures["bytes_moved"]
    of = "" if chip is None else f" of {_bytes(chip.memory)}"
    text = [
        f"compiled in {figures['compile_seconds']:.0f} s",
        f"memory: arguments {_bytes(figures['arguments'])}, temporaries {_bytes(figures['temporaries'])}, "
        f"peak {_bytes(figures['peak'])}{of}",
        f"work: {flops / 1e9:.4g} GFLOP, {moved / 1e9:.4g} GB moved, {flops / max(moved, 1):.3g} FLOP a byte",
        f"instructions: {figures['copies']} copies, {figures['transposes']} transposes",
        f"exchanges: {', '.join(exchanges) or 'none'}",
    ]
    if chip is not None:
        seconds = figures["least_seconds"]
        least = f"least time: {1e3 * seconds:.3g} ms, limited by {figures['limit']}"
        rate = f", at most {figures['images'] / seconds:.3g} images/s" if name == "train" else " a network call"
        text.append(least + rate)
    if "largest_batch" in figures:
        text.append(f"largest batch: about {figures['largest_batch']}")
    return text


def _bytes(count: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count:.0f} B"
