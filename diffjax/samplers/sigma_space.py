"""What the solvers share that are written in x̄ = x/√ᾱ and its noise level σ̄ (Karras et al. 2022; k-diffusion)."""

import numpy as np
from numpy.typing import ArrayLike

from diffjax.samplers.base import check_signal, descending, leaves_noise
from diffjax.samplers.recorder import Level, level_at, level_of_sigma
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Levels


def grid_levels(schedule: NoiseSchedule, grid: ArrayLike) -> tuple[list[Level], np.dtype]:
    """Returns the levels of a descending grid, one for each of its points, and the dtype of its times.

    Raises:
      ValueError: an invalid grid, one that ascends, or a level without signal.
    """
    levels = descending(schedule, grid)
    check_signal(levels.ab_t)
    times = np.append(levels.t, levels.s[-1])
    return [level_at(schedule, t) for t in times], times.dtype


def level_between(schedule: NoiseSchedule, sigma: float, dtype: np.dtype) -> Level:
    """Returns the level with noise level σ̄; among whole timesteps (an integer `dtype`), the nearest in log σ̄."""
    if dtype.kind == "f":
        return level_of_sigma(schedule, sigma)
    return level_at(schedule, np.maximum(np.round(schedule.timestep_at(sigma)), 0).astype(np.int32))


def is_single_call(here: Level, there: Level) -> bool:
    """Returns whether a step of a two-call method makes one call: to clean data, or from a level of almost no signal.

    From such a level (√ᾱ grows more than 20-fold), a second call would multiply differences of ε̂ by that factor.
    """
    return there.noise == 0.0 or bool(leaves_noise(np.square(here.signal), np.square(there.signal)))


def ancestral_step(sigma: float, sigma_to: float, eta: float) -> tuple[float, float]:
    """Returns (σ_down, σ_up) of an ancestral step: σ_down² + σ_up² = σ̄_s² (k-diffusion's `get_ancestral_step`).

    σ_up = η·σ̄_s·√(1 - σ̄_s²/σ̄_t²).
    """
    up = eta * sigma_to * np.sqrt(1.0 - (sigma_to / sigma) ** 2)
    return float(np.sqrt(sigma_to**2 - up**2)), float(up)


def check_eta(eta: float) -> None:
    """Checks the share of the ancestral noise.

    Raises:
      ValueError: η outside [0, 1].
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta={eta} must be within [0, 1]")


def check_distinct(levels: Levels) -> None:
    """Checks that no time is repeated.

    Raises:
      ValueError: a repeated time.
    """
    if (repeated := levels.t[levels.t == levels.s]).size:
        raise ValueError(f"grid repeats time {repeated[0]}: this sampler needs different times")
