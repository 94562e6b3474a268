"""The time grids of diffusers' solvers, as spacings that a config names by import path (`grid`)."""

import numpy as np

from diffjax import timesteps
from diffjax.schedules import NoiseSchedule
from diffjax.timesteps import Grid

PATH = "diffjax.interop.diffusers_grids:grid"

_LEVELS = ("none", "karras", "log_snr", "beta")
_ENDS = ("clean", "first", "repeat")


def grid(
    schedule: NoiseSchedule,
    num_steps: int,
    *,
    rule: str = "linspace",
    surplus: int = 0,
    whole: bool = True,
    offset: int = 0,
    levels: str = "none",
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    all_levels: bool = True,
    lowest_half_log_snr: float | None = None,
    final: str = "clean",
) -> Grid:
    """Returns the grid that a solver of diffusers makes in `set_timesteps(num_steps)`.

    Without `levels` it holds the times of `rule`; where these lie between two indices, σ̄ is linear between the two
    (unlike `continuous_time`), and the grid holds the times at which this schedule has that σ̄.

    Args:
      schedule: the noise schedule.
      num_steps: the number S of steps.
      rule: diffusers' timestep_spacing: "linspace", "leading" or "trailing".
      surplus: 1: the rule is that of S + 1 times, rounded, without the last of them, as in multistep solvers; 0: of S
        times.
      whole: whether a grid of whole times is one of indices, on which stages between them are at indices too.
      offset: diffusers' steps_offset, added to the times of "leading".
      levels: "karras", "log_snr" (use_exponential_sigmas and use_lu_lambdas) or "beta": such levels instead.
      sigma_min: the lowest of these levels; None: that of the schedule.
      sigma_max: the highest of these levels; None: that of the schedule.
      all_levels: whether these levels span the schedule's, or only those of `rule`.
      lowest_half_log_snr: times whose log(√ᾱ/√(1-ᾱ)) is lower are left out (lambda_min_clipped); None: none.
      final: what the last step leads to: "clean" data, the "first" timestep, or the last level again ("repeat").

    Raises:
      ValueError: an unknown name, or a value out of range.
    """
    for name, value, allowed in (("rule", rule, ("linspace", "leading", "trailing")), ("levels", levels, _LEVELS)):
        if value not in allowed:
            raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}")
    if final not in _ENDS:
        raise ValueError(f"final={final!r} is not one of {', '.join(map(repr, _ENDS))}")
    if surplus not in (0, 1):
        raise ValueError(f"surplus={surplus} is not one of 0, 1")
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps} must be ≥ 1")
    total = schedule.num_timesteps
    times = _times(total, _length(schedule, lowest_half_log_snr), num_steps, rule, surplus, offset)
    if times[0] > total - 1 or times[-1] < 0:
        raise ValueError(f"num_steps={num_steps} gives times {times[0]:g} … {times[-1]:g} outside 0 … {total - 1}")
    if levels != "none":
        sigma_bars = schedule.sigma_bars if all_levels else _sigma_bars(schedule, times)[::-1]
        low = sigma_bars[0] if sigma_min is None else sigma_min
        high = sigma_bars[-1] if sigma_max is None else sigma_max
        times = getattr(timesteps, levels)(schedule, num_steps, sigma_min=low, sigma_max=high)[:-1]
    elif not whole or np.any(times != np.floor(times)):
        times = schedule.timestep_at(_sigma_bars(schedule, times))
    else:
        times = times.astype(np.int32)
    last = {"clean": -1, "first": min(0, times[-1]), "repeat": times[-1]}[final]
    return timesteps.check(np.append(times, np.asarray(last, times.dtype)), total)


def _times(total: int, length: int, num_steps: int, rule: str, surplus: int, offset: int) -> np.ndarray:
    """Returns the times of a rule, descending; `length` is the number of timesteps that it may use."""
    count = num_steps + surplus
    if rule == "linspace":
        times = np.linspace(0, length - 1, count)
        return (times.round() if surplus else times)[::-1][:num_steps]
    if rule == "leading":
        return (np.arange(count) * (length // count))[::-1][:num_steps].astype(float) + offset
    return np.arange(length, 0, -total / num_steps).round() - 1


def _length(schedule: NoiseSchedule, lowest_half_log_snr: float | None) -> int:
    if lowest_half_log_snr is None:
        return schedule.num_timesteps
    return int(np.sum(0.5 * schedule.log_snr >= lowest_half_log_snr))


def _sigma_bars(schedule: NoiseSchedule, times: np.ndarray) -> np.ndarray:
    """Returns σ̄ at times, linear between two indices."""
    return np.interp(times, np.arange(schedule.num_timesteps), schedule.sigma_bars)


def edm_grid(
    schedule: NoiseSchedule,
    num_steps: int,
    *,
    levels: str = "karras",
    rho: float = 7.0,
    repeat_last: bool = False,
) -> Grid:
    """Returns the grid that diffusers' EDM schedulers make: S levels from the schedule's highest to its lowest.

    Args:
      schedule: the noise schedule.
      num_steps: the number S of steps.
      levels: "karras" or "log_snr" (their sigma_schedule "exponential").
      rho: ρ of "karras".
      repeat_last: whether the last step stays at the lowest level, and does not lead to clean data.

    Raises:
      ValueError: an unknown name, or a value out of range.
    """
    if levels not in ("karras", "log_snr"):
        raise ValueError(f"levels={levels!r} is not one of 'karras', 'log_snr'")
    options = {"rho": rho} if levels == "karras" else {}
    made = getattr(timesteps, levels)(schedule, num_steps, **options)
    return np.append(made[:-1], made[-2]) if repeat_last else made


def flow_grid(
    schedule: NoiseSchedule,
    num_steps: int,
    *,
    shift: float = 1.0,
    u_last: float | None = None,
    levels: str = "none",
) -> Grid:
    """Returns the grid that diffusers' FlowMatchEulerDiscreteScheduler makes, then clean data.

    The S levels u = σ̄/(1+σ̄) go in equal steps from 1 to that of the schedule's first timestep, and are shifted.

    Args:
      schedule: a schedule `flow`.
      num_steps: the number S of steps.
      shift: the shift of the levels (Esser et al. 2024, Eq. 23).
      u_last: 1 - u is scaled so that this is the last u (shift_terminal); None: it is not scaled.
      levels: "karras", "exponential" or "beta": levels of that kind between the first and the last u; or "none".

    Raises:
      ValueError: an unknown name, or a value out of range.
    """
    if levels not in ("none", "karras", "exponential", "beta"):
        raise ValueError(f"levels={levels!r} is not one of 'none', 'karras', 'exponential', 'beta'")
    if num_steps < 1 or (num_steps == 1 and u_last is not None):
        raise ValueError(f"num_steps={num_steps} must be ≥ {1 if u_last is None else 2}")
    first = schedule.sigma_bars[0]
    u = np.linspace(1.0, first / (1.0 + first), num_steps)
    u = shift * u / (1.0 + (shift - 1.0) * u)
    if u_last is not None:
        if u_last < first / (1.0 + first):
            raise ValueError(f"u_last={u_last} must be ≥ {first / (1.0 + first):g}, the first level of the schedule")
        u = 1.0 - (1.0 - u) * (1.0 - u_last) / (1.0 - u[-1])
    high, low = u[0], u[-1]
    if levels == "karras":
        u = np.linspace(high ** (1 / 7), low ** (1 / 7), num_steps) ** 7
    elif levels == "exponential":
        u = np.exp(np.linspace(np.log(high), np.log(low), num_steps))
    elif levels == "beta":
        from scipy.special import betaincinv

        u = low + (high - low) * betaincinv(0.6, 0.6, 1.0 - np.linspace(0.0, 1.0, num_steps))
    with np.errstate(divide="ignore"):
        times = schedule.timestep_at(u / (1.0 - u))
    return timesteps.check(np.append(times, -1.0), schedule.num_timesteps)
