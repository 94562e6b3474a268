"""Schedules made of other schedules."""

import numpy as np
from numpy.typing import ArrayLike

from diffjax.schedules.base import NoiseSchedule, from_alpha_bars


def zero_terminal_snr(schedule: NoiseSchedule) -> NoiseSchedule:
    """Shifts and scales √ᾱ so that it ends at 0 and keeps its first value (Lin et al. 2024, Alg. 1).

    At the last timestep x holds no signal: v- and x_0-networks can start there, ε-networks cannot.

    Raises:
      ValueError: a schedule of one timestep.
    """
    if schedule.num_timesteps < 2:
        raise ValueError("num_timesteps=1 must be ≥ 2 for zero terminal SNR")
    root = schedule.sqrt_alpha_bars
    scaled = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return from_alpha_bars(np.append(scaled[:-1] ** 2, 0.0))


def respace(schedule: NoiseSchedule, indices: ArrayLike) -> NoiseSchedule:
    """Builds the schedule of the chain that visits only `indices`, ᾱ'_i = ᾱ[indices[i]] (improved-diffusion).

    A network trained on `schedule` is called with `indices[t]` for t of the new schedule
    (`parameterization.map_timesteps`).

    Args:
      schedule: the schedule to respace.
      indices: `int[S]`, strictly ascending within 0 … T-1.

    Raises:
      ValueError: indices that are out of range or do not ascend strictly.
    """
    indices = np.asarray(indices)
    if indices.ndim != 1 or not indices.size or np.any(np.diff(indices) <= 0):
        raise ValueError("indices must be a non-empty vector that ascends strictly")
    if indices[0] < 0:
        raise ValueError(f"indices[0]={indices[0]} must be within 0 … {schedule.num_timesteps - 1}")
    return from_alpha_bars(schedule.alpha_bar_at(indices))
