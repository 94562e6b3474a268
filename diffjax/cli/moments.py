"""Estimates once what optimal samplers need to know of a trained network, by timestep, and saves it with the run.

diffjax moments --workdir runs/digits
diffjax sample --workdir runs/digits --sampler analytic --sample path=runs/digits/moments.json --steps 10

Writes WORKDIR/moments.json, or --out: for each of the T timesteps the mean over images and its standard error of
  eps_square   E‖ε̂‖²/d: the sampler `analytic` makes of it the optimal variance of every step of any grid
  x0_mse       the squared error of x̂0, and
  decoder      -log P(x_0 | x_t) in bits/dim of a last step from t: `learn.bound_costs` makes of both the variational
               bound of every grid, and `learn.search` finds the best one
Calls the network 2·T times for every image. The noise of image n is that of sample n of the seed, so figures do not
depend on the batch size.
"""

import argparse

from diffjax.cli import launch, options, real
from diffjax.errors import writing
from diffjax.runs import real_images, saved
from diffjax.runs.run import of_config
from diffjax.samplers import save_moments

_MOST = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    options.add_workdir(parser)
    real.add_images(parser, split="train", num=_MOST)
    options.add_parameters(parser)
    parser.add_argument("--batch-size", type=options.positive, default=100, help="images at a time (default: 100)")
    parser.add_argument("--seed", type=options.seed, default=0, help="the seed of the noise (default: 0)")
    parser.add_argument("--out", type=options.path, help="the JSON file (default: WORKDIR/moments.json)")


def run(args: argparse.Namespace) -> None:
    """Estimates the moments, and writes them."""
    launch.start()
    out = options.output_file(args.out or args.workdir / "moments.json")
    config = saved.load(args.workdir)
    task = real.generating_task(args, config)
    images, labels = real.images(args, config, task)
    network = of_config(config, args.workdir, ema=options.parameters(args))
    found = real_images.moments(
        network, images, labels, clip=task.clip, batch_size=args.batch_size, seed=args.seed, progress=True
    )
    protocol = (
        f"{found.num} images ({real.description(args)}), {network.parameters} parameters at step {network.step}, "
        f"T = {task.schedule.num_timesteps}, x̂0 clipped, one noise sample per timestep, seed {args.seed}"
    )
    with writing(out):
        save_moments(out, task.schedule, found, protocol)
    print(out)
