"""ER-SDE-Solvers (Cui, Zhang, Bao & Liao 2025)."""

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from diffjax.samplers.base import SAMPLERS, levels_of
from diffjax.samplers.recorder import Call, Expression, Recorder
from diffjax.samplers.sigma_space import check_distinct, grid_levels
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler

_SCALINGS = {
    "ode": lambda sigma: sigma,
    "sde": lambda sigma: sigma**2,
    "er_sde_5": lambda sigma: sigma * (np.exp(sigma**0.3) + 10.0),
}
"""φ(σ) by name; that of "er_sde_5" is "ER SDE 5" of the paper and its code's default."""

_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(32)


@SAMPLERS.register
def er_sde(schedule: NoiseSchedule, grid: ArrayLike, *, order: int = 3, noise_scaling: str = "er_sde_5") -> Sampler:
    """Builds the ER-SDE-Solver of order 1, 2 or 3, one call a step, in x̄ = x/√ᾱ.

        x̄_s = r·x̄_t + (1 - r)·x̂0 + (h + φ_s·∫ 1/φ)·x̂0' + (½h² + φ_s·∫ (σ - σ̄_t)/φ)·x̂0'' + √(σ̄_s² - r²·σ̄_t²)·z
        r = φ_s/φ_t,     h = σ̄_s - σ̄_t,     integrals over σ from σ̄_s to σ̄_t

    x̂0' = (x̂0 - x̂0₍₋₁₎)/(σ̄ - σ̄₍₋₁₎) of the last two calls, x̂0'' = 2·(x̂0' - x̂0'₍₋₁₎)/(σ̄ - σ̄₍₋₂₎). φ(σ) sets how much
    noise a step adds. The first steps have order 1, 2; a step to clean data is x_s = x̂0. Since x̂0' is the slope between
    two calls, and not at the last, the error of the published order 3 falls as h², like that of order 2.

    (Cui, Zhang, Bao & Liao, "Elucidating the Solution Space of Extended Reverse-Time SDE for Diffusion Models",
    WACV 2025, arXiv:2309.06169: the "VE ER-SDE-Solvers", which in x̄ and σ̄ are its VP ones too; the authors' code,
    `er_sde_solver.py`, replaces the integrals by sums of 100 terms.)

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]` or real times, descending within -1 … T-1, without repeats.
      order: the number of calls that a step uses, 1, 2 or 3.
      noise_scaling: φ: "er_sde_5", σ·(exp(σ^0.3) + 10), the paper's; "sde", σ², the noise of the ancestral sampler; or
        "ode", σ, no noise. With order 1 the last two are `ddim` of η = 1 and 0.

    Raises:
      ValueError: another order or scaling, an invalid grid, one that repeats a time, or a level without signal.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"order={order} is not one of 1, 2, 3")
    if noise_scaling not in _SCALINGS:
        raise ValueError(f"noise_scaling={noise_scaling!r} is not one of {', '.join(map(repr, _SCALINGS))}")
    check_distinct(levels_of(schedule, grid))
    levels, dtype = grid_levels(schedule, grid)
    phi = _SCALINGS[noise_scaling]
    recorder, x = Recorder(), Recorder.start
    calls: list[Call] = []  # newest first
    for here, there in itertools.pairwise(levels):
        call = recorder.call(x, here)
        calls.insert(0, call)
        if there.noise == 0.0:
            x = there.signal * call.x0
            continue
        sigma, sigma_to = here.sigma_bar, there.sigma_bar
        ratio, h = phi(sigma_to) / phi(sigma), sigma_to - sigma
        x = ratio / here.signal * call.x + (1.0 - ratio) * call.x0
        x = x + np.sqrt(max(sigma_to**2 - (ratio * sigma) ** 2, 0.0)) * call.z
        used = min(order, len(calls))
        if used >= 2:
            slope = _slope(calls[0], calls[1])
            x = x + (h + phi(sigma_to) * _integral(phi, sigma_to, sigma, 0)) * slope
            if used == 3:
                span = 0.5 * (sigma - calls[2].level.sigma_bar)
                curvature = (slope - _slope(calls[1], calls[2])) / span
                x = x + (0.5 * h**2 + phi(sigma_to) * _integral(phi, sigma_to, sigma, 1)) * curvature
        x = there.signal * x
    return recorder.finish(x, levels[-1], dtype=dtype)


def _slope(newer: Call, older: Call) -> Expression:
    """Returns the difference of the x̂0 of two calls, divided by that of σ̄."""
    return (newer.x0 - older.x0) / (newer.level.sigma_bar - older.level.sigma_bar)


def _integral(phi: Callable[[np.ndarray], np.ndarray], low: float, high: float, power: int) -> float:
    """Returns ∫ (σ - high)^power/φ(σ) from `low` > 0 to `high`, by Gauss-Legendre quadrature in log σ."""
    middle, half = 0.5 * (np.log(low) + np.log(high)), 0.5 * (np.log(high) - np.log(low))
    sigma = np.exp(middle + half * _POINTS)
    return float(half * np.sum(_WEIGHTS * (sigma - high) ** power / phi(sigma) * sigma))
