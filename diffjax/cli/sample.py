"""Samples images from a trained run, with its EMA parameters, or from weights made elsewhere.

diffjax sample --workdir runs/digits --sampler ddim --steps 50 --eta 0.0 --num 64 --seed 0 --out FOLDER
diffjax sample --weights FOLDER_OR_FILE --out FOLDER

Writes grid.png (the first samples) and samples.npz (arr_0, uint8 [num, H, W, C], as evaluators expect; for a network
with classes also arr_1, the labels). Batches are kept in FOLDER/parts until all are done, so that the same command
resumes after an interruption.

Weights are a diffusers folder, or a file of pesser's, ermongroup's, OpenAI's, abarankab's or Janspiry's (SR3) code;
--option sets what a file does not contain, as in --option diffusion_steps=4000,noise_schedule=cosine.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from diffjax import interop, viz
from diffjax.cli import launch, options
from diffjax.data.image_files import read_image
from diffjax.data.images import convert_channels, scale
from diffjax.data.pixels import to_float, to_uint8
from diffjax.errors import UserError, naming, writing
from diffjax.files import write_arrays
from diffjax.noise import sample_keys
from diffjax.runs import resolve, sample_parts, saved
from diffjax.runs.run import Run, of_config
from diffjax.runs.sample_parts import Parts
from diffjax.tasks.base import TASKS
from diffjax.tasks.previews import grid
from diffjax.training.lock import locked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", type=options.path, help="a folder that `diffjax train` has written")
    source.add_argument("--weights", type=options.local_path, help="a diffusers folder, or a file of PyTorch weights")
    parser.add_argument(
        "--out", type=options.path, help="folder to write to (default: WORKDIR/samples; ./samples for weights)"
    )
    parser.add_argument("--num", type=options.positive, default=64, help="the number of images (default: 64)")
    parser.add_argument("--seed", type=options.seed, default=0, help="the seed of the noise (default: 0)")
    parser.add_argument("--batch-size", type=options.positive, default=64, help="images at a time (default: 64)")
    options.add_parameters(parser)
    parser.add_argument(
        "--label", type=_labels, metavar="K[,K…]", help="the classes, in turn (default: all classes in turn)"
    )
    weights = parser.add_argument_group("weights", "for --weights alone")
    weights.add_argument("--option", action="append", default=[], metavar="NAME=VALUE,…", help="what the file omits")
    weights.add_argument("--image-size", type=options.positive, help="height and width, where the file does not say")
    weights.add_argument(
        "--image", type=options.local_path, help="the condition image (SR3), scaled to the size bicubically"
    )
    options.add_sampling(parser)
    launch.add_flags(parser)


def run(args: argparse.Namespace) -> None:
    """Samples images, and writes them."""
    size = min(args.batch_size, args.num)
    launch.start(**launch.processes(args), batch_size=size)
    out = options.output_folder(args.out or (args.workdir or Path()) / "samples")
    network, identity = _from_workdir(args) if args.workdir else _from_weights(args)
    labels = network.labels(args.num, args.label)
    condition = _condition(args.image, network) if args.weights else None
    if not network.task.is_conditional:
        network.predictor(**network.task.labels(np.zeros(1, int)))
    identity |= {"parameters": sample_parts.digest(network.params)}
    identity |= {"label": args.label, "seed": args.seed, "num": args.num, "batch_size": size}
    parts = Parts(out / "parts", identity)
    with locked(out, flag="--out"), writing(out):
        _sample(network, args, condition, size, parts)
        if jax.process_index() == 0:
            _write(out, parts.load(range(0, args.num, size)), labels, args.label or network.task.num_classes)
            parts.remove()


def _sample(network: Run, args: argparse.Namespace, condition: np.ndarray | None, size: int, parts: Parts) -> None:
    """Samples the batches that are missing, each process its own, and returns when all are there."""
    if jax.process_index() == 0:
        parts.claim()
    _wait("the parts belong to this run")
    done = parts.done(range(jax.process_index() * size, args.num, jax.process_count() * size))
    for start, images in _batches(network, args, condition, size, done):
        parts.save(start, images)
    _wait("every process has written its parts")


def _write(out: Path, images: np.ndarray, labels: np.ndarray | None, classes: list[int] | int | None) -> None:
    """Writes the grid and the arrays, and prints their paths."""
    columns = len(classes) if isinstance(classes, list) else classes
    print(viz.save_png(out / "grid.png", grid(images, columns)))
    arrays = {"arr_0": images} | ({} if labels is None else {"arr_1": labels})
    print(write_arrays(out / "samples.npz", **arrays))


def _wait(message: str) -> None:
    """Waits until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(message)


def _batches(network: Run, args: argparse.Namespace, condition: np.ndarray | None, size: int, skip: set[int]):
    """Yields (index of the first sample, images uint8 `[≤ size, H, W, C]`)."""
    if condition is None:
        yield from network.batches(
            args.num, seed=args.seed, label=args.label, batch_size=size, skip=skip, progress=True
        )
        return
    restore = network.restorer(progress=True)
    for start in range(jax.process_index() * size, args.num, jax.process_count() * size):
        if start not in skip:
            repeated = np.repeat(condition[None], size, axis=0)
            yield start, to_uint8(restore(repeated, sample_keys(args.seed, start, size)))[: args.num - start]


def _from_workdir(args: argparse.Namespace) -> tuple[Run, dict[str, Any]]:
    """Returns the newest checkpoint of a training run, and the facts that identify its samples."""
    for name in ("option", "image_size", "image"):
        if getattr(args, name) not in (None, []):
            raise UserError(f"--{name.replace('_', '-')} goes with --weights")
    config = options.sampling(args, saved.load(args.workdir))
    if TASKS[config.task.name].is_conditional:
        raise UserError(f"--workdir={args.workdir}: this run restores images: use `diffjax restore`")
    network = of_config(config, args.workdir, ema=options.parameters(args))
    identity = {
        "workdir": str(args.workdir.resolve()),
        "step": network.step,
        "ema": network.ema,
        "sample": resolve.to_dict(config.sample),
    }
    return network, identity


def _from_weights(args: argparse.Namespace) -> tuple[Run, dict[str, Any]]:
    """Returns imported weights, and the facts that identify their samples."""
    if args.ema is not None:
        raise UserError("--ema goes with --workdir: a file of weights holds one average at most (--raw: none)")
    given: dict[str, Any] = {}
    for text in args.option:
        given |= options.literals("--option", text)
    given |= {"ema": False} if args.raw else {}
    given |= {"image_size": args.image_size} if args.image_size else {}
    loaded = interop.load(args.weights, **given)
    changed = options.sample_options(args, loaded.config)
    if changed.get("sampler") == loaded.config.sample.sampler:
        del changed["sampler"]  # another one comes with the options that its authors prefer
    network = loaded.with_options(**changed)
    if bool(args.image) != network.task.is_conditional:
        takes = "a" if network.task.is_conditional else "no"
        raise UserError(f"--image: this network takes {takes} condition image")
    identity = {
        "weights": str(args.weights.resolve()),
        "options": given,
        "image": str(args.image),
        "sample": resolve.to_dict(network.config.sample),
    }
    return network, identity


def _condition(path: Path | None, network: Run) -> np.ndarray | None:
    """Returns a picture as float32 `[H, W, C]` in [-1, 1], at the network's size; None without a path."""
    if path is None:
        return None
    height, width, channels = network.image_shape
    with naming("--image"):
        image = convert_channels(read_image(path), channels)
    return np.asarray(to_float(scale(image, (height, width), "bicubic")))


def _labels(text: str) -> list[int]:
    try:
        return [int(label) for label in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be whole numbers, as in 3 or 0,1,2") from None
