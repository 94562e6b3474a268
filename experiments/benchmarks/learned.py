"""Measures learned samplers beside hand-made ones: grids of least cost, fitted tables, analytic variances.

    python experiments/benchmarks/learned.py --out learned.json --tables tables
    python experiments/benchmarks/learned.py --weights experiments/pretrained/fashion_mnist \
        --images fashion_mnist.npz --steps 5 --out fashion.json --tables fashion_tables

Writes the mean and the standard deviation over seeds of the Fréchet distance and of the unbiased kernel distance in
pixels. What is learned sees other noise (seeds from 1000 on) than the figures (seeds 0, 1, 2), and a fitted table is
chosen by its distance to a many-step solution, not by the figures. Figures that are in the output file already are not
measured again.
"""

import argparse
import json
import os
import time
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from solvers import features, real_images

import diffjax as dj
from diffjax import learn, samplers, timesteps
from diffjax.data.pixels import to_float, to_uint8
from diffjax.metrics.frechet import feature_distance
from diffjax.metrics.kernel import kernel_distance

FITTED = ("grid", *learn.COLUMNS)
TRAINING, HELD_OUT, COSTS = 1000, 1001, 1002  # the seeds of what is learned


class Subject:
    """A network, its data, and what is learned about it once."""

    def __init__(self, args):
        self.args, self.run = args, dj.interop.load(args.weights)
        self.schedule, self.predict, self.clip = self.run.schedule, self.run.predictor(), self.run.clip
        self.images = self._prepared(real_images(args.images))
        self.reference = features(self.images[: args.reference_num])
        self.total = self.schedule.num_timesteps

    @cached_property
    def few(self):
        """Real images in [-1, 1], and their keys, for the moments and costs."""
        few = np.random.default_rng(0).permutation(len(self.images))[: self.args.examples]
        return to_float(jnp.asarray(self.images[few])), dj.sample_keys(COSTS, 0, len(few))

    @cached_property
    def moments(self):
        """E‖ε̂‖² and the error of x̂0 by timestep."""
        with timed("moments"):
            return learn.moments(self.schedule, self.predict, *self.few, clip=self.clip)

    @cached_property
    def bound_costs(self):
        """(costs, None) of the variational bound."""
        errors = self.moments.x0_mse
        with timed("costs of the bound"):
            decoder = learn.decoder_terms(
                self.schedule, self.predict, *self.few, decoder_variance=errors, clip=self.clip
            ).decoder
            return learn.bound_costs(self.schedule, errors, decoder, variance="optimal"), None

    @cached_property
    def trajectory_costs(self):
        """(costs, grid) of the deviation from trajectories of many steps."""
        fine = learn.fine_grid(self.schedule)
        shape = self.run.image_shape
        with timed("costs of trajectories"):
            costs = learn.trajectory_costs(self.schedule, self.predict, self.few[1], shape, grid=fine, clip=self.clip)
            return costs, fine

    @cached_property
    def kl_costs(self):
        """(costs, grid) of the KL divergence of each step."""
        fine = learn.fine_grid(self.schedule)
        with timed("KL costs"):
            return learn.kl_costs(self.schedule, self.predict, *self.few, grid=fine, clip=self.clip), fine

    @cached_property
    def pairs(self):
        """Pairs of noise and result of a teacher of many steps."""
        return self._teacher(TRAINING, self.args.pairs)

    @cached_property
    def held_out(self):
        """Those by which a table is chosen."""
        return self._teacher(HELD_OUT, max(self.args.pairs // 4, 2))

    def _teacher(self, seed, count):
        with timed("teacher"):
            keys = dj.sample_keys(seed, 0, count)
            return learn.teacher(self.schedule, self.predict, keys, self.run.image_shape, clip=self.clip)

    def tables(self, steps):
        """Returns name → function that makes (table, facts) of every sampler in S steps."""
        schedule, total = self.schedule, self.total
        trailing, quadratic = timesteps.trailing(total, steps), timesteps.quadratic(total, steps)
        log_snr = timesteps.log_snr(schedule, steps, rounded=True)
        ddim = samplers.ddim(schedule, quadratic)
        made = {
            "DDIM, trailing": lambda: samplers.ddim(schedule, trailing),
            "DDIM, quadratic": lambda: ddim,
            "DPM-Solver++ 2, log_snr": lambda: samplers.dpm_solver_pp(schedule, log_snr),
            "UniPC 2, trailing": lambda: samplers.unipc(schedule, trailing),
            "UniPC 2, log_snr": lambda: samplers.unipc(schedule, log_snr),
            "LMS, trailing": lambda: samplers.lms(schedule, trailing),
            "DDPM fixed_small, quadratic": lambda: samplers.ddpm(schedule, quadratic),
            "DDPM fixed_large, quadratic": lambda: samplers.ddpm(schedule, quadratic, variance="fixed_large"),
            "DDPM analytic, quadratic": lambda: self.analytic(quadratic),
            "DDPM analytic, grid of the bound": lambda: self.analytic(_best(self.bound_costs, steps)),
            "DDIM, grid of the bound": lambda: samplers.ddim(schedule, _best(self.bound_costs, steps)),
            "DDIM, grid of the trajectory cost": lambda: samplers.ddim(schedule, _best(self.trajectory_costs, steps)),
            "DDIM, grid of the KL cost": lambda: samplers.ddim(schedule, _best(self.kl_costs, steps)),
            "DPM-Solver++ 2, grid of the trajectory cost": lambda: samplers.dpm_solver_pp(
                schedule, _best(self.trajectory_costs, steps)
            ),
        }
        makers = {name: lambda make=make: (make(), {}) for name, make in made.items()}
        free = {"free": FITTED, "num_history": 3}
        makers["DDIM, fitted grid"] = lambda: self.near(f"grid_{steps}", ddim, free=("grid",), learning_rate=0.05)
        makers["fitted table"] = lambda: self.near(f"table_{steps}", ddim, **free, learning_rate=0.02)
        unipc = samplers.unipc(schedule, trailing)
        makers["fitted table, from UniPC 2, trailing"] = lambda: self.near(
            f"unipc_{steps}", unipc, **free, learning_rate=0.005
        )
        if self.args.kernel:
            kernel = learn.kernel_distance(self.predict, self.reference, clip=self.clip, remat=False)
            makers["fitted table, kernel distance"] = lambda: self.fit(
                f"kernel_{steps}", ddim, kernel, self.pairs.x, self.held_out.x, **free, learning_rate=0.01,
                batch_size=256, num_steps=150,
            )  # fmt: skip
        return makers

    def analytic(self, grid):
        """Returns DDPM's sampler with analytic variances."""
        variances = learn.analytic_variances(self.schedule, grid, self.moments.eps_square)
        return learn.with_variances(samplers.ddpm(self.schedule, grid), variances)

    def near(self, name, table, **options):
        """Returns a table that is fitted to the results of the teacher, and facts about the fit."""
        loss = learn.distance(self.predict, clip=self.clip, remat=False)
        return self.fit(name, table, loss, self.pairs, self.held_out, schedule=self.schedule, **options)

    def fit(self, name, table, loss, data, held_out, **options):
        """Returns a fitted table, which it saves, and facts about the fit."""
        options = {"num_steps": self.args.updates, "batch_size": self.args.batch_size} | options
        before, start = os.times(), time.time()
        fitted = learn.fit(table, loss, data, held_out=held_out, **options)
        used = os.times()
        cpu = used.user + used.system - before.user - before.system
        facts = {"seconds": time.time() - start, "cpu_seconds": cpu, "before": fitted.start, "loss": fitted.loss}
        self.args.tables.mkdir(parents=True, exist_ok=True)
        network, pairs = self.args.weights.name, len(self.pairs.x)
        protocol = f"{network}: {pairs} pairs of a teacher of 100 steps, {options['num_steps']} updates"
        samplers.save_table(self.args.tables / f"{name}.json", fitted.table, protocol=protocol, **facts)
        return fitted.table, facts

    def measure(self, table):
        """Returns the mean and the standard deviation over seeds of both distances."""
        found = []
        for seed in self.args.seeds:
            batches = dj.sample_many(
                table, self.predict, self.run.image_shape, seed=seed, num=self.args.num, batch_size=250, clip=self.clip
            )
            samples = features(np.concatenate([np.asarray(to_uint8(x)) for _, x in batches]))
            distances = {"kernel": kernel_distance(samples, self.reference)}
            if self.args.num > samples.shape[1]:
                distances["frechet"] = feature_distance(samples, self.reference)
            found.append(distances)
        values = {name: [float(one[name]) for one in found] for name in found[0]}
        return {name: [float(np.mean(value)), float(np.std(value, ddof=1))] for name, value in values.items()}

    def _prepared(self, images):
        """Returns images with the black margin that makes them as large as the network's."""
        missing = self.run.image_shape[0] - images.shape[1]
        before = missing // 2
        return np.pad(images, ((0, 0), (before, missing - before), (before, missing - before), (0, 0)))


def _best(costs, steps):
    """Returns the grid of S steps with the least cost."""
    costs, grid = costs
    return learn.search(costs, steps, grid).grid


class timed:  # noqa: N801
    """Prints how long a block takes."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        self.start = time.time()

    def __exit__(self, *error):
        print(f"{self.name}: {time.time() - self.start:.0f} s", flush=True)


def main():
    """Measures all samplers at all numbers of steps, and writes the figures after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path(__file__).parents[1] / "pretrained" / "digits")
    parser.add_argument("--images", type=Path, help="an npz with x_train (default: the embedded digits)")
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 3, 8, 10])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--num", type=int, default=1000, help="samples of a seed")
    parser.add_argument("--reference-num", type=int, default=10_000, help="real images at most")
    parser.add_argument("--examples", type=int, default=250, help="real images of the moments and costs")
    parser.add_argument("--pairs", type=int, default=1024, help="pairs of the teacher that tables are fitted to")
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="the samplers that are measured (default: all)")
    parser.add_argument("--kernel", action="store_true", help="fit a table to the kernel distance too")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tables", type=Path, required=True, help="the folder of the fitted tables")
    args = parser.parse_args()
    subject, figures = Subject(args), json.loads(args.out.read_text()) if args.out.exists() else {}

    def add(name, steps, make):
        key = f"{name} | {steps}"
        if key in figures or (args.only is not None and name not in args.only):
            return
        table, facts = make()
        figures[key] = {"calls": table.num_rows, **subject.measure(table), **facts}
        print(key, figures[key], flush=True)
        args.out.write_text(json.dumps(figures, indent=1) + "\n")

    for name in ("trailing", "quadratic"):
        grid = getattr(timesteps, name)(subject.total, 20)
        add(f"DDIM, {name}", 20, lambda grid=grid: (samplers.ddim(subject.schedule, grid), {}))
    for steps in args.steps:
        for name, make in subject.tables(steps).items():
            add(name, steps, make)


if __name__ == "__main__":
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR"))
    main()
