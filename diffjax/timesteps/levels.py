"""Spacings by noise levels σ̄ = √((1-ᾱ)/ᾱ).

Their grids are of real times, where the schedule has exactly these levels (`NoiseSchedule.timestep_at`); with
`rounded=True`, of the nearest indices, for networks that take whole timesteps only.
"""

from collections.abc import Sequence

import numpy as np

from diffjax.schedules import NoiseSchedule
from diffjax.timesteps.base import SPACINGS, Grid, check, check_count, check_end, with_end


@SPACINGS.register
def from_sigmas(schedule: NoiseSchedule, sigmas: Sequence[float], *, rounded: bool = False) -> Grid:
    """Returns the times of given noise levels σ̄, one for each; 0 is clean data.

    Args:
      schedule: the noise schedule.
      sigmas: S+1 levels within 0 … σ̄_{T-1}, descending; most lists of levels end with 0.
      rounded: whether to return the nearest indices instead.

    Raises:
      ValueError: levels out of range, or in another order.
    """
    levels = np.asarray(sigmas, np.float64)
    if levels.ndim != 1 or len(levels) < 2:
        raise ValueError(f"sigmas of shape {levels.shape} must be at least two levels [S+1]")
    if not rounded:
        return check(schedule.timestep_at(levels), schedule.num_timesteps)
    if levels[-1] == 0.0:
        return _grid(schedule, levels[:-1], rounded=True, end=-1)
    schedule.timestep_at(levels)  # checks the range
    return check(_nearest(schedule, levels), schedule.num_timesteps)


@SPACINGS.register
def karras(
    schedule: NoiseSchedule,
    num_steps: int,
    *,
    rho: float = 7.0,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    rounded: bool = False,
    end: int = -1,
) -> Grid:
    """Returns the times of the levels of Karras et al. 2022, Eq. 5, then -1.

        σ̄_i = (σ̄_max^{1/ρ} + i/(S-1)·(σ̄_min^{1/ρ} - σ̄_max^{1/ρ}))^ρ,     i = 0 … S-1

    With `end=0`: S + 1 such levels, of which σ̄_min is the last.

    Args:
      schedule: the noise schedule.
      num_steps: the number S of steps.
      rho: ρ; larger values put more steps near clean data; in (0, 100].
      sigma_min: σ̄_min; None: σ̄_0 of the schedule.
      sigma_max: σ̄_max; None: σ̄_{T-1} of the schedule.
      rounded: whether to return the nearest indices instead of times between them.
      end: -1, where the last step leads to clean data, or 0, where it leads to σ̄_min.

    Raises:
      ValueError: S or a level out of range, ρ out of range or too small, or no σ̄_max for a schedule that ends at ᾱ = 0.
    """
    if not 0.0 < rho <= 100.0:
        raise ValueError(f"rho={rho} must be within (0, 100]")
    low, high = _range(schedule, sigma_min, sigma_max)
    with np.errstate(all="ignore"):
        levels = np.linspace(high ** (1 / rho), low ** (1 / rho), _count(schedule, num_steps, rounded, end)) ** rho
    if not np.all((levels > 0.0) & np.isfinite(levels)):
        raise ValueError(f"rho={rho} must be larger: its noise levels are not finite and > 0")
    return _grid(schedule, levels, rounded=rounded, end=end)


@SPACINGS.register
def log_snr(
    schedule: NoiseSchedule,
    num_steps: int,
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    rounded: bool = False,
    end: int = -1,
) -> Grid:
    """Returns the times of S levels that are uniform in log-SNR, from σ̄_max to σ̄_min, then -1.

    This is the spacing of DPM-Solver (Lu et al. 2022, §3.4; diffusers' use_lu_lambdas) and the same as levels in
    geometric progression (k-diffusion's and diffusers' exponential sigmas).

    Args:
      schedule: the noise schedule.
      num_steps: the number S of steps.
      sigma_min: σ̄_min; None: σ̄_0 of the schedule.
      sigma_max: σ̄_max; None: σ̄_{T-1} of the schedule.
      rounded: whether to return the nearest indices instead of times between them.
      end: -1, where the last step leads to clean data, or 0, where it leads to σ̄_min.

    Raises:
      ValueError: S or a level out of range, or no σ̄_max for a schedule that ends at ᾱ = 0.
    """
    low, high = _range(schedule, sigma_min, sigma_max)
    levels = np.exp(np.linspace(np.log(high), np.log(low), _count(schedule, num_steps, rounded, end)))
    return _grid(schedule, levels, rounded=rounded, end=end)


@SPACINGS.register
def flow(
    schedule: NoiseSchedule,
    num_steps: int,
    *,
    shift: float = 1.0,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    rounded: bool = False,
    end: int = -1,
) -> Grid:
    """Returns the times of S levels whose u = σ̄/(1+σ̄), the time of the linear path, falls in equal steps to 0; then -1.

        u_i = u_max·(1 - i/S),     σ̄_i = shift·u_i/(1-u_i),     i = 0 … S-1

    The shift is u' = shift·u/(1 + (shift-1)·u) (Esser et al. 2024, Eq. 23); e^μ is diffusers' exponential
    "dynamic shifting". With `sigma_min` the unshifted u falls to that of σ̄_min instead, in S-1 equal steps, and with
    `end=0` in S, as diffusers' `FlowMatchEulerDiscreteScheduler` has it, whose σ_min is the schedule's σ̄_0. On these
    grids `ddim` is Euler's method on the linear path.

    Args:
      schedule: the noise schedule; any will do that reaches the levels.
      num_steps: the number S of steps.
      shift: larger values put more steps near noise.
      sigma_min: σ̄_min, before the shift; None: u falls in equal steps to 0, with `end=0` to σ̄_0 of the schedule.
      sigma_max: σ̄_max, before the shift; None: such that the first level is σ̄_{T-1} of the schedule.
      rounded: whether to return the nearest indices instead of times between them.
      end: -1, where the last step leads to clean data, or 0, where it leads to σ̄_min.

    Raises:
      ValueError: S or a level out of range, or a shift that is not > 0 and finite.
    """
    if not 0.0 < shift < np.inf:
        raise ValueError(f"shift={shift} must be > 0 and finite")
    count, table = _count(schedule, num_steps, rounded, end), schedule.sigma_bars
    high = table[-1] / shift if sigma_max is None else sigma_max
    low = table[0] / shift if sigma_min is None and end == 0 else sigma_min
    if not 0.0 <= (0.0 if low is None else low) <= high:
        raise ValueError(f"sigma_min={low}, sigma_max={high} must satisfy 0 ≤ sigma_min ≤ sigma_max")
    u_max = 1.0 if np.isinf(high) else high / (1.0 + high)
    u_last = u_max / count if low is None else low / (1.0 + low)
    u = np.linspace(u_max, u_last, count)
    with np.errstate(divide="ignore"):
        return _grid(schedule, shift * u / (1.0 - u), rounded=rounded, end=end)


@SPACINGS.register
def beta(
    schedule: NoiseSchedule,
    num_steps: int,
    *,
    alpha: float = 0.6,
    beta: float = 0.6,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    rounded: bool = False,
    end: int = -1,
) -> Grid:
    """Returns the times of σ̄_min + (σ̄_max - σ̄_min)·F⁻¹(1 - i/(S-1)), i = 0 … S-1, then -1.

    F is the distribution function of Beta(`alpha`, `beta`) (Lee et al. 2024, "Beta Sampling is All You Need";
    diffusers' use_beta_sigmas): with parameters below 1, many levels lie near both ends.

    Args:
      schedule: the noise schedule.
      num_steps: the number S of steps.
      alpha: the first parameter of the beta distribution.
      beta: the second parameter.
      sigma_min: σ̄_min; None: σ̄_0 of the schedule.
      sigma_max: σ̄_max; None: σ̄_{T-1} of the schedule.
      rounded: whether to return the nearest indices instead of times between them.
      end: -1, where the last step leads to clean data, or 0, where it leads to σ̄_min.

    Raises:
      ValueError: S or a level out of range, a parameter ≤ 0, or no σ̄_max for a schedule that ends at ᾱ = 0.
    """
    from scipy.special import betaincinv

    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0.0 < value < np.inf:
            raise ValueError(f"{name}={value} must be > 0 and finite")
    low, high = _range(schedule, sigma_min, sigma_max)
    quantiles = betaincinv(alpha, beta, 1.0 - np.linspace(0.0, 1.0, _count(schedule, num_steps, rounded, end)))
    return _grid(schedule, low + (high - low) * quantiles, rounded=rounded, end=end)


def _count(schedule: NoiseSchedule, num_steps: int, rounded: bool, end: int) -> int:
    """Returns the number of levels above the grid's last entry, plus 1 if that entry is a level too."""
    check_end(end)
    if rounded:
        check_count(schedule.num_timesteps, num_steps, end)
    elif not isinstance(num_steps, (int, np.integer)) or num_steps < 1:
        raise ValueError(f"num_steps={num_steps} must be a whole number ≥ 1")
    return int(num_steps) + (end == 0)


def _range(schedule: NoiseSchedule, sigma_min: float | None, sigma_max: float | None) -> tuple[float, float]:
    """Returns (σ̄_min, σ̄_max), checked."""
    table = schedule.sigma_bars
    high = table[-1] if sigma_max is None else sigma_max
    if sigma_max is None and not np.isfinite(high):
        raise ValueError("sigma_max is missing: this schedule ends at alpha_bar = 0, where sigma_bar is infinite")
    low = min(table[0], high) if sigma_min is None else sigma_min
    if not 0.0 < low <= high <= table[-1] * (1.0 + 1e-6) or not np.isfinite(high):
        raise ValueError(
            f"sigma_min={low:g}, sigma_max={high:g} must satisfy 0 < sigma_min ≤ sigma_max ≤ {table[-1]:g}, the "
            "largest level of the schedule"
        )
    return np.float64(low), np.float64(high)


def _grid(schedule: NoiseSchedule, levels: np.ndarray, *, rounded: bool, end: int) -> Grid:
    """Returns the times of descending levels; the last of them, or clean data after them, ends the grid (`end`)."""
    if rounded:
        steps = len(levels) - (end == 0)
        return with_end(_nearest(schedule, levels)[:steps], schedule.num_timesteps, end)
    times = schedule.timestep_at(levels)
    return check(np.append(times, -1.0) if end == -1 else times, schedule.num_timesteps)


def _nearest(schedule: NoiseSchedule, levels: np.ndarray) -> np.ndarray:
    """Returns the index whose σ̄ is nearest in log to each level, the lower one in a tie."""
    with np.errstate(divide="ignore", invalid="ignore"):
        table, values = np.log(schedule.sigma_bars), np.log(levels)
        above = np.clip(np.searchsorted(table, values), 1, max(len(table) - 1, 1))
        below = above - 1
        above = np.minimum(above, len(table) - 1)
        # An infinite level is the last one: its distance from itself, NaN, is not the larger.
        nearest = np.where(np.abs(table[below] - values) <= np.abs(table[above] - values), below, above)
    return np.searchsorted(table, table[nearest])  # the first of equal entries
