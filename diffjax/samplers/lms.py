"""The linear multistep method in the noise level."""

import numpy as np
from numpy.typing import ArrayLike

from diffjax.samplers.base import SAMPLERS, descending, sigma_bar
from diffjax.samplers.sigma_space import check_distinct
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler, one_call_a_step


@SAMPLERS.register
def lms(schedule: NoiseSchedule, grid: ArrayLike, *, order: int = 4) -> Sampler:
    """Builds the linear multistep method in x̄ = x/√ᾱ and σ̄ (k-diffusion's `sample_lms`, diffusers' `LMSDiscrete`).

        x̄_s = x̄_t + Σ_k w_k·ε̂₍₋ₖ₎,     w_k = ∫_{σ̄_t}^{σ̄_s} Π_{j≠k} (σ - σ̄₍₋ⱼ₎)/(σ̄₍₋ₖ₎ - σ̄₍₋ⱼ₎) dσ

    This is Adams-Bashforth on any grid: ε̂ is extrapolated by Lagrange's polynomial through the last calls, whose
    integrals are exact. The first steps have order 1, 2, 3; order 1 is `ddim(eta=0)`. A first level without signal
    (ᾱ = 0), where σ̄ is infinite, is left by a step of order 1 and is no node of later ones.

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]` or real times, descending within -1 … T-1, without repeats.
      order: the number of calls that a step uses, 1 … 4.

    Raises:
      ValueError: another order, an invalid grid, or one that repeats a time.
    """
    if order not in (1, 2, 3, 4):
        raise ValueError(f"order={order} is not one of 1, 2, 3, 4")
    levels = descending(schedule, grid)
    check_distinct(levels)
    with np.errstate(divide="ignore"):
        sigmas = sigma_bar(np.append(levels.ab_t, levels.ab_s[-1]))
    weights = np.zeros((len(levels.t), order))
    for i in range(len(levels.t)):
        nodes = sigmas[max(i + 1 - order, 0) : i + 1][::-1]
        finite = nodes[np.isfinite(nodes)]
        if len(finite) > 1:
            weights[i, : len(finite)] = _integrals(finite, sigmas[i], sigmas[i + 1])
    history = np.sqrt(levels.ab_s)[:, None] * weights[:, 1:]
    # The weights add up to σ̄_s - σ̄_t, and x̄_t = x̂0 + σ̄_t·ε̂.
    return one_call_a_step(
        levels, b=np.sqrt(levels.ab_s), c=np.sqrt(1.0 - levels.ab_s) - np.sum(history, axis=1), eps_history=history
    )


def _integrals(nodes: np.ndarray, start: float, end: float) -> np.ndarray:
    """Returns the integral from `start` to `end` of each Lagrange polynomial of up to 4 nodes."""
    points, weights = np.polynomial.legendre.leggauss(2)  # exact up to degree 3
    sigma = 0.5 * (start + end) + 0.5 * (end - start) * points
    integrals = []
    for k, node in enumerate(nodes):
        others = np.delete(nodes, k)
        factors = (sigma[:, None] - others) / (node - others)
        integrals.append(0.5 * (end - start) * np.sum(weights * np.prod(factors, axis=1)))
    return np.array(integrals)
