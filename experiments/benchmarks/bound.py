"""Measures the variational bound of few steps with grids of dynamic programming and optimal variances, in bits/dim.

    diffjax train --config digits --workdir runs/hybrid --config.train.vlb_weight=0.001 --config.data.holdout=0.2
    diffjax moments --workdir runs/hybrid --num 500
    python experiments/benchmarks/bound.py --workdir runs/hybrid

Prints a table, mean ± standard error over held-out images. The moments, of training images, choose the grids and the
variances; the bound is that of images held out of training.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np

import diffjax as dj
from diffjax import learn, timesteps
from diffjax.likelihood import mean_and_error
from diffjax.runs import build, real_images


def main():
    """Prints the bound by variance, grid and number of steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--moments", type=Path, help="the file of `diffjax moments` (default: WORKDIR/moments.json)")
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 25, 50])
    parser.add_argument("--num", type=int, default=200, help="held-out images")
    args = parser.parse_args()
    run = dj.runs.load(args.workdir)
    schedule, found = run.schedule, build.images(run.config)
    moments = learn.load_moments(args.moments or args.workdir / "moments.json", schedule)
    images = real_images.read(found.held_out, found.prepare, args.num)
    bound = partial(real_images.bound, run, *images, clip=run.clip)

    def even(steps):
        return timesteps.linspace(schedule.num_timesteps, steps)

    def best(steps):
        costs = learn.bound_costs(schedule, moments.x0_mse, moments.decoder, variance="optimal")
        return learn.search(costs, steps).grid

    names = ["fixed_small", "fixed_large", *(["learned_range"] if run.task.predicts_variance else [])]
    print("| variance | grid | " + " | ".join(map(str, args.steps)) + " |")
    print("|---" * (2 + len(args.steps)) + "|")
    for variance in [*names, "analytic", "optimal"]:
        for grid, make in (("even", even), ("best", best)):
            cells = []
            for steps in args.steps:
                points = make(steps)
                value = variance if variance in names else variances(schedule, points, moments, variance)
                terms = bound(variance=value, indices=points[-2::-1]).total
                mean, error = mean_and_error(terms)
                cells.append(f"{mean:.3f} ± {error:.3f}")
            print(f"| {variance} | {grid} | " + " | ".join(cells) + " |", flush=True)


def variances(schedule, grid, moments, name):
    """Returns the variances of a grid's steps from the last one up: that of the decoder, then those of the chain.

    "analytic" is that of Analytic-DPM, from E‖ε̂‖²; "optimal" the one that makes each term of the bound least, from the
    error of x̂0.
    """
    if name == "analytic":
        steps = learn.analytic_variances(schedule, grid, moments.eps_square)[:-1]
    else:
        ab_t, ab_s = schedule.alpha_bars[grid[:-2]], schedule.alpha_bars[grid[1:-1]]
        large = 1.0 - ab_t / ab_s
        error = ab_s * (large / (1.0 - ab_t)) ** 2 * moments.x0_mse[grid[:-2]]
        steps = (1.0 - ab_s) / (1.0 - ab_t) * large + error
    return np.append(moments.x0_mse[grid[-2]], steps[::-1])


if __name__ == "__main__":
    main()
