"""UniPC: a predictor and a corrector of any order that need no further network call."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from diffjax.samplers.base import SAMPLERS
from diffjax.samplers.exponential import (
    check_choice,
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
def unipc(
    schedule: NoiseSchedule,
    grid: ArrayLike,
    *,
    order: int = 2,
    solver_type: str = "bh2",
    corrector: bool = True,
    disable_corrector: Sequence[int] = (),
    predict_x0: bool = True,
    lower_order_final: bool = True,
) -> Sampler:
    """Builds UniPC (Zhao et al. 2023, Alg. 5-8; diffusers' UniPCMultistepScheduler).

    The predictor of order p integrates the polynomial in λ through the last p predictions x̂0 (or ε̂); the corrector
    integrates that through the new one as well, and raises the order to p + 1. The new prediction is that of the next
    step's network call, so x is corrected when that step begins, and S steps make S calls:

        x_s = √(1-ᾱ_s)/√(1-ᾱ_t)·x_t + √ᾱ_s(1 - e^{-h})·Σ_k p_k·x̂0₍₋ₖ₎       (in ε̂: see `exponential`)
        corrected: x_s + √ᾱ_s(1 - e^{-h})·(Σ_k c_k·x̂0₍₋ₖ₎ - Σ_k p_k·x̂0₍₋ₖ₎),   with x̂0 of s among the former

    The first steps are of order 1, 2, …; a step to clean data is x_s = x̂0. The result of the last step is not
    corrected.

    Args:
      schedule: the noise schedule.
      grid: `[S+1]`, descending within -1 … T-1; with `predict_x0` False it must not begin at ᾱ = 0.
      order: the order p of the predictor, 1, 2 or 3.
      solver_type: the function B(h) of the paper, "bh1" (h) or "bh2" (e^h - 1), for the predictor of order 2 and the
        corrector of order 1, where it takes the place of the exact integral.
      corrector: whether x is corrected; without it this is UniP.
      disable_corrector: the steps, 0 … S-1, whose result is not corrected.
      predict_x0: whether the polynomial is through x̂0, and not through ε̂.
      lower_order_final: whether the last steps are of order …, 2, 1.

    Raises:
      ValueError: another order or solver type, a step out of range, or an invalid grid.
    """
    check_choice("order", order, (1, 2, 3))
    check_choice("solver_type", solver_type, ("bh1", "bh2"))
    levels, points = levels_and_lambda(schedule, grid, predict_x0=predict_x0)
    step = transfer(levels, predict_x0=predict_x0)
    num_steps = len(levels.t)
    for value in disable_corrector:
        if not 0 <= value < num_steps:
            raise ValueError(f"disable_corrector={value} is out of range: allowed is 0 … {num_steps - 1}, the steps")
    orders = [min(order, num_steps - i) if lower_order_final else order for i in range(num_steps)]
    predictor, change = np.zeros((num_steps, order)), np.zeros((num_steps, order + 1))
    for i, used in enumerate(usable_orders(points, orders)):
        start, end, calls = points[i], points[i + 1], points[np.arange(i, i - used, -1)]
        means = moments(step.y[i], used)
        if used == 2:
            means[1] = _half_b(step.y[i], solver_type)
        predictor[i, :used] = step.weight[i] * interpolation(calls, start, end, means)
        if corrector and i not in disable_corrector and np.isfinite(step.y[i]) and start != end:
            means = moments(step.y[i], used + 1)
            if used == 1:
                means[1] = _half_b(step.y[i], solver_type)
            weights = step.weight[i] * interpolation(np.append(calls, end), start, end, means)
            change[i, : used + 1] = np.roll(weights, 1)
            change[i, 1:] -= predictor[i]
    return table(levels, step, corrected(step, predictor, change), predict_x0=predict_x0)


def _half_b(y: float, solver_type: str) -> float:
    """Returns ½B(y)/(e^y - 1), which takes the place of M_1."""
    return 0.5 * y / np.expm1(y) if solver_type == "bh1" else 0.5
