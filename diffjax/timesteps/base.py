"""What the modules of spacings share: their registry, checks of grids, and the rules for repeated indices."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffjax.registry import Registry

Grid = NDArray[np.int32] | NDArray[np.float64]
"""`[S+1]`: int32 indices, or float64 times between them."""

SPACINGS = Registry("timestep spacing")
"""Functions (num_timesteps or schedule, num_steps, options) → `Grid`; they take only what they need."""


def starting_at(grid: ArrayLike, index: float) -> Grid:
    """Returns the part of a descending grid that starts at `index`: `index`, then the grid's entries below it.

    Used for images that are first noised to `index` (SDEdit, img2img). The result has no more steps than the grid.

    Args:
      grid: the grid, `[S+1]`.
      index: an index, or on a grid of real times any time.

    Raises:
      ValueError: an index outside the grid.
    """
    grid = np.asarray(grid)
    if not grid[-1] < index <= grid[0]:
        raise ValueError(f"index={index} is out of range: allowed is {grid[-1] + 1} … {grid[0]}, the range of the grid")
    part = np.append(index, grid[grid < index])
    return part.astype(np.float64) if grid.dtype.kind == "f" else part.astype(np.int32)


def check(grid: ArrayLike, num_timesteps: int) -> Grid:
    """Returns `grid` as `int32[S+1]`, or as `float64[S+1]` if it is of floats, if it is a valid grid of T timesteps.

    A time may be repeated (a step that changes nothing), but not -1.

    Args:
      grid: indices, or real times (`continuous_time`).
      num_timesteps: the number T of timesteps of the schedule.

    Raises:
      ValueError: fewer than two entries, entries that are not numbers within -1 … T-1, or an order that neither
        descends nor ascends.
    """
    given = np.asarray(grid)
    if given.ndim != 1 or len(given) < 2 or given.dtype.kind not in "iuf":
        raise ValueError(f"grid of shape {given.shape} and dtype {given.dtype} must be numbers [S+1] with S ≥ 1")
    if not (given.min() >= -1 and given.max() <= num_timesteps - 1):
        raise ValueError(f"grid={given.min()} … {given.max()} leaves -1 … {num_timesteps - 1}")
    sign = np.sign(given[-1] - given[0]) or -1
    bad = np.flatnonzero((np.sign(np.diff(given)) == -sign) | ((given[:-1] == -1) & (given[1:] == -1)))
    if bad.size or given[0] == given[-1]:
        i = bad[0] if bad.size else 0
        raise ValueError(
            f"grid must descend (or, to encode, ascend), but goes from {given[i]} to {given[i + 1]} at step {i}"
        )
    return given.astype(np.float64) if given.dtype.kind == "f" else given.astype(np.int32)


def check_count(num_timesteps: int, num_steps: int, end: int) -> None:
    """Checks that a grid of whole timesteps can have `num_steps` steps.

    Raises:
      ValueError: it cannot, or another `end` than -1 and 0.
    """
    check_end(end)
    most = num_timesteps - (end + 1)
    if not isinstance(num_steps, (int, np.integer)) or not 1 <= num_steps <= most:
        raise ValueError(
            f"num_steps={num_steps} is out of range: allowed is 1 … {most} (num_timesteps={num_timesteps})"
        )


def check_end(end: int) -> None:
    """Checks the last entry of a grid.

    Raises:
      ValueError: another `end` than -1 and 0.
    """
    if end not in (-1, 0):
        raise ValueError(f"end={end} is not one of -1 (clean data), 0")


def with_end(indices: ArrayLike, num_timesteps: int, end: int, *, allow_repeats: bool = False) -> Grid:
    """Returns starting indices, descending, and then `end`; repeats move to free places above `end` unless allowed."""
    check_end(end)
    indices = np.asarray(indices).astype(np.int64)
    if not allow_repeats:
        indices = _without_repeats(indices, end + 1, num_timesteps - 1)
    return check(np.append(indices, end), num_timesteps)


def _without_repeats(indices: np.ndarray, lowest: int, highest: int) -> np.ndarray:
    """Returns different indices, descending: each repeat (or index out of range) moves to the nearest free one."""
    size = highest - lowest + 1
    places = indices - lowest
    in_range = (places >= 0) & (places < size)
    kept, first = np.unique(np.where(in_range, places, -1), return_index=True)
    first = first[kept >= 0]
    taken = np.zeros(size, bool)
    taken[kept[kept >= 0]] = True
    if len(first) == len(places):
        return np.flatnonzero(taken)[::-1] + lowest
    # up[k] and down[k + 1] lead to the next free place at or above, and at or below, place k.
    up = [k + 1 if busy else k for k, busy in enumerate(taken)] + [size]
    down = [-1] + [k - 1 if busy else k for k, busy in enumerate(taken)]
    for place in np.delete(places, first).tolist():
        upper = _follow(up, min(max(place, 0), size), 0)
        lower = _follow(down, max(min(place, size - 1), -1), 1)
        chosen = upper if lower < 0 or (upper < size and abs(upper - place) <= abs(place - lower)) else lower
        taken[chosen], up[chosen], down[chosen + 1] = True, chosen + 1, chosen - 1
    return np.flatnonzero(taken)[::-1] + lowest


def _follow(links: list[int], start: int, shift: int) -> int:
    """Returns the end of a chain of links from place `start`, and shortens the chain (union-find)."""
    end = start
    while links[end + shift] != end:
        end = links[end + shift]
    while links[start + shift] != end:
        links[start + shift], start = end, links[start + shift]
    return end
