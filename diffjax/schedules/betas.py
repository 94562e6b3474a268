"""Schedules by a formula of β_t."""

import numpy as np

from diffjax.schedules.base import SCHEDULES, NoiseSchedule, checked_count, from_betas


@SCHEDULES.register
def linear(
    num_timesteps: int = 1000, *, beta_start: float = 1e-4, beta_end: float = 0.02, per_thousand: bool = False
) -> NoiseSchedule:
    """Builds the schedule whose β goes from `beta_start` to `beta_end` in equal steps (DDPM §4).

    Args:
      num_timesteps: the number T of timesteps.
      beta_start: the first β.
      beta_end: the last β.
      per_thousand: whether `beta_start` and `beta_end` are multiplied by 1000/T, so ᾱ ends as with T = 1000
        (improved-diffusion).

    Raises:
      ValueError: not 0 < beta_start < beta_end ≤ 1 (after scaling), or an invalid number of timesteps.

    Examples:
      >>> linear(4, beta_start=0.1, beta_end=0.4).alpha_bars
      array([0.9   , 0.72  , 0.504 , 0.3024])
    """
    total = checked_count(num_timesteps)
    return from_betas(np.linspace(*_beta_range(beta_start, beta_end, total, per_thousand), total))


@SCHEDULES.register
def quadratic(
    num_timesteps: int = 1000, *, beta_start: float = 1e-4, beta_end: float = 0.02, per_thousand: bool = False
) -> NoiseSchedule:
    """Builds the schedule whose √β goes from √`beta_start` to √`beta_end` in equal steps ("quad" in Ho et al.'s code).

    Args:
      num_timesteps: the number T of timesteps.
      beta_start: the first β.
      beta_end: the last β.
      per_thousand: whether `beta_start` and `beta_end` are multiplied by 1000/T, so ᾱ ends as with T = 1000
        (improved-diffusion).

    Raises:
      ValueError: as in `linear`.
    """
    total = checked_count(num_timesteps)
    start, end = _beta_range(beta_start, beta_end, total, per_thousand)
    return from_betas(np.linspace(start**0.5, end**0.5, total) ** 2)


@SCHEDULES.register
def scaled_linear(
    num_timesteps: int = 1000, *, beta_start: float = 8.5e-4, beta_end: float = 0.012, per_thousand: bool = False
) -> NoiseSchedule:
    """Builds `quadratic` with the default β of latent diffusion; the name is diffusers'.

    Args:
      num_timesteps: the number T of timesteps.
      beta_start: the first β.
      beta_end: the last β.
      per_thousand: whether `beta_start` and `beta_end` are multiplied by 1000/T, so ᾱ ends as with T = 1000
        (improved-diffusion).

    Raises:
      ValueError: as in `linear`.
    """
    return quadratic(num_timesteps, beta_start=beta_start, beta_end=beta_end, per_thousand=per_thousand)


@SCHEDULES.register
def sigmoid(
    num_timesteps: int = 1000,
    *,
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    per_thousand: bool = False,
    sigmoid_range: float = 6.0,
) -> NoiseSchedule:
    """Builds β = `beta_start` + (`beta_end` - `beta_start`)·sigmoid(u), with u in equal steps (DDIM's code).

    Args:
      num_timesteps: the number T of timesteps.
      beta_start: the value of β for u = -∞.
      beta_end: the value of β for u = ∞.
      per_thousand: whether `beta_start` and `beta_end` are multiplied by 1000/T, so ᾱ ends as with T = 1000
        (improved-diffusion).
      sigmoid_range: the largest u, in (0, 700]; the smallest is its negative.

    Raises:
      ValueError: as in `linear`, or a `sigmoid_range` outside (0, 700].
    """
    total = checked_count(num_timesteps)
    start, end = _beta_range(beta_start, beta_end, total, per_thousand)
    if not 0.0 < sigmoid_range <= 700.0:
        raise ValueError(f"sigmoid_range={sigmoid_range} must be within (0, 700]")
    u = np.linspace(-sigmoid_range, sigmoid_range, total)
    return from_betas(start + (end - start) / (1.0 + np.exp(-u)))


@SCHEDULES.register
def constant(num_timesteps: int = 1000, *, beta: float = 0.02) -> NoiseSchedule:
    """Builds the schedule with one β for all steps ("const" in Ho et al.'s code).

    Args:
      num_timesteps: the number T of timesteps.
      beta: the β of every step, in (0, 1].

    Raises:
      ValueError: β outside (0, 1], or an invalid number of timesteps.
    """
    if not 0.0 < beta <= 1.0:
        raise ValueError(f"beta={beta} must be within (0, 1]")
    return from_betas(np.full(checked_count(num_timesteps), beta, np.float64))


@SCHEDULES.register
def jsd(num_timesteps: int = 1000) -> NoiseSchedule:
    """Builds β_t = 1/(T - t) (Sohl-Dickstein et al. 2015, §2.4.1; "jsd" in Ho et al.'s code): ᾱ falls linearly to 0.

    At the last timestep x holds no signal, so a network that predicts ε alone cannot start there.

    Args:
      num_timesteps: the number T of timesteps.

    Raises:
      ValueError: an invalid number of timesteps.
    """
    total = checked_count(num_timesteps)
    return from_betas(1.0 / np.arange(total, 0, -1))


def _beta_range(beta_start: float, beta_end: float, total: int, per_thousand: bool) -> tuple[float, float]:
    scale = 1000.0 / total if per_thousand else 1.0
    start, end = scale * beta_start, scale * beta_end
    if not 0.0 < start < end <= 1.0:
        after = f" after scaling by {scale:g}" if per_thousand else ""
        raise ValueError(
            f"beta_start={beta_start}, beta_end={beta_end} must satisfy 0 < beta_start < beta_end ≤ 1{after}"
        )
    return start, end
