"""Time grids: `int32[S+1]`, from the noisiest index down to -1, which is clean data.

Step i of a sampler goes from `grid[i]` to `grid[i+1]`; there is no other notion of a "previous timestep". A grid
reversed encodes. Each rule below gives exactly S steps with S different starting indices.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Grid = NDArray[np.int32]


def full(num_timesteps: int) -> Grid:
    """Every index: T-1, T-2, …, 0, then -1."""
    return np.arange(num_timesteps - 1, -2, -1, dtype=np.int32)


def leading(num_timesteps: int, num_steps: int, *, offset: int = 0) -> Grid:
    """i·⌊T/S⌋ + `offset` for i = S-1 … 0, then -1 (diffusers' "leading"; DDIM's "uniform" where S divides T).

    Starts as far below T-1 as the stride and the offset leave it, so the first level still holds signal.

    Raises:
      ValueError: S outside 1 … T, or an offset that leaves 0 … T-1.
    """
    _check_count(num_timesteps, num_steps)
    grid = np.arange(num_steps)[::-1] * (num_timesteps // num_steps) + offset
    if offset < 0 or grid[0] >= num_timesteps:
        raise ValueError(f"offset={offset} puts index {grid[0]} outside 0 … {num_timesteps - 1}")
    return _ending_clean(grid)


def trailing(num_timesteps: int, num_steps: int) -> Grid:
    """round(T - i·T/S) - 1 for i = 0 … S-1, then -1 (diffusers' "trailing"): starts at T-1.

    diffusers takes the whole of `arange(T, 0, -T/S)`, which for 62 values of S at T = 1000 has one entry too many.

    Raises:
      ValueError: S outside 1 … T.
    """
    _check_count(num_timesteps, num_steps)
    levels = np.arange(num_timesteps, 0, -num_timesteps / num_steps)[:num_steps]
    return _ending_clean(np.round(levels) - 1)


def linspace(num_timesteps: int, num_steps: int) -> Grid:
    """round(i·(T-1)/(S-1)) for i = S-1 … 0, then -1 (diffusers' "linspace"): has both T-1 and 0.

    With S = 1 it starts at T-1 (diffusers starts at 0 there).

    Raises:
      ValueError: S outside 1 … T.
    """
    _check_count(num_timesteps, num_steps)
    if num_steps == 1:
        return _ending_clean([num_timesteps - 1])
    return _ending_clean(np.linspace(0, num_timesteps - 1, num_steps).round()[::-1])


def check(grid: ArrayLike, num_timesteps: int) -> Grid:
    """`grid` as `int32[S+1]`, after seeing that it is a grid of a schedule with T = `num_timesteps`.

    Raises:
      ValueError: fewer than two entries, entries that are not whole numbers or leave -1 … T-1, or an order that is
        neither strictly descending nor strictly ascending.
    """
    given = np.asarray(grid)
    if given.ndim != 1 or len(given) < 2:
        raise ValueError(f"a time grid is a vector [S+1] with S ≥ 1; this one has shape {given.shape}")
    if not np.all(given == np.floor(given)):
        raise ValueError(f"a time grid holds whole numbers; this one has {given[given != np.floor(given)][0]}")
    if given.min() < -1 or given.max() >= num_timesteps:
        raise ValueError(f"time grid {given.min()} … {given.max()} leaves -1 … {num_timesteps - 1}")
    steps = np.diff(given.astype(np.int64))
    if not (np.all(steps < 0) or np.all(steps > 0)):
        at = int(np.flatnonzero(np.sign(steps) != np.sign(steps[0]))[0]) if steps[0] else 0
        raise ValueError(
            f"a time grid descends (or, to encode, ascends) strictly; this one goes from {given[at]} to "
            f"{given[at + 1]} at step {at}"
        )
    return given.astype(np.int32)


def _check_count(num_timesteps: int, num_steps: int) -> None:
    if num_steps != int(num_steps) or not 1 <= num_steps <= num_timesteps:
        raise ValueError(f"num_steps={num_steps} is out of range: allowed is 1 … {num_timesteps} (num_timesteps)")


def _ending_clean(indices: ArrayLike) -> Grid:
    return np.append(indices, -1).astype(np.int32)
