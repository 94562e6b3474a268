"""Schedules by a formula of ᾱ_t or of the noise level σ̄_t."""

import numpy as np

from diffjax.schedules.base import SCHEDULES, NoiseSchedule, checked_count, from_alpha_bars, from_betas


@SCHEDULES.register
def cosine(num_timesteps: int = 1000, *, s: float = 0.008, max_beta: float = 0.999) -> NoiseSchedule:
    """Builds ᾱ(u) ∝ cos²((u + s)/(1 + s)·π/2), β_t = min(1 - ᾱ((t+1)/T)/ᾱ(t/T), `max_beta`).

    (Nichol & Dhariwal 2021, Eq. 17.) The cap changes only the last β.

    Args:
      num_timesteps: the number T of timesteps.
      s: the offset s in [0, 100], which keeps β from being too small near t = 0.
      max_beta: the largest β, in (0, 1).

    Raises:
      ValueError: `s` outside [0, 100], `max_beta` outside (0, 1), or an invalid number of timesteps.
    """
    if not 0.0 <= s <= 100.0:
        raise ValueError(f"s={s} must be within [0, 100]")
    if not 0.0 < max_beta < 1.0:
        raise ValueError(f"max_beta={max_beta} must be within (0, 1)")
    u = np.linspace(0.0, 1.0, checked_count(num_timesteps) + 1)
    f = np.cos((u + s) / (1.0 + s) * np.pi / 2.0) ** 2
    return from_betas(np.minimum(1.0 - f[1:] / f[:-1], max_beta))


@SCHEDULES.register
def edm(num_timesteps: int = 1000, *, sigma_min: float = 0.002, sigma_max: float = 80.0) -> NoiseSchedule:
    """Builds the levels σ̄ from `sigma_min` to `sigma_max` in equal ratios (the range of Karras et al. 2022, Table 1).

    The log-SNR is linear in t, also between the timesteps, so t is an affine function of EDM's c_noise = ¼·log σ̄.

    Args:
      num_timesteps: the number T of timesteps.
      sigma_min: σ̄_0, at least 1e-7.
      sigma_max: σ̄_{T-1}.

    Raises:
      ValueError: not 1e-7 ≤ sigma_min < sigma_max, an infinite one, or fewer than two timesteps.
    """
    if not 1e-7 <= sigma_min < sigma_max <= 1e7:
        raise ValueError(
            f"sigma_min={sigma_min}, sigma_max={sigma_max} must satisfy 1e-7 ≤ sigma_min < sigma_max ≤ 1e7"
        )
    if (total := checked_count(num_timesteps)) < 2:
        raise ValueError(f"num_timesteps={num_timesteps} must be ≥ 2 for the levels from sigma_min to sigma_max")
    return from_alpha_bars(1.0 / (1.0 + np.geomspace(sigma_min, sigma_max, total) ** 2))


@SCHEDULES.register
def flow(num_timesteps: int = 1000, *, shift: float = 1.0) -> NoiseSchedule:
    """Builds the levels of the linear path (1-u)·x_0 + u·ε of rectified flow at u = 1/T, 2/T … 1, or shifted u.

        u' = shift·u/(1 + (shift-1)·u)  (Esser et al. 2024, Eq. 23),     ᾱ = (1-u')²/((1-u')² + u'²),     σ̄ = u'/(1-u')

    At the last timestep x holds no signal: networks of the velocity, v or x_0 can start there, ε-networks cannot.

    Args:
      num_timesteps: the number T of timesteps.
      shift: larger values shift the levels towards noise.

    Raises:
      ValueError: a shift that is not > 0 and finite, or an invalid number of timesteps.
    """
    if not 0.0 < shift < np.inf:
        raise ValueError(f"shift={shift} must be > 0 and finite")
    total = checked_count(num_timesteps)
    clean = np.arange(total - 1, -1, -1) / total
    clean = clean / (clean + shift * (1.0 - clean))  # 1 - u', exact near u = 1
    return from_alpha_bars(clean**2 / (clean**2 + (1.0 - clean) ** 2))
