"""The samplers of DDPM and DDIM."""

import numpy as np
from numpy.typing import ArrayLike

from diffjax.samplers.base import SAMPLERS, descending
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Levels, Sampler, one_call_a_step


@SAMPLERS.register
def ddpm(
    schedule: NoiseSchedule, grid: ArrayLike, *, variance: str = "fixed_small", last_step_noise: bool = False
) -> Sampler:
    """Builds the ancestral sampler (DDPM Alg. 2) on any descending grid: the mean of q(x_s | x_t, x̂0) plus σ·z.

        x_s = √α(1-ᾱ_s)/(1-ᾱ_t)·x_t + √ᾱ_s(1-α)/(1-ᾱ_t)·x̂0 + σ·z,     α = ᾱ_t/ᾱ_s
        fixed_small: σ² = β̃ = (1-ᾱ_s)/(1-ᾱ_t)·(1-α);     fixed_large: σ² = β = 1-α
        learned_range: log σ² = f·log β + (1-f)·log β̃ (Nichol & Dhariwal 2021, Eq. 15);     learned: log σ² = f

    with f the network's `Prediction.log_var_frac`. A step to clean data (ᾱ_s = 1) adds no noise; there, the β̃ of the
    previous step replaces 0 in log β̃, which affects likelihoods only.

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]`, descending within -1 … T-1.
      variance: σ² of a step: "fixed_small", "fixed_large", "learned" or "learned_range".
      last_step_noise: whether a step to clean data adds noise too if it starts above index 0, with β̃ = 1e-20, as
        diffusers' `DDPMScheduler` does.

    Raises:
      ValueError: an unknown variance, or an invalid grid.
    """
    levels = descending(schedule, grid)
    ab_t, ab_s = levels.ab_t, levels.ab_s
    alpha = ab_t / ab_s
    large = 1.0 - alpha
    small = (1.0 - ab_s) / (1.0 - ab_t) * large
    noisy = (ab_s < 1.0) & (large > 0.0)  # False on the step to clean data and on repeated indices
    if last_step_noise:
        added = (levels.s == -1) & (levels.t > 0)
        noisy, small = noisy | added, np.where(added, 1e-20, small)
    if variance == "fixed_small":
        d, log_var = np.sqrt(small), None
    elif variance == "fixed_large":
        d, log_var = np.sqrt(np.where(noisy, large, 0.0)), None
    elif variance == "learned":
        d, log_var = np.where(noisy, 1.0, 0.0), np.tile([0.0, 1.0], (len(ab_t), 1))
    elif variance == "learned_range":
        d, log_var = np.where(noisy, 1.0, 0.0), _log_variance_range(small, large)
    else:
        raise ValueError(
            f"variance={variance!r} is not one of 'fixed_small', 'fixed_large', 'learned', 'learned_range'"
        )
    return one_call_a_step(
        levels,
        a=np.sqrt(alpha) * (1.0 - ab_s) / (1.0 - ab_t),
        b=np.sqrt(ab_s) * large / (1.0 - ab_t),
        d=d,
        log_var=log_var,
    )


@SAMPLERS.register
def ddim(
    schedule: NoiseSchedule,
    grid: ArrayLike,
    *,
    eta: float = 0.0,
    sigma: ArrayLike | None = None,
    sigma_hat: bool = False,
    final_noise: bool = False,
    rederive_eps: bool = True,
    stride_end: int | None = None,
) -> Sampler:
    """Builds DDIM (Song et al. 2021, Eq. 12), with the σ of Eq. 16 between neighbouring grid points.

        x_s = √ᾱ_s·x̂0 + √(1-ᾱ_s-σ²)·ε̂ + σ·z,     σ = η·√((1-ᾱ_s)/(1-ᾱ_t)·(1-ᾱ_t/ᾱ_s))

    η = 0 is deterministic, η = 1 is `ddpm(variance="fixed_small")`. Some code scales the variance instead of σ; its η
    is the square of this η.

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]`, descending within -1 … T-1.
      eta: η in [0, 1], the share of the ancestral sampler's noise.
      sigma: σ of each step, `[S]`, instead of η; every σ² must be ≤ 1-ᾱ_s.
      sigma_hat: whether to add the larger noise σ̂ = √(1-ᾱ_t/ᾱ_s) of App. D.3 (none on a step to clean data) to the
        mean of η = 1; excludes `eta` and `sigma`.
      final_noise: whether, with `sigma_hat`, the step to clean data adds noise too, as in some code.
      rederive_eps: whether ε̂ is derived again from the clipped x̂0; False keeps the network's ε̂ (diffusers' default).
      stride_end: -1 or 0 makes the steps of diffusers' `DDIMScheduler`: each ends ⌊T/S⌋ indices below its start, even
        if the grid's next entry is another, or at this index if that is below 0; None: steps end at the next entry.

    Raises:
      ValueError: η outside [0, 1], σ too large, options that exclude each other, an invalid grid, or one with unequal
        steps and `stride_end`.

    Examples:
      >>> import diffjax as dj
      >>> table = ddim(dj.schedules.linear(1000), dj.timesteps.trailing(1000, 2), eta=0.5)
      >>> table.b.round(4), table.d.round(4)
      (array([0.2803, 1.    ]), array([0.4798, 0.    ]))
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta={eta} must be within [0, 1]")
    if eta and (sigma is not None or sigma_hat):
        raise ValueError(f"eta={eta} must be 0 if sigma or sigma_hat is given")
    if sigma is not None and sigma_hat:
        raise ValueError("sigma_hat=True excludes sigma: give one of them")
    if final_noise and not sigma_hat:
        raise ValueError("final_noise=True needs sigma_hat=True")
    levels = descending(schedule, grid)
    if stride_end is not None:
        levels = _with_stride(levels, schedule, stride_end)
    ab_t, ab_s = levels.ab_t, levels.ab_s
    sigma_ddpm = np.sqrt((1.0 - ab_s) / (1.0 - ab_t) * (1.0 - ab_t / ab_s))
    if sigma is not None:
        sigma = noise = _checked_sigma(sigma, levels)
    elif sigma_hat:
        sigma, noise = sigma_ddpm, np.sqrt(np.where(final_noise | (ab_s < 1.0), 1.0 - ab_t / ab_s, 0.0))
    else:
        sigma = noise = eta * sigma_ddpm
    direction = np.sqrt(np.maximum(1.0 - ab_s - sigma**2, 0.0))  # rounding can give -1e-17 where σ² = 1-ᾱ_s
    return one_call_a_step(levels, b=np.sqrt(ab_s), c=direction, d=noise, rederive_eps=rederive_eps)


def _with_stride(levels: Levels, schedule: NoiseSchedule, end: int) -> Levels:
    """Returns steps from the same indices that each end ⌊T/S⌋ lower, or at `end` if that is below 0."""
    if end not in (-1, 0):
        raise ValueError(f"stride_end={end} is not one of None, -1 (clean data), 0")
    distances = np.diff(levels.t)
    if len(distances) and np.ptp(distances) > 1:
        raise ValueError(
            f"stride_end={end} needs equal steps, as leading, trailing and linspace have; None allows others"
        )
    s = levels.t - schedule.num_timesteps // len(levels.t)
    s = np.where(s < 0, end, s).astype(np.int32)
    return levels._replace(s=s, ab_s=schedule.alpha_bar_at(s))


def _log_variance_range(small: np.ndarray, large: np.ndarray) -> np.ndarray:
    """Returns (log β̃, log β) `[S, 2]`; where β̃ is 0, the β̃ of the step before replaces it."""
    latest = np.maximum.accumulate(
        np.where(small > 0.0, np.arange(len(small)), -1)
    )  # repeated indices have no variance
    bounds = np.stack([np.where(latest >= 0, small[latest], large[0]), large], axis=1)
    return np.log(np.where(bounds > 0.0, bounds, 1.0))  # the row of a repeated index adds no noise


def _checked_sigma(sigma: ArrayLike, levels: Levels) -> np.ndarray:
    sigma = np.asarray(sigma, np.float64)
    if sigma.shape != levels.t.shape:
        raise ValueError(f"sigma of shape {sigma.shape} must have one value for each of the {len(levels.t)} steps")
    allowed = np.sqrt(1.0 - levels.ab_s)
    bad = np.flatnonzero(~((sigma >= 0.0) & (sigma <= allowed * (1.0 + 1e-12))))
    if bad.size:
        i = bad[0]
        raise ValueError(
            f"sigma[{i}]={sigma[i]} must be within 0 … √(1-ᾱ_s) = {allowed[i]}, on step {levels.t[i]} → {levels.s[i]}"
        )
    return sigma
