"""Makes one self-contained HTML page of a training run or of a sweep, pictures included.

diffjax report --workdir runs/digits [--steps 100 --eta 1 …]
diffjax report --sweep sweeps/table1

Writes WORKDIR/report.html (or --out), and the pictures of a run also as files, into the folder of that name without
the suffix. The page has the figures that `diffjax evaluate` and `diffjax likelihood` left in the workdir, the loss over
steps and over timesteps, and the schedule. With the EMA parameters of the newest checkpoint it shows samples, a
denoising trajectory in 16×16 frames and animated, images of the same noise in several numbers of steps, an
interpolation between four noises, and the training images nearest to samples; for a run that restores images, it shows
restored images instead.
"""

import argparse
import shlex
import sys
from pathlib import Path

from diffjax import report
from diffjax.cli import launch, options
from diffjax.errors import UserError, writing
from diffjax.files import write
from diffjax.runs import saved
from diffjax.runs.run import of_config

_COUNTS = (10, 20, 50, 100, 1000)
_OF_RUN = ("num", "seed", "counts", "frames", "images", "searched", "extractor")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    source = parser.add_mutually_exclusive_group(required=True)
    options.add_workdir(source, required=False)
    source.add_argument("--sweep", type=options.local_path, help="a folder that `diffjax ablate` has written")
    parser.add_argument(
        "--out",
        type=options.path,
        help="the .html page (default: report.html in the folder); pictures go to a folder of its name",
    )
    run = parser.add_argument_group("run", "for --workdir alone")
    run.add_argument("--num", type=options.positive, default=64, help="samples in the grid (default: 64)")
    run.add_argument("--seed", type=options.seed, default=0, help="the seed of the noise (default: 0)")
    run.add_argument(
        "--counts", type=options.positive, nargs="+", default=list(_COUNTS), metavar="S",
        help=f"the numbers of steps that start from the same noise (default: {' '.join(map(str, _COUNTS))})",
    )  # fmt: skip
    run.add_argument(
        "--frames", type=options.positive, default=256, help="frames of the denoising trajectory (default: 256)"
    )
    run.add_argument(
        "--images", type=options.positive, default=256, help="real images on which the loss is measured (default: 256)"
    )
    run.add_argument(
        "--searched", type=options.positive, default=10_000,
        help="the largest number of training images that are searched for neighbours (default: 10000)",
    )  # fmt: skip
    run.add_argument(
        "--extractor", default="pixels", metavar="NAME",
        help="pixels, a classifier's .safetensors file, Inception's .pth file, or an import path (default: pixels)",
    )  # fmt: skip
    options.add_sampling(parser)


def run(args: argparse.Namespace) -> None:
    """Samples, and writes the page."""
    launch.start()
    out = options.output_file(args.out or (args.workdir or args.sweep) / "report.html", ".html")
    with writing(out):
        text = _of_workdir(args, options.output_folder(out.with_suffix(""))) if args.workdir else _of_sweep(args)
        print(write(out, text))


def _of_workdir(args: argparse.Namespace, folder: Path) -> str:
    config = options.sampling(args, saved.load(args.workdir))
    given = {name: getattr(args, name) for name in _OF_RUN}
    return report.of_run(of_config(config, args.workdir), folder, command=_command(), **given)


def _of_sweep(args: argparse.Namespace) -> str:
    for name in ("sample", *options.SAMPLE_FLAGS):
        if getattr(args, name) not in (None, []):
            raise UserError(f"--{name} goes with --workdir: the report of a sweep samples nothing")
    return report.of_sweep(args.sweep)


def _command() -> str:
    """Returns the command line that is running."""
    argv = sys.argv[1:]
    return shlex.join(["diffjax", "report", *(argv[1:] if argv[:1] == ["report"] else argv)])
