"""DEIS: exponential Adams-Bashforth methods."""

import numpy as np
from numpy.typing import ArrayLike

from diffjax.samplers.base import SAMPLERS
from diffjax.samplers.dpm_solver import final_orders
from diffjax.samplers.exponential import (
    check_choice,
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
def deis(
    schedule: NoiseSchedule,
    grid: ArrayLike,
    *,
    order: int = 2,
    predict_x0: bool = False,
    lower_order_final: bool = False,
) -> Sampler:
    """Builds DEIS (Zhang & Chen 2023, Eq. 15), whose polynomial is in log ρ, ρ = σ̄ ("ρAB" in log ρ).

        x_s = √ᾱ_s·(x_t/√ᾱ_t + Σ_k C_k·ε̂₍₋ₖ₎),     C_k = ∫ from ρ_t to ρ_s of ∏_{j≠k} log(ρ/ρ_j)/log(ρ_k/ρ_j) dρ

    Since log ρ = -λ, this is the exponential Adams-Bashforth method with the exact integral of the polynomial in λ
    through the last ε̂ (diffusers' DEISMultistepScheduler with "logrho"). With `predict_x0` the polynomial is through
    x̂0, as in DPM-Solver++. The first steps are of order 1, 2, …, and a step to clean data is x_s = x̂0.

    Args:
      schedule: the noise schedule.
      grid: `[S+1]`, descending within -1 … T-1; with `predict_x0` False it must not begin at ᾱ = 0.
      order: the order of the method, 1 … 4.
      predict_x0: whether the polynomial is through x̂0, and not through ε̂.
      lower_order_final: whether, on a grid of fewer than 15 steps, the last step is of order 1 and the one before it of
        at most 2 (diffusers).

    Raises:
      ValueError: another order, or an invalid grid.
    """
    check_choice("order", order, (1, 2, 3, 4))
    levels, points = levels_and_lambda(schedule, grid, predict_x0=predict_x0)
    step = transfer(levels, predict_x0=predict_x0)
    weights = np.zeros((len(levels.t), order))
    orders = final_orders(order, len(levels.t), lower_order_final=lower_order_final)
    for i, used in enumerate(usable_orders(points, orders)):
        calls = np.arange(i, i - used, -1)
        p = interpolation(points[calls], points[i], points[i + 1], moments(step.y[i], used))
        weights[i, :used] = step.weight[i] * p
    return table(levels, step, weights, predict_x0=predict_x0)
