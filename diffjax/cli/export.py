"""Writes the network of a trained run as a folder that diffusers loads.

diffjax export --workdir runs/digits --out digits

    pipeline = diffusers.DDPMPipeline.from_pretrained("digits")  # or DDIMPipeline
"""

import argparse

from diffjax import interop, runs
from diffjax.cli import launch, options
from diffjax.errors import writing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    options.add_workdir(parser)
    parser.add_argument(
        "--out", required=True, type=options.local_path, help="the folder to write to; it must be new or empty"
    )
    options.add_parameters(parser)


def run(args: argparse.Namespace) -> None:
    """Loads the run, and writes the folder."""
    launch.start()
    network = runs.load(args.workdir, ema=options.parameters(args))
    with writing(args.out):
        print(interop.export(args.out, network))
