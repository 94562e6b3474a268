"""Restart sampling."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from diffjax.samplers.base import SAMPLERS
from diffjax.samplers.recorder import Call, Expression, Level, Recorder
from diffjax.samplers.sigma_space import grid_levels, is_single_call, level_between
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler

_RHO = 7.0
"""ρ of the levels within an interval, that of Karras et al. 2022."""


@SAMPLERS.register
def restart(
    schedule: NoiseSchedule,
    grid: ArrayLike,
    *,
    intervals: Sequence[tuple[float, float, int, int]] = ((0.06, 0.3, 5, 2),),
    restart_noise: float = 1.0,
) -> Sampler:
    """Builds restart sampling (Xu et al. 2023, Alg. 1): `heun` that goes back up, by adding noise, and down again.

    An interval (σ_min, σ_max, S, K) acts at the grid point whose level σ̄ is nearest to σ_min. There, K times over:

        x̄ ← x̄ + √(σ_max² - σ̄²)·S_noise·z,     then S steps of Heun's method from σ_max back to σ̄

    on the levels of Karras et al. 2022, Eq. 5, with ρ = 7. The noise takes away errors of the steps above; the short
    way down makes few new ones. Each interval adds 2·S·K network calls. The table's own grid goes up and down as x
    does. On a grid of whole timesteps the levels are those of the nearest timesteps.

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]` or real times, descending within -1 … T-1: the main way down.
      intervals: the intervals (σ_min, σ_max, steps, times), with levels σ̄ as in `timesteps.karras`.
      restart_noise: S_noise, the factor of the added noise.

    Raises:
      ValueError: an interval without 0 < σ_min < σ_max ≤ σ̄_{T-1}, or below no step of the grid; fewer than 1 step or
        time; two intervals at one grid point; a negative factor; an invalid grid, or a level without signal.
    """
    if not 0.0 <= restart_noise < np.inf:
        raise ValueError(f"restart_noise={restart_noise} must be ≥ 0 and finite")
    levels, dtype = grid_levels(schedule, grid)
    at = _intervals_by_point(schedule, levels, intervals)
    recorder, x = Recorder(), Recorder.start
    for point, (here, there) in enumerate(itertools.pairwise(levels), start=1):
        x, last = _heun_step(recorder, x, here, there)
        if point not in at:
            continue
        path = _path(schedule, there, *at[point][:2], dtype)
        for _ in range(at[point][2]):
            added = restart_noise * np.sqrt(max(path[0].sigma_bar ** 2 - there.sigma_bar**2, 0.0))
            x = path[0].signal * (1.0 / there.signal * x + added * last.z)
            for one, other in itertools.pairwise(path):
                x, last = _heun_step(recorder, x, one, other)
    return recorder.finish(x, levels[-1], dtype=dtype)


def _heun_step(recorder: Recorder, x: Expression, here: Level, there: Level) -> tuple[Expression, Call]:
    """Records one step of Heun's method; returns its result and its last call."""
    first = recorder.call(x, here)
    x = there.signal * first.x0 + there.noise * first.eps
    if is_single_call(here, there):
        return x, first
    second = recorder.call(x, there, on_grid=False)
    half = 0.5 * there.signal * (there.sigma_bar - here.sigma_bar)
    return second.x + half * (second.eps - first.eps), second


def _path(schedule: NoiseSchedule, bottom: Level, high: float, num_steps: int, dtype: np.dtype) -> list[Level]:
    """Returns the levels of an interval from σ_max down to the grid point's own."""
    levels = np.linspace(high ** (1 / _RHO), bottom.sigma_bar ** (1 / _RHO), num_steps + 1) ** _RHO
    return [*(level_between(schedule, min(sigma, high), dtype) for sigma in levels[:-1]), bottom]


def _intervals_by_point(
    schedule: NoiseSchedule, levels: Sequence[Level], intervals: Sequence[tuple[float, float, int, int]]
) -> dict[int, tuple[float, int, int]]:
    """Returns {number of the grid point: (σ_max, steps, times)}.

    Raises:
      ValueError: an invalid interval.
    """
    highest = schedule.sigma_bars[-1]
    found: dict[int, tuple[float, int, int]] = {}
    points = [n for n, level in enumerate(levels) if n > 0 and level.noise > 0.0]
    for interval in intervals:
        if len(interval) != 4:
            raise ValueError(f"intervals={interval} must have (sigma_min, sigma_max, steps, times)")
        low, high, num_steps, times = interval
        if not (0.0 < low < high <= highest):
            raise ValueError(f"intervals={interval} must satisfy 0 < sigma_min < sigma_max ≤ {highest:g}")
        if num_steps < 1 or times < 1:
            raise ValueError(f"intervals={interval} must have at least 1 step and be run at least 1 time")
        below = [n for n in points if levels[n].sigma_bar < high]
        if not below:
            raise ValueError(f"intervals={interval} has sigma_max below the grid's levels above clean data")
        point = min(below, key=lambda n: abs(levels[n].sigma_bar - low))
        if point in found:
            raise ValueError(f"intervals={interval} begins at the same point of the grid as another: use more steps")
        found[point] = (high, num_steps, times)
    return found
