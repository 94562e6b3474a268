"""Writes the network of a trained run as a folder that diffusers loads.

diffjax export --workdir runs/digits --out digits

    pipeline = diffusers.DDPMPipeline.from_pretrained("digits")  # or DDIMPipeline

With --push OWNER/NAME it is also uploaded to this repository of the Hugging Face hub, by the token of `hf auth login`.
"""

import argparse

from diffjax import interop, runs
from diffjax.cli import launch, options
from diffjax.errors import UserError, writing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    options.add_workdir(parser)
    parser.add_argument(
        "--out", required=True, type=options.local_path, help="the folder to write to; it must be new or empty"
    )
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload the folder to the Hugging Face hub, too")
    parser.add_argument("--private", action="store_true", help="make the repository, if it is new, a private one")
    options.add_parameters(parser)


def run(args: argparse.Namespace) -> None:
    """Loads the run, and writes the folder."""
    if args.private and args.push is None:
        raise UserError("--private has no effect without --push")
    launch.start()
    network = runs.load(args.workdir, ema=options.parameters(args))
    with writing(args.out):
        print(interop.export(args.out, network, push=args.push, private=args.private))
