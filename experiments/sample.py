"""Samples from a trained workdir, with its EMA parameters.

python experiments/sample.py --workdir runs/digits --sampler ddim --steps 50 --eta 0.0 --num 64 --seed 0 --out FOLDER

Writes `grid.png` (the first 64) and `samples.npz` (`images`, uint8 [num, H, W, C], as evaluators take them).
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from diffjax import models, viz
from diffjax.errors import UserError
from diffjax.tasks import generation
from diffjax.training import setup
from diffjax.training.checkpoints import Checkpoints


def main() -> None:
    """Parses the command line, samples, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="a folder that train.py has written")
    parser.add_argument("--out", type=Path, help="folder to write to (default: WORKDIR/samples)")
    parser.add_argument("--num", type=int, default=64, help="how many images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--raw", action="store_true", help="the parameters themselves, not their EMA")
    sampler = parser.add_argument_group("sampler", "what is not given is as the config has it")
    sampler.add_argument("--sampler", choices=setup.SAMPLERS)
    sampler.add_argument("--steps", type=int)
    sampler.add_argument("--grid", choices=setup.GRIDS)
    sampler.add_argument("--eta", type=float, help="of ddim, in [0, 1]")
    sampler.add_argument("--variance", choices=("fixed_small", "fixed_large"), help="of ddpm")
    args = parser.parse_args()
    try:
        run(args)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(args: argparse.Namespace) -> None:
    """Samples as `args` ask.

    Raises:
      UserError: a workdir or a value that cannot be.
    """
    for name in ("num", "batch_size"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')}={getattr(args, name)} must be ≥ 1")
    config = setup.load_config(args.workdir)
    given = {name: getattr(args, name) for name in ("sampler", "steps", "grid", "eta", "variance")}
    if args.sampler not in (None, config.sample.sampler):
        # Another sampler does not take over the knobs of the config's own.
        config.sample.update({"eta": None, "variance": None})
    config.sample.update({name: value for name, value in given.items() if value is not None})
    experiment = setup.experiment(config)
    with Checkpoints(args.workdir) as checkpoints:
        params = checkpoints.restore_params(experiment.params_shape, ema=not args.raw)
    predict = models.predictor(experiment.model, params)
    batches = generation.generate(
        experiment.steps,
        predict,
        experiment.image_shape,
        seed=args.seed,
        num=args.num,
        batch_size=min(args.batch_size, args.num),
        progress=True,
    )
    images = np.concatenate(list(batches))
    out = args.out or Path(args.workdir) / "samples"
    print(viz.save_png(out / "grid.png", viz.grid(images[:64], columns=8)))
    np.savez_compressed(out / "samples.npz", images=images)
    print(out / "samples.npz")


if __name__ == "__main__":
    main()
