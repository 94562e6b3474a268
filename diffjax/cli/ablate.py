"""Computes a sweep: figures for every combination of the axes of a config.

diffjax ablate --config ablations/ddim_table1 --workdir runs/digits --out sweeps/table1 [--config.num=500 …]
diffjax ablate --config ablations/schedules --out sweeps/schedules
diffjax ablate --config my_sweep.py --workdir runs/digits --out sweeps/mine --shard 0/4

Writes a file for each cell under FOLDER/cells as it is done, and from these table.csv, table.md, curves, a map and the
first images of each cell. The same command resumes a sweep that was stopped, and computes no finished cell again. With
--shard k/n it computes only every n-th cell, so that the tasks of a job array, or several processes, share one --out.

What a cell sets depends on config.kind:
  quality         fields of config.sample, num and ema_decay; samples are measured against real images
  bits            the same, for the sampler ddpm; the variational bound in bits/dim
  reconstruction  num_steps; the error of encoding and decoding images
  training        fields of the config that config.base names; each cell is trained in FOLDER/runs, then measured
  distillation    the same for students of fewer and fewer steps, each the teacher of the next
or it is the import path of your own kind.
"""

import argparse

from diffjax.cli import launch, options
from diffjax.sweeps.compute import compute
from diffjax.sweeps.config import SWEEP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    options.add_config(parser, "the sweep")
    options.add_workdir(parser, required=False)
    parser.add_argument(
        "--out", type=options.local_path, required=True, help="the folder of the sweep; made if it does not exist"
    )
    parser.add_argument(
        "--shard", default="0/1", metavar="k/n", help="only every n-th cell, from cell k = 0 … n-1 (default: all)"
    )


def run(args: argparse.Namespace) -> None:
    """Computes what is missing, and writes the tables of all cells that are done."""
    launch.start()
    written = compute(options.config(args, schema=SWEEP), out=args.out, workdir=args.workdir, shard=args.shard)
    if written.num_done:
        print((args.out / "table.md").read_text())
        print(*written.paths, sep="\n")
    if missing := written.num_cells - written.num_done:
        print(f"{missing} of {written.num_cells} cells are still to be computed")
