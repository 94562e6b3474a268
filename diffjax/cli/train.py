"""Trains the experiment of a config; running the same command again resumes from the last checkpoint.

diffjax train --config digits --workdir runs/digits [--config.train.steps=2000 …]
diffjax train --config my_configs/faces.py --workdir runs/faces
diffjax train --help-config            # all fields: types, ranges, defaults

Writes checkpoints, metrics.jsonl, TensorBoard event files and pictures under WORKDIR.
"""

import argparse
import sys

import jax

from diffjax.cli import launch, options
from diffjax.runs import reference
from diffjax.runs.train import train


class _HelpConfig(argparse.Action):
    """Prints the fields of a config and exits."""

    def __call__(self, parser, namespace, values, option_string=None):
        print(reference.text())
        sys.exit(0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    options.add_config(parser, "the experiment")
    parser.add_argument(
        "--workdir", type=options.path, required=True, help="the folder of the run; made if it does not exist"
    )
    parser.add_argument("--profile", action="store_true", help="write a trace of a few steps to WORKDIR/profile")
    parser.add_argument("--help-config", action=_HelpConfig, nargs=0, help="list all fields of a config, and exit")
    launch.add_flags(parser)


def run(args: argparse.Namespace) -> None:
    """Trains, and prints the paths of the final pictures."""
    config = options.config(args)
    share = config.train.batch_size // config.train.grad_accumulation_steps
    launch.start(**launch.processes(args), batch_size=share)
    state = train(config, args.workdir, profile=args.profile)
    if jax.process_index() != 0:
        return
    if (step := int(state.step)) < config.train.steps:
        print(f"stopped after step {step}, which is saved; the same command resumes from there")
        return
    print(*sorted(args.workdir.glob("*.png")), sep="\n")
