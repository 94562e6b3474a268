"""Measures the order of each solver that adds no noise: the slope of its error over the number of steps.

    python experiments/benchmarks/orders.py

The data are a mixture of four Gaussians in the plane, whose ε̂ is known, and the steps are equal in log-SNR from σ̄ = 20
to 0.1, in float64. The error is the largest difference from the exact flow, and the slope that of a line through 60,
120, 240 and 480 steps, both in logarithms. Multistep methods of order 3 and more, whose first steps have order 1, 2, …,
are also measured with order - 2 short steps before the equal ones, of length h^{order/2} (`graded`), so that the start
does not hide their order.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import diffjax as dj
from diffjax import process, samplers, schedules, timesteps

SIGMA_MAX, SIGMA_MIN, STD = 20.0, 0.1, 0.4
COUNTS = (60, 120, 240, 480)
MODES = np.array([[0.7, 0.7], [0.7, -0.7], [-0.7, 0.7], [-0.7, -0.7]])
WEIGHTS = np.array([0.4, 0.3, 0.2, 0.1])
SCHEDULE = schedules.linear()

_MULTISTEP = ("lms", "deis", "unipc")

FULL = {"lower_order_final": False}
Make = Callable[..., dj.Sampler]
SOLVERS: dict[str, tuple[Make, int]] = {
    "ddim": (samplers.ddim, 1),
    "probability_flow": (samplers.probability_flow, 1),
    "euler": (samplers.euler, 1),
    "heun": (samplers.heun, 2),
    "dpm2": (samplers.dpm2, 2),
    "dpm_solver_pp_2s_ancestral, eta=0": (partial(samplers.dpm_solver_pp_2s_ancestral, eta=0.0), 2),
    "dpm_solver_pp_sde, eta=0": (partial(samplers.dpm_solver_pp_sde, eta=0.0), 2),
    **{f"lms, order={k}": (partial(samplers.lms, order=k), k) for k in (1, 2, 3, 4)},
    "plms, order=2": (partial(samplers.plms, order=2), 2),
    "plms": (samplers.plms, 2),
    "pndm": (samplers.pndm, 2),
    **{f"dpm_solver, order={k}": (partial(samplers.dpm_solver, order=k, **FULL), min(k, 2)) for k in (1, 2, 3)},
    **{f"dpm_solver_pp, order={k}": (partial(samplers.dpm_solver_pp, order=k, **FULL), min(k, 2)) for k in (1, 2, 3)},
    **{
        f"{name}, order={k}": (partial(getattr(samplers, name), order=k, **FULL), k)
        for name in ("dpm_solver_singlestep", "dpm_solver_pp_singlestep")
        for k in (2, 3)
    },
    **{
        f"unipc, order={k}{', corrector=False' * (not corrector)}": (
            partial(samplers.unipc, order=k, corrector=corrector, **FULL),
            k + corrector,
        )
        for corrector in (False, True)
        for k in (1, 2, 3)
    },
    **{f"deis, order={k}": (partial(samplers.deis, order=k), k) for k in (1, 2, 3, 4)},
    **{f"deis, order={k}, predict_x0": (partial(samplers.deis, order=k, predict_x0=True), k) for k in (2, 3)},
    "sa_solver, tau=0": (partial(samplers.sa_solver, tau=0.0, **FULL), 2),
    "sa_solver, tau=0, corrector_order=3": (partial(samplers.sa_solver, tau=0.0, corrector_order=3, **FULL), 3),
    **{
        f"er_sde, order={k}, noise_scaling=ode": (partial(samplers.er_sde, order=k, noise_scaling="ode"), min(k, 2))
        for k in (1, 2, 3)
    },
}
"""Name → (the solver, the order that its paper or its docstring gives)."""


@jax.tree_util.Partial
def mixture_eps(x: jax.Array, t: jax.Array) -> jax.Array:
    """Returns E[ε | x_t] of the mixture, `[B, 2]`."""
    signal, noise = process.scales_at(SCHEDULE, x, t)
    variance = signal**2 * STD**2 + noise**2
    distance = x[:, None] - signal[:, None] * MODES
    share = jax.nn.softmax(jnp.log(WEIGHTS) - 0.5 * jnp.sum(distance**2, -1) / variance, -1)
    return noise / variance * jnp.sum(share[..., None] * distance, 1)


def grid(count: int, order: int, *, graded: bool) -> timesteps.Grid:
    """Returns the grid of `count` equal steps in log-SNR, after order - 2 short ones if it is graded."""
    lam = np.linspace(np.log(SIGMA_MAX), np.log(SIGMA_MIN), count + 1)
    short = lam[0] - (lam[0] - lam[1]) ** (order / 2) * np.arange(1, max(order - 1, 1)) if graded else []
    return timesteps.from_sigmas(SCHEDULE, np.exp(np.concatenate([lam[:1], short, lam[1:]])))


def slope(make: Make, order: int, exact: np.ndarray, x: np.ndarray, *, graded: bool = False) -> float:
    """Returns the slope of a solver's error."""
    errors = []
    for count in COUNTS:
        table = make(SCHEDULE, grid(count, order, graded=graded))
        errors.append(np.max(np.abs(np.asarray(dj.sample(table, mixture_eps, x)) - exact)))
    return float(-np.polyfit(np.log2(COUNTS), np.log2(errors), 1)[0])


def main():
    """Prints the table."""
    jax.config.update("jax_enable_x64", True)
    x = np.random.default_rng(0).normal(size=(16, 2))
    best = samplers.unipc(SCHEDULE, grid(6000, 3, graded=False), order=3, **FULL)
    exact = np.asarray(dj.sample(best, mixture_eps, x))
    print("| solver | order | slope | slope, graded |\n|---|---|---|---|")
    for name, (make, order) in SOLVERS.items():
        plain = slope(make, order, exact, x)
        graded = f"{slope(make, order, exact, x, graded=True):.2f}" if order > 2 and name.startswith(_MULTISTEP) else ""
        print(f"| `{name}` | {order} | {plain:.2f} | {graded} |", flush=True)


if __name__ == "__main__":
    main()
