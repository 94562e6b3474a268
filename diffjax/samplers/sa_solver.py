"""SA-Solver: a stochastic Adams method with a predictor and a corrector."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from diffjax.samplers.base import SAMPLERS
from diffjax.samplers.exponential import (
    check_choice,
    check_eta,
    corrected,
    interpolation,
    levels_and_lambda,
    moments,
    table,
    transfer,
    usable_orders,
)
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler


@SAMPLERS.register
def sa_solver(
    schedule: NoiseSchedule,
    grid: ArrayLike,
    *,
    predictor_order: int = 2,
    corrector_order: int = 2,
    tau: float = 1.0,
    tau_interval: Sequence[float] | None = None,
    predict_x0: bool = True,
    lower_order_final: bool = True,
) -> Sampler:
    """Builds SA-Solver (Xue et al. 2023, Alg. 1; diffusers' SASolverScheduler).

        x_s = e^{-τ²h}·√(1-ᾱ_s)/√(1-ᾱ_t)·x_t + √ᾱ_s(1 - e^{-(1+τ²)h})·Σ_k p_k·x̂0₍₋ₖ₎ + √(1-ᾱ_s)·√(1 - e^{-2τ²h})·z

    The predictor (stochastic Adams-Bashforth) integrates the polynomial in λ through the last predictions x̂0, the
    corrector (Adams-Moulton) that through the new one and those before it. Both have the same z, so the corrector only
    changes the sum of predictions; that happens in the row of the next network call, and S steps make S calls. With two
    predictions both use the weight h/2 of the authors' code in place of the exact integral, for x̂0 only. The first
    steps are of lower order; a step to clean data is x_s = x̂0.

    Args:
      schedule: the noise schedule.
      grid: `[S+1]`, descending within -1 … T-1; with `predict_x0` False it must not begin at ᾱ = 0.
      predictor_order: the number of predictions of the predictor, 1 … 4.
      corrector_order: the number of predictions of the corrector, the new one among them, 1 … 4; 0: no corrector.
      tau: the amount of noise τ ≥ 0: 0 is the ODE, 1 the SDE of the forward process.
      tau_interval: (lowest, highest) time from which steps add noise; other steps have τ = 0. None: all do. diffusers'
        default is (200, 800).
      predict_x0: whether the polynomials are through x̂0, and not through ε̂.
      lower_order_final: whether the last steps are of order …, 2, 1.

    Raises:
      ValueError: another order, τ < 0, an interval that is not two ascending numbers, or an invalid grid.
    """
    check_choice("predictor_order", predictor_order, (1, 2, 3, 4))
    check_choice("corrector_order", corrector_order, (0, 1, 2, 3, 4))
    check_eta("tau", tau)
    levels, points = levels_and_lambda(schedule, grid, predict_x0=predict_x0)
    eta = tau**2 * _within(tau_interval, levels.t)
    step = transfer(levels, predict_x0=predict_x0, eta=eta)
    num_steps = len(levels.t)
    left = num_steps - np.arange(num_steps)
    orders = np.minimum(predictor_order, left) if lower_order_final else np.full(num_steps, predictor_order)
    # The corrector uses this many predictions besides the new one.
    others = np.minimum(corrector_order, left + 1) if lower_order_final else np.full(num_steps, corrector_order)
    orders, others = usable_orders(points, orders.tolist()), usable_orders(points, (others - 1).tolist())
    width = max(predictor_order, corrector_order - 1)
    predictor, change = np.zeros((num_steps, width)), np.zeros((num_steps, width + 1))
    for i, (used, before) in enumerate(zip(orders, others, strict=True)):
        start, end, calls = points[i], points[i + 1], points[i - np.arange(max(used, before))]
        means = _moments(step.y[i], used, predict_x0)
        predictor[i, :used] = step.weight[i] * interpolation(calls[:used], start, end, means)
        if corrector_order and np.isfinite(step.y[i]) and start != end:
            means = _moments(step.y[i], before + 1, predict_x0)
            weights = step.weight[i] * interpolation(np.append(calls[:before], end), start, end, means)
            change[i, : before + 1] = np.roll(weights, 1)
            change[i, 1:] -= predictor[i]
    return table(levels, step, corrected(step, predictor, change), predict_x0=predict_x0)


def _moments(y: float, count: int, predict_x0: bool) -> np.ndarray:
    """Returns the moments; with two predictions x̂0, ½h in place of the integral of the linear part."""
    means = moments(y, count)
    if count == 2 and predict_x0:
        means[1] = 0.5 * y / np.expm1(y)
    return means


def _within(interval: Sequence[float] | None, t: np.ndarray) -> np.ndarray:
    """Returns 1 for the steps that add noise and 0 for the others."""
    if interval is None:
        return np.ones(len(t))
    if len(interval) != 2 or not interval[0] <= interval[1]:
        raise ValueError(f"tau_interval={tuple(interval)} must be two numbers, the lowest time and the highest")
    return np.where((t >= interval[0]) & (t <= interval[1]), 1.0, 0.0)
