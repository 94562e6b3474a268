"""What the modules of samplers share: their registry, and the levels of a grid."""

import numpy as np
from numpy.typing import ArrayLike

from diffjax import timesteps
from diffjax.registry import Registry
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Levels

SAMPLERS = Registry("sampler")
"""Functions (schedule, grid, options) → `Sampler`."""


def levels_of(schedule: NoiseSchedule, grid: ArrayLike) -> Levels:
    """Returns the levels of a grid's steps.

    Raises:
      ValueError: an invalid grid.
    """
    grid = timesteps.check(grid, schedule.num_timesteps)
    alpha_bar = schedule.alpha_bar_at(grid)
    return Levels(grid[:-1], grid[1:], alpha_bar[:-1], alpha_bar[1:])


def descending(schedule: NoiseSchedule, grid: ArrayLike) -> Levels:
    """Returns the levels of a descending grid's steps.

    Raises:
      ValueError: an invalid grid, or one that ascends.
    """
    levels = levels_of(schedule, grid)
    if levels.t[0] < levels.s[-1]:
        raise ValueError(f"grid={levels.t[0]} … {levels.s[-1]} must descend: this sampler denoises")
    return levels


def sigma_bar(alpha_bar: np.ndarray) -> np.ndarray:
    """Returns σ̄ = √((1-ᾱ)/ᾱ)."""
    return np.sqrt((1.0 - alpha_bar) / alpha_bar)


def transfer(ab_t: np.ndarray, ab_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (a, c) of the deterministic step x_s = a·x_t + c·ε̂ (DDIM Eq. 13; PNDM Eq. 11)."""
    check_signal(ab_t)
    a = np.sqrt(ab_s / ab_t)
    return a, np.sqrt(1.0 - ab_s) - a * np.sqrt(1.0 - ab_t)


def leaves_noise(ab_t: np.ndarray, ab_s: np.ndarray) -> np.ndarray:
    """Returns which steps lead from almost pure noise to a level with over 20 times the signal √ᾱ, bool `[S]`."""
    return np.sqrt(ab_s) > 20.0 * np.sqrt(ab_t)


def check_signal(alpha_bar: np.ndarray) -> None:
    """Checks that no level is without signal.

    Raises:
      ValueError: ᾱ = 0 at a level.
    """
    if np.any(alpha_bar == 0.0):
        raise ValueError("this sampler divides by alpha_bar, which is 0 on this grid: start the grid lower")
