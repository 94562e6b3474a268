"""Compares methods of posterior sampling with exact posteriors: a table of method × distance for each problem.

python experiments/benchmarks/posteriors.py [--num 4000] [--steps 100] [--out figures.json]

The data are Gaussian mixtures, so that the network is exact and the posterior known: what is measured is the method's
own bias. Float64. Each distance stands beside that of exact samples of the same number, the floor, and that of the
posterior's own network in the same steps of DDPM, which is the sampler's error.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import diffjax as dj
from diffjax import editing, inverse, samplers, schedules, timesteps
from diffjax.data import degradations
from diffjax.inverse import operators

IMAGE = (8, 8, 1)
METHODS = (
    "exact network",
    "ddnm",
    "ddnm_plus",
    "ddrm",
    "pigdm",
    "pigdm, published",
    "mmps",
    "diffpir",
    "dps",
    "twisted",
    "repaint",
)
FIGURES = ("mean", "covariance", "modes", "sliced")


class Problem(NamedTuple):
    """A prior, a measurement of one sample of it, and its exact posterior."""

    data: inverse.GaussianMixture
    operator: inverse.Operator
    y: np.ndarray
    noise_std: float

    @property
    def exact(self) -> inverse.GaussianMixture:
        """The exact posterior."""
        return self.data.posterior(self.operator, self.y, self.noise_std)


def problems() -> dict[str, Problem]:
    """Returns the problems by name: one Gaussian under three operators, and two mixtures of four modes."""
    kernel = degradations.kernel(degradations.Degradation("gaussian", 0.7))
    four_images = _images(modes=4)
    corners = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    plane = inverse.GaussianMixture.of([0.4, 0.3, 0.2, 0.1], corners, np.stack([np.diag([0.05, 0.02])] * 4))
    known = np.arange(64).reshape(IMAGE) % 8 < 4
    masked = _measured(_images(modes=1), operators.mask(known), 0.1)
    return {
        "Gaussian, mask": masked._replace(y=np.where(known, masked.y, 0.0)),
        "Gaussian, blur": _measured(_images(modes=1), operators.blur(IMAGE, kernel), 0.1),
        "Gaussian, downsampling": _measured(_images(modes=1), operators.downsampling(IMAGE, 2), 0.1),
        "four modes in 2-D": Problem(plane, operators.matrix([[1.0, 0.2]], (2,)), np.array([0.4]), 0.5),
        "four modes, downsampling": _measured(four_images, operators.downsampling(IMAGE, 4), 0.5),
    }


def _images(modes: int) -> inverse.GaussianMixture:
    """Returns images of smooth modes, each with a covariance of rank 6 and a little white noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:8, 0:8] / 8
    waves = np.stack([np.cos(np.pi * (i * y + j * x)).ravel() for i in range(3) for j in range(2)], axis=1)
    means = rng.normal(size=(modes, 6)) @ waves.T * 0.25
    factors = waves @ (rng.normal(size=(modes, 6, 6)) * 0.25)
    return inverse.GaussianMixture.of(
        np.arange(modes) + 1.0, means, factors @ factors.swapaxes(1, 2) + 0.01 * np.eye(64), IMAGE
    )


def _measured(data: inverse.GaussianMixture, operator: inverse.Operator, noise_std: float) -> Problem:
    y = np.asarray(operator(data.sample(jax.random.key(1), 1)))[0]
    return Problem(data, operator, y + noise_std * np.random.default_rng(1).normal(size=y.shape), noise_std)


def run(problem: Problem, method: str, *, num: int, steps: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Samples a posterior by a method: samples `[num, N]` and their weights `[num]`."""
    data, operator, y, std = problem
    schedule = schedules.linear(1000, beta_start=1e-4, beta_end=0.02)
    grid = timesteps.trailing(1000, steps)
    network, keys = data.predict(schedule), dj.sample_keys(seed, 0, num)
    ys = jnp.broadcast_to(y, (num, *y.shape))
    ddpm = samplers.ddpm(schedule, grid)
    ddim = samplers.ddim(schedule, grid, rederive_eps=False)
    if method == "twisted":
        found = inverse.twisted(
            ddpm, network, operator, y[None], jax.random.key(seed), noise_std=std, num_particles=num
        )
        return np.asarray(found.x[0]).reshape(num, -1), np.asarray(found.weights[0])
    if method == "repaint":
        table = editing.resampled(schedule, ddpm, jump=10, times=10)
        known = np.asarray(operator(np.ones((1, *operator.image_shape)))).astype(bool)
        return _flat(editing.inpaint(schedule, table, network, ys, known, keys))
    sampler, predict = {
        "exact network": lambda: (ddpm, problem.exact.predict(schedule)),
        "ddnm": lambda: (samplers.ddim(schedule, grid, eta=0.85), inverse.ddnm(network, schedule, operator, ys)),
        "ddnm_plus": lambda: (ddim, inverse.ddnm_plus(network, ddim, operator, ys, keys, noise_std=std)),
        "ddrm": lambda: (ddim, inverse.ddrm(network, ddim, operator, ys, keys, noise_std=std, eta_b=0.8)),
        "pigdm": lambda: (ddpm, inverse.pigdm(network, schedule, operator, ys, noise_std=std)),
        "pigdm, published": lambda: (
            ddpm, inverse.pigdm(network, schedule, operator, ys, noise_std=std, published=True)
        ),
        "mmps": lambda: (ddpm, inverse.mmps(network, schedule, operator, ys, noise_std=std, iterations=16)),
        "diffpir": lambda: (
            samplers.ddim(schedule, grid, sigma=inverse.diffpir_noise(schedule, grid)),
            inverse.diffpir(network, schedule, operator, ys, noise_std=std),
        ),
        "dps": lambda: (ddpm, inverse.dps(network, ddpm, operator, ys, scale=0.3)),
    }[method]()  # fmt: skip
    x = dj.initial_noise(keys, operator.image_shape, jnp.float64)
    return _flat(dj.sample(sampler, predict, x, keys if sampler.is_stochastic else None))


def _flat(x: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Returns samples `[num, …]` as `[num, N]`, and equal weights."""
    return np.asarray(x).reshape(len(x), -1), np.full(len(x), 1.0 / len(x))


def methods_of(name: str) -> tuple[str, ...]:
    """Returns the methods that a problem is solved by: RePaint takes masks alone."""
    return tuple(method for method in METHODS if method != "repaint" or name == "Gaussian, mask")


def figures(problem: Problem, x: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Returns the distances of weighted samples from the exact posterior.

    mean: ‖difference‖/√trace(C); covariance: ‖difference‖/‖C‖ (Frobenius), C the exact covariance; modes: half the sum
    of the differences of the modes' shares; sliced: the mean over 100 directions of the Wasserstein-1 distance to exact
    samples, over √(trace(C)/N).
    """
    exact = problem.exact
    mean, covariance = exact.mean(), exact.covariance()
    offsets = x - weights @ x
    shares = weights @ np.asarray(exact.shares(x, 1e-4))
    others = np.asarray(exact.sample(jax.random.key(9), len(x))).reshape(len(x), -1)
    return {
        "mean": float(np.linalg.norm(weights @ x - mean) / np.sqrt(np.trace(covariance))),
        "covariance": float(
            np.linalg.norm((offsets * weights[:, None]).T @ offsets - covariance) / np.linalg.norm(covariance)
        ),
        "modes": float(np.abs(shares - exact.weights).sum() / 2),
        "sliced": sliced_wasserstein(x, weights, others) / float(np.sqrt(np.trace(covariance) / x.shape[1])),
    }


def sliced_wasserstein(x: np.ndarray, weights: np.ndarray, others: np.ndarray, directions: int = 100) -> float:
    """Returns the mean Wasserstein-1 distance of projections of weighted `x` and of `others`, both `[n, N]`."""
    from scipy.stats import wasserstein_distance

    axes = np.random.default_rng(2).normal(size=(x.shape[1], directions))
    axes /= np.linalg.norm(axes, axis=0)
    pairs = zip((x @ axes).T, (others @ axes).T, strict=True)
    return float(np.mean([wasserstein_distance(a, b, weights) for a, b in pairs]))


def rows(num: int, steps: int) -> Iterator[dict[str, object]]:
    """Yields a row for each problem and method, the floor of exact samples first."""
    for name, problem in problems().items():
        x = np.asarray(problem.exact.sample(jax.random.key(3), num)).reshape(num, -1)
        yield {"problem": name, "method": "exact samples"} | figures(problem, x, np.full(num, 1.0 / num))
        for method in methods_of(name):
            yield {"problem": name, "method": method} | figures(problem, *run(problem, method, num=num, steps=steps))


def main() -> None:
    """Prints the table, and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=4000, help="samples, or particles, of each posterior")
    parser.add_argument("--steps", type=int, default=100, help="steps of each run")
    parser.add_argument("--out", type=Path, help="a JSON file for the rows")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    found, problem = [], None
    for row in rows(options.num, options.steps):
        if row["problem"] != problem:
            problem = row["problem"]
            print(f"\n{problem}\n\n| method | {' | '.join(FIGURES)} |\n|---{'|---' * len(FIGURES)}|")
        print(f"| {row['method']} | {' | '.join(f'{row[name]:.3f}' for name in FIGURES)} |", flush=True)
        found.append(row)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
