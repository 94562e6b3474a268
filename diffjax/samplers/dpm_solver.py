"""DPM-Solver++."""

import numpy as np
from numpy.typing import ArrayLike

from diffjax.samplers.base import SAMPLERS, descending, sigma_bar
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler, one_call_a_step


@SAMPLERS.register
def dpm_solver_pp(schedule: NoiseSchedule, grid: ArrayLike, *, order: int = 2) -> Sampler:
    """Builds the multistep DPM-Solver++ in x̂0 (Lu et al. 2022), of order 1 or 2 ("2M", Alg. 2).

        x_s = √(1-ᾱ_s)/√(1-ᾱ_t)·x_t + √ᾱ_s(1 - e^{-h})·D,     λ = log(√ᾱ/√(1-ᾱ)),  h = λ_s - λ_t
        D = x̂0 (order 1);   D = (1 + 1/2r)·x̂0 - 1/2r·x̂0₍₋₁₎,  r = h₍₋₁₎/h (order 2)

    The first step is of order 1, and so is a step to clean data, where h is infinite and x_s = x̂0.

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]`, descending within -1 … T-1.
      order: the order of the method, 1 or 2.

    Raises:
      ValueError: another order, or an invalid grid.
    """
    if order not in (1, 2):
        raise ValueError(f"order={order} is not one of 1, 2")
    levels = descending(schedule, grid)
    noise_ratio = np.sqrt((1.0 - levels.ab_s) / (1.0 - levels.ab_t))
    weight = np.sqrt(levels.ab_s) - np.sqrt(levels.ab_t) * noise_ratio
    if order == 1:
        return one_call_a_step(levels, a=noise_ratio, b=weight)
    finite = levels.s != -1
    with np.errstate(divide="ignore", invalid="ignore"):
        h = np.log(sigma_bar(levels.ab_t)) - np.log(sigma_bar(levels.ab_s))
        half_over_r = np.where(finite, 0.5 * h / np.append(np.inf, h[:-1]), 0.0)
    # A repeated index is a step of h = 0, which allows no extrapolation.
    half_over_r = np.where(np.isfinite(half_over_r), half_over_r, 0.0)
    return one_call_a_step(
        levels, a=noise_ratio, b=weight * (1.0 + half_over_r), x0_history=-(weight * half_over_r)[:, None]
    )
