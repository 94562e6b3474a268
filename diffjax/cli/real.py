"""Adds and reads the arguments of commands that measure a network on real images: --num, --split, --data."""

import argparse

import ml_collections
import numpy as np

from diffjax.cli import options
from diffjax.errors import UserError
from diffjax.runs import build, real_images
from diffjax.tasks.base import Task


def add_images(parser: argparse.ArgumentParser, *, split: str = "held_out", num: int | None = None) -> None:
    """Adds `--num`, and `--split` or `--data`.

    Args:
      parser: the parser of a command.
      split: the default of `--split`.
      num: the default of `--num`, if there are more images; None: all.
    """
    parser.add_argument(
        "--num", type=options.positive,
        help=f"the number of images, from the first (default: {'all' if num is None else f'{num}, or all'})",
    )  # fmt: skip
    images = parser.add_mutually_exclusive_group()
    images.add_argument(
        "--split", choices=("held_out", "train"), default=split,
        help=f"which part of the run's own images (default: {split})",
    )  # fmt: skip
    options.add_data(images)
    parser.set_defaults(most=num)


def generating_task(args: argparse.Namespace, config: ml_collections.ConfigDict) -> Task:
    """Returns the task of a run that generates images.

    Raises:
      UserError: an invalid config, or a run that restores images.
    """
    task = build.task(config)
    if task.is_conditional:
        raise UserError(
            f"--workdir={args.workdir}: this run restores images; this command needs a run that generates them"
        )
    return task


def images(args: argparse.Namespace, config: ml_collections.ConfigDict, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images, uint8 `[N, H, W, C]`, and their labels, int32 `[N]`.

    Raises:
      UserError: no such images or fewer than `--num`, one that cannot be read, or labels that the network lacks.
    """
    found = build.images(options.data(args, config))
    source = found.held_out if args.split == "held_out" and not args.data else found.source
    if not len(source):
        raise UserError(
            "--split=held_out: config.data.holdout is 0, so there are no such images; --split=train takes those "
            "trained on, and --data others"
        )
    num = args.num or min(len(source), args.most or len(source))
    if not 2 <= num <= len(source):
        raise UserError(f"--num={num} must be within 2 … {len(source)}, the number of images")
    build.check_labels(found, task)
    return real_images.read(source, found.prepare, num)


def description(args: argparse.Namespace) -> str:
    """Returns which images were chosen, for a protocol."""
    return ", ".join(args.data) or args.split
