"""One HTML page of a training run, or of a sweep, that needs nothing else: pictures are in it, it can be mailed.

python experiments/report.py --workdir runs/digits
python experiments/report.py --sweep sweeps/table1

Writes `WORKDIR/report.html` (or --out), and the pictures of a run also as files, into `WORKDIR/report`. Figures that
evaluate.py and likelihood.py have left in the workdir are on it; the pictures are drawn anew, with the
EMA parameters of the newest checkpoint: the losses over steps and over timesteps, the schedule, samples, a denoising
run in 16×16 frames and animated, one noise in several numbers of steps, images between four noises, and the training
images nearest to samples.
"""

import argparse
import shlex
import sys
from pathlib import Path

from diffjax import launch, report
from diffjax.errors import writing
from diffjax.viz.pixels import whole


def main() -> None:
    """Parses the command line, draws, writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    of = parser.add_mutually_exclusive_group(required=True)
    of.add_argument("--workdir", type=Path, help="a folder that train.py has written")
    of.add_argument("--sweep", type=Path, help="a folder that ablate.py has written")
    parser.add_argument("--out", type=Path, help="the page; a run's pictures go into the folder of that name")
    run = parser.add_argument_group("run", "for --workdir alone")
    run.add_argument("--num", type=int, default=64, help="samples in the grid")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--steps", type=int, nargs="+", default=[10, 20, 50, 100, 1000], help="S of the consistency strip")
    run.add_argument("--frames", type=int, default=256, help="of the denoising strips")
    run.add_argument("--images", type=int, default=256, help="real images, by which the loss is measured")
    run.add_argument("--searched", type=int, default=10_000, help="training images searched for neighbours, at most")
    run.add_argument("--extractor", default="pixels", help="pixels, a classifier's .safetensors, Inception's .pth")
    args = vars(parser.parse_args())
    with launch.reporting():
        launch.start()
        workdir, sweep, out = args.pop("workdir"), args.pop("sweep"), args.pop("out")
        out = out or (workdir or sweep) / "report.html"
        with writing(out):
            if workdir:
                command = shlex.join(["python", "experiments/report.py", *sys.argv[1:]])
                text = report.of_workdir(workdir, out.with_suffix(""), command=command, **args)
            else:
                text = report.of_sweep(sweep)
            with whole(out) as part:
                part.write_text(text, encoding="utf-8")
        print(out)


if __name__ == "__main__":
    main()
