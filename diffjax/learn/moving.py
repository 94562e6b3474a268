"""The parametrisation of fitted tables: offsets at which, if they are 0, a table is the solver that it was."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import timesteps
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler

COLUMNS = ("a", "b", "c", "x0_history", "eps_history")
"""The coefficients that `fit` can change."""

Offsets = dict[str, Any]
"""Name → array: of each free column, what is added to it; of "grid", what is added to the log of each gap, `[S]`."""


def zeros(table: Sampler, free: Sequence[str]) -> Offsets:
    """Returns the offsets of the table itself."""
    shapes = {"grid": (table.num_steps,)} | {name: np.shape(getattr(table, name)) for name in COLUMNS}
    return {name: jnp.zeros(shapes[name]) for name in free}


def check(table: Sampler, free: Sequence[str], schedule: NoiseSchedule | None) -> None:
    """Checks that parts of a table can change.

    Raises:
      ValueError: an unknown part, or a grid without a schedule, that ascends, or of a table with inner network calls.
    """
    allowed = ("grid", *COLUMNS)
    if not free or set(free) - set(allowed):
        raise ValueError(f"free={tuple(free)} must be some of {allowed}")
    if "grid" not in free:
        return
    if schedule is None:
        raise ValueError("free has 'grid': pass schedule, the noise schedule of the table")
    if schedule.alpha_bars[-1] == 0.0:
        raise ValueError("free has 'grid': the schedule ends at alpha_bar = 0, where no time has a gradient")
    if not np.all(table.lands) or not np.all(np.diff(table.grid) < 0):
        raise ValueError("free has 'grid': the table must have one row for each step, on a grid that descends")


def moved(table: Sampler, schedule: NoiseSchedule | None, offsets: Offsets) -> Sampler:
    """Returns the table at some offsets, traced or not.

    The gaps of the grid are a softmax, so that it descends and keeps its ends. With a grid that moves, b and c
    change as those of DDIM do, b = √ᾱ_s and c = √(1-ᾱ_s).
    """
    if "grid" in offsets:
        table = _with_grid(table, schedule, _times(table.grid, offsets["grid"]))
    return dataclasses.replace(
        table,
        **{
            name: jnp.asarray(getattr(table, name)) + _usable(table, name) * offset
            for name, offset in offsets.items()
            if name != "grid"
        },
    )


def on_host(table: Sampler, schedule: NoiseSchedule | None, offsets: Offsets) -> Sampler:
    """Returns the table at some offsets in float64, as samplers are built."""
    offsets = {name: np.asarray(offset, np.float64) for name, offset in offsets.items()}
    if "grid" in offsets:
        times = _times(table.grid, offsets["grid"], np)
        table = _with_grid(table, schedule, timesteps.check(times, schedule.num_timesteps), np)
    columns = {
        name: getattr(table, name) + _usable(table, name) * offset for name, offset in offsets.items() if name != "grid"
    }
    return dataclasses.replace(table, **columns)


def widened(table: Sampler, count: int) -> Sampler:
    """Returns the table with histories of at least `count` rows."""

    def wide(history):
        missing = max(count - np.shape(history)[1], 0)
        return np.pad(history, ((0, 0), (0, missing)))

    return dataclasses.replace(table, x0_history=wide(table.x0_history), eps_history=wide(table.eps_history))


def _times(grid: timesteps.Grid, logits: jax.Array, xp: Any = jnp) -> jax.Array:
    """Returns a grid whose gaps are those of `grid` times exp(logits), scaled to the same ends."""
    gaps = (grid[:-1] - grid[1:]) * xp.exp(logits - xp.max(logits))
    passed = xp.cumsum(gaps)
    inner = grid[0] - (grid[0] - grid[-1]) * passed[:-1] / passed[-1]
    return xp.concatenate([xp.asarray(grid[:1], inner.dtype), inner, xp.asarray(grid[-1:], inner.dtype)])


def _with_grid(table: Sampler, schedule: NoiseSchedule, times: jax.Array, xp: Any = jnp) -> Sampler:
    """Returns the table with its levels at other times."""
    if xp is np:
        alpha_bar = schedule.alpha_bar_at(times)
        signal, noise = np.sqrt(alpha_bar), np.sqrt(1.0 - alpha_bar)
    else:  # the ends are constants, where the interpolation has no finite gradient
        ends = np.sqrt(schedule.alpha_bar_at(table.grid[[0, -1]]))
        log_snr = _log_snr(schedule, times[1:-1])
        signal = jnp.concatenate([ends[:1], jnp.sqrt(jax.nn.sigmoid(log_snr)), ends[1:]])
        noise = jnp.concatenate(
            [np.sqrt(1.0 - ends[:1] ** 2), jnp.sqrt(jax.nn.sigmoid(-log_snr)), np.sqrt(1.0 - ends[1:] ** 2)]
        )
    return dataclasses.replace(
        table,
        t_net=xp.maximum(times[:-1], 0.0),
        t_from=times[:-1],
        t_to=times[1:],
        signal=signal[:-1],
        noise=noise[:-1],
        signal_to=signal[1:],
        noise_to=noise[1:],
        b=table.b + signal[1:] - table.signal_to,
        c=table.c + noise[1:] - table.noise_to,
    )


def _log_snr(schedule: NoiseSchedule, times: jax.Array) -> jax.Array:
    """Returns the log-SNR at real times above -1, as `continuous_time` does, with a slope at whole times too."""
    below = 2.0 * jnp.log(jnp.clip(times + 1.0, 1e-6, 1.0))  # between -1 and 0
    return jnp.interp(jnp.maximum(times, 0.0), np.arange(schedule.num_timesteps), schedule.log_snr) - below


def _usable(table: Sampler, name: str) -> np.ndarray:
    """Returns 1 where an entry of a column multiplies something that exists, and 0 elsewhere."""
    shape = np.shape(getattr(table, name))
    if len(shape) == 1:
        return np.ones(shape)
    rows, lags = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
    return (lags < rows).astype(float)
