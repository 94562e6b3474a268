"""Euler's and Heun's methods of Karras et al. 2022, with the noise that their Alg. 2 adds between steps ("churn")."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from diffjax.samplers.base import SAMPLERS, check_signal, leaves_noise, levels_of, sigma_bar
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Levels, Sampler, interleave, one_call_a_step

_MOST = np.sqrt(2.0) - 1.0
"""The largest γ of Alg. 2."""


@SAMPLERS.register
def euler(
    schedule: NoiseSchedule,
    grid: ArrayLike,
    *,
    churn: float = 0.0,
    churn_sigma_min: float = 0.0,
    churn_sigma_max: float | None = None,
    churn_noise: float = 1.0,
) -> Sampler:
    """Builds Euler's method in x̄ = x/√ᾱ and σ̄ with churn (Karras et al. 2022, Alg. 2 with Euler's steps).

        σ̂_t = (1 + γ)·σ̄_t,     γ = min(S_churn/S, √2 - 1) if S_tmin ≤ σ̄_t ≤ S_tmax, else 0
        x̂ = x̄_t + √(σ̂_t² - σ̄_t²)·S_noise·z,     x̄_s = x̂ + (σ̄_s - σ̂_t)·ε̂(x̂, t̂)

    Without churn this is `ddim(eta=0)`, and without churn but with ancestral noise `ddim(eta=1)`. The network is called
    at x̂, so the noise before a call is that of the row before; before the first call it is part of x, which starts as
    noise at the level σ̂ of the table's first row. σ̂ is at most the largest level of the schedule; on a grid of whole
    timesteps it is that of the nearest timestep, as in the authors' code.

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]` or real times, within -1 … T-1, descending or, without churn, ascending to encode.
      churn: S_churn ≥ 0, the amount of noise that is added over all steps.
      churn_sigma_min: S_tmin, the lowest level σ̄ at which noise is added.
      churn_sigma_max: S_tmax, the highest such level; None: no limit.
      churn_noise: S_noise, the factor of the added noise; slightly above 1 makes up for detail that is lost.

    Raises:
      ValueError: a negative option, S_tmin > S_tmax, churn on a grid that ascends, or an invalid grid.
    """
    levels = levels_of(schedule, grid)
    raised = _churned(schedule, levels, churn, churn_sigma_min, churn_sigma_max)
    after, scale, noise = _after(levels, raised, churn_noise)
    table = one_call_a_step(raised, b=scale * np.sqrt(levels.ab_s), c=scale * np.sqrt(1.0 - levels.ab_s), d=noise)
    return _leading_to(table, after)


@SAMPLERS.register
def heun(
    schedule: NoiseSchedule,
    grid: ArrayLike,
    *,
    churn: float = 0.0,
    churn_sigma_min: float = 0.0,
    churn_sigma_max: float | None = None,
    churn_noise: float = 1.0,
) -> Sampler:
    """Builds Heun's method for the probability-flow ODE in (x̄, σ̄) (Karras et al. 2022, Alg. 1; with churn, Alg. 2).

        x̄' = x̄_t + h·ε̂(x̄_t, t),     x̄_s = x̄_t + h·½(ε̂(x̄_t, t) + ε̂(x̄', s)),     h = σ̄_s - σ̄_t

    The second row starts from x̄': x̄_s = x̄' + h/2·(ε̂' - ε̂). A step to clean data is Euler's, so S steps down to -1 make
    2S - 1 network calls. A step from a level of almost no signal, over which √ᾱ grows more than 20-fold, is Euler's
    too, because the second row would multiply ε̂' - ε̂ by half that factor: so begins a cosine schedule at T-1, and
    every grid whose first level is ᾱ = 0. With churn, each step starts from the raised level σ̂_t of `euler`, which says
    what the options do.

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]` or real times, within -1 … T-1, descending or, without churn, ascending to encode.
      churn: S_churn ≥ 0, the amount of noise that is added over all steps.
      churn_sigma_min: S_tmin, the lowest level σ̄ at which noise is added.
      churn_sigma_max: S_tmax, the highest such level; None: no limit.
      churn_noise: S_noise, the factor of the added noise; slightly above 1 makes up for detail that is lost.

    Raises:
      ValueError: a negative option, S_tmin > S_tmax, churn on a grid that ascends, an invalid grid, or a step to ᾱ = 0.
    """
    levels = levels_of(schedule, grid)
    check_signal(levels.ab_s)
    raised = _churned(schedule, levels, churn, churn_sigma_min, churn_sigma_max)
    after, scale, noise = _after(levels, raised, churn_noise)
    corrected = (levels.s != -1) & ~leaves_noise(levels.ab_t, levels.ab_s)
    only = np.where(corrected, 1.0, scale)
    predict = one_call_a_step(
        raised,
        b=only * np.sqrt(levels.ab_s),
        c=only * np.sqrt(1.0 - levels.ab_s),
        d=np.where(corrected, 0.0, noise),
        lands=~corrected,
        num_eps_history=1,
    )
    stage = Levels(levels.s, levels.s, levels.ab_s, levels.ab_s)
    predict = _leading_to(
        predict, Levels(*(np.where(corrected, one, other) for one, other in zip(stage, after, strict=True)))
    )
    with np.errstate(divide="ignore"):  # no row is made of a step from ᾱ = 0
        half = scale * (0.5 * np.sqrt(levels.ab_s) * (sigma_bar(levels.ab_s) - sigma_bar(raised.ab_t)))
    correct = _leading_to(one_call_a_step(stage, a=scale, c=half, d=noise, eps_history=-half[:, None]), after)
    return interleave([predict, correct], [np.ones(len(half), bool), corrected])


def _churned(
    schedule: NoiseSchedule, levels: Levels, churn: float, sigma_min: float, sigma_max: float | None
) -> Levels:
    """Returns the steps from the raised levels σ̂_t, unchanged where γ is 0.

    Raises:
      ValueError: a negative option, S_tmin > S_tmax, or churn on a grid that ascends.
    """
    for name, value in (("churn", churn), ("churn_sigma_min", sigma_min)):
        if not 0.0 <= value < np.inf:
            raise ValueError(f"{name}={value} must be ≥ 0 and finite")
    if sigma_max is not None and not sigma_max >= sigma_min:
        raise ValueError(f"churn_sigma_max={sigma_max} must be ≥ churn_sigma_min={sigma_min}")
    if churn and levels.t[0] < levels.s[-1]:
        raise ValueError(f"churn={churn} must be 0 on a grid that ascends")
    with np.errstate(divide="ignore"):
        sigmas, highest = sigma_bar(levels.ab_t), schedule.sigma_bars[-1]
    inside = (sigmas >= sigma_min) & (sigmas <= (np.inf if sigma_max is None else sigma_max)) & (sigmas < highest)
    if not churn or not np.any(inside):
        return levels
    raised = np.minimum((1.0 + min(churn / len(sigmas), _MOST)) * sigmas[inside], highest)
    t, ab_t = levels.t.copy(), levels.ab_t.copy()
    times = schedule.timestep_at(raised)
    if t.dtype.kind == "f":
        t[inside], ab_t[inside] = times, 1.0 / (1.0 + raised**2)
    else:
        t[inside] = np.round(times)
        ab_t[inside] = schedule.alpha_bar_at(t[inside])
    return levels._replace(t=t, ab_t=ab_t)


def _after(levels: Levels, raised: Levels, churn_noise: float) -> tuple[Levels, np.ndarray, np.ndarray]:
    """Returns the levels that steps lead to with the noise before the next call, √(ᾱ_ŝ/ᾱ_s), and the noise's factor.

    Raises:
      ValueError: a negative factor of noise.
    """
    if not 0.0 <= churn_noise < np.inf:
        raise ValueError(f"churn_noise={churn_noise} must be ≥ 0 and finite")
    s = np.append(raised.t[1:], levels.s[-1:]).astype(levels.s.dtype)
    ab_s = np.append(raised.ab_t[1:], levels.ab_s[-1])
    # √ᾱ_ŝ·√(σ̂² - σ̄²) = √(1 - ᾱ_ŝ/ᾱ_s); a step that encodes to ᾱ = 0 adds none.
    ratio = np.divide(ab_s, levels.ab_s, out=np.ones_like(ab_s), where=levels.ab_s > 0.0)
    return Levels(s, s, ab_s, ab_s), np.sqrt(ratio), churn_noise * np.sqrt(1.0 - ratio)


def _leading_to(table: Sampler, levels: Levels) -> Sampler:
    """Returns the table with rows that lead to the given levels."""
    return dataclasses.replace(
        table, t_to=levels.s, signal_to=np.sqrt(levels.ab_s), noise_to=np.sqrt(1.0 - levels.ab_s)
    )
