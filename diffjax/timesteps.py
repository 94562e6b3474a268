"""Time grids: `int32[S+1]`, from the noisiest index down to -1, which is clean data.

Step i of a sampler goes from `grid[i]` to `grid[i+1]`; there is no other notion of a "previous timestep". A grid
reversed encodes. Rules that count steps give exactly S of them, with S different starting indices: where a formula
repeats an index, the later one moves to the nearest free index (upwards if two are as near). `end=0` stops a grid at
index 0, where ᾱ_0 still leaves a little noise, as some code does.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffjax.schedules import NoiseSchedule

Grid = NDArray[np.int32]


def full(num_timesteps: int, *, end: int = -1) -> Grid:
    """Every index: T-1, T-2, …, 0, then -1 (or to 0).

    Raises:
      ValueError: another `end`, or no step.
    """
    return _grid(np.arange(num_timesteps - 1, end, -1), num_timesteps, end)


def leading(num_timesteps: int, num_steps: int, *, offset: int = 0, end: int = -1) -> Grid:
    """i·⌊T/S⌋ + `offset` for i = S-1 … 0, then -1 (diffusers' "leading"; DDIM's "uniform" where S divides T).

    Starts as far below T-1 as the stride and the offset leave it, so the first level still holds signal. diffusers lets
    the offset push the first index to T and beyond. With S = 1 it starts at the offset, index 0. To end at 0:
    i·⌊T/(S+1)⌋ for i = S … 0, and no offset.

    Raises:
      ValueError: S out of range, an offset that leaves 0 … T-1, or another `end`.
    """
    _check_count(num_timesteps, num_steps, end)
    nodes = num_steps + (end == 0)
    indices = np.arange(nodes)[::-1] * (num_timesteps // nodes) + offset
    if offset < 0 or indices[0] >= num_timesteps or (offset and end == 0):
        raise ValueError(f"offset={offset} puts index {indices[0]} outside 0 … {num_timesteps - 1}, or end=0 off 0")
    return _grid(indices[:num_steps], num_timesteps, end)


def trailing(num_timesteps: int, num_steps: int, *, rounding: str = "nearest", end: int = -1) -> Grid:
    """round(T - i·T/S) - 1 for i = 0 … S-1, then -1 (diffusers' "trailing"): starts at T-1.

    diffusers takes the whole of `arange(T, 0, -T/S)`, which for 62 values of S at T = 1000 has one entry too many.
    `rounding="floor"` is ⌊(S-i)·T/S⌋ - 1, the same where S divides T: what code that truncates `linspace(T, 0, S+1)`
    (or `linspace(-1, T-1, S+1)`) means to give. In float32 such truncation is off by one somewhere for 63 values of S
    at T = 1000; here it is exact. To end at 0: round(T - i·(T-1)/S) - 1.

    Raises:
      ValueError: S out of range, another rounding, or another `end`.
    """
    _check_count(num_timesteps, num_steps, end)
    if rounding not in ("nearest", "floor"):
        raise ValueError(f"rounding={rounding!r} is not one of 'nearest', 'floor'")
    span, i = num_timesteps - (end + 1), np.arange(num_steps)
    if rounding == "floor":
        return _grid((num_steps - i) * span // num_steps + end, num_timesteps, end)
    levels = np.arange(num_timesteps, end + 1, -span / num_steps)[:num_steps]
    return _grid(np.round(levels) - 1, num_timesteps, end)


def linspace(num_timesteps: int, num_steps: int, *, end: int = -1) -> Grid:
    """round(i·(T-1)/(S-1)) for i = S-1 … 0, then -1 (diffusers' "linspace"): has both T-1 and 0.

    diffusers then steps to t - ⌊T/S⌋ all the same, which is not the next entry. With S = 1 it starts at T-1 (diffusers
    starts at 0 there). To end at 0: round(i·(T-1)/S) for i = S … 0.

    Raises:
      ValueError: S out of range, or another `end`.
    """
    _check_count(num_timesteps, num_steps, end)
    nodes = num_steps + (end == 0)
    indices = np.linspace(0, num_timesteps - 1, nodes).round()[::-1] if nodes > 1 else [num_timesteps - 1]
    return _grid(indices[:num_steps], num_timesteps, end)


def uniform(num_timesteps: int, *, stride: int, last: bool = False, end: int = -1) -> Grid:
    """Every `stride`-th index, 0, stride, 2·stride, … < T, descending, then -1: ⌈T/stride⌉ steps, whatever that is.

    DDIM's code has stride = ⌊T/S⌋ and gets more than S steps where S does not divide T (31 for S = 30, 143 for 128).

    Args:
      num_timesteps: T.
      stride: in 1 … T; some code calls it tau.
      last: T-1 as well. Code that appends it blindly repeats it where the stride divides T-1; here it stands once.
      end: -1, or 0 to stop at index 0.

    Raises:
      ValueError: a stride out of range, or another `end`.
    """
    _check_end(end)
    if stride != int(stride) or not 1 <= stride <= num_timesteps:
        raise ValueError(f"stride={stride} is out of range: allowed is 1 … {num_timesteps}")
    indices = np.arange(0, num_timesteps, int(stride))
    indices = np.union1d(indices, [num_timesteps - 1]) if last else indices
    return _grid(indices[indices > end][::-1], num_timesteps, end)


def quadratic(
    num_timesteps: int,
    num_steps: int,
    *,
    fraction: float = 0.8,
    last: bool = False,
    allow_repeats: bool = False,
    end: int = -1,
) -> Grid:
    """⌊(i·√(`fraction`·T)/(n-1))²⌋ for i = n-1 … 0, then -1: dense near clean data (DDIM App. D.2; "quad").

    n = S, or S-1 with `last`, which puts T-1 in front (some code calls that "exp", and it is not). Without it the grid
    starts at 0.8·T, where x is not quite noise; with S = 1, at index 0. At T = 1000 the formula repeats indices from
    S = 30 on (29 different ones; 49 for S = 50, 688 for S = 1000).

    Args:
      num_timesteps: T.
      num_steps: S.
      fraction: of T, in (0, 1].
      last: whether T-1 goes in front.
      allow_repeats: keep the formula's list with its repeats, each of which is a step that changes nothing. DDIM's
        published figures used it.
      end: -1, or 0 to stop at index 0 (then n counts the 0 as well).

    Raises:
      ValueError: S out of range, a fraction outside (0, 1], or another `end`.
    """
    _check_count(num_timesteps, num_steps, end)
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"fraction={fraction} must lie within (0, 1]")
    count = num_steps + (end == 0) - last
    squares = np.linspace(0.0, np.sqrt(fraction * num_timesteps), count) ** 2
    indices = np.minimum(squares.astype(np.int64), num_timesteps - 1)[::-1]
    indices = np.append(num_timesteps - 1, indices) if last else indices
    return _grid(indices[:num_steps], num_timesteps, end, allow_repeats=allow_repeats)


def exponential(num_timesteps: int, num_steps: int, *, end: int = -1) -> Grid:
    """round(T^{i/(S-1)}) - 1 for i = S-1 … 0, then -1: index + 1 falls by a constant factor from T to 1.

    Low indices repeat, and move up to free ones: they are then consecutive.

    Raises:
      ValueError: S out of range, or another `end`.
    """
    _check_count(num_timesteps, num_steps, end)
    nodes = num_steps + (end == 0)
    indices = np.geomspace(num_timesteps, 1, nodes).round() - 1 if nodes > 1 else [num_timesteps - 1]
    return _grid(indices[:num_steps], num_timesteps, end)


def sections(num_timesteps: int, counts: str | Sequence[int], *, end: int = -1) -> Grid:
    """improved-diffusion's `space_timesteps`: T cut into equal sections, `counts[k]` indices spread over section k.

    A section of `size` (the first T mod n are one longer) gives start + round(j·(size-1)/(count-1)), j = 0 … count-1:
    it has both its ends. Halves round to even. Then -1.

    Args:
      num_timesteps: T.
      end: -1, or 0 to stop at index 0, which every such list has (one step fewer).
      counts: the numbers, clean end first, or a string of them ("10,10,20"). "ddimN" instead is every i-th index with
        the smallest i that gives exactly N of them: for 938 of the N in 1 … 1000 at T = 1000 there is none.

    Raises:
      ValueError: a section with fewer indices than its count, counts that are not numbers ≥ 1, an N without a stride.
    """
    if isinstance(counts, str):
        if counts.startswith("ddim"):
            return _ddim_n(num_timesteps, counts, end)
        try:
            counts = [int(part) for part in counts.split(",")]
        except ValueError:
            raise ValueError(f"counts={counts!r} must be numbers with commas between them, or 'ddimN'") from None
    if not len(counts):
        raise ValueError("counts is empty: at least one section is needed")
    size, extra = divmod(num_timesteps, len(counts))
    indices, start = [], 0
    for k, count in enumerate(counts):
        length = size + (k < extra)
        if not 1 <= count <= length:
            raise ValueError(f"counts[{k}]={count} is out of range: allowed is 1 … {length}, the section's length")
        stride = (length - 1) / (count - 1) if count > 1 else 1
        # Summed up step by step, as improved-diffusion does: halves depend on it.
        offsets = np.append(0.0, np.cumsum(np.full(count - 1, float(stride)))).tolist()
        indices.extend(start + round(offset) for offset in offsets)
        start += length
    return _grid([index for index in indices[::-1] if index > end], num_timesteps, end)


def karras(schedule: NoiseSchedule, num_steps: int, *, rho: float = 7.0, end: int = -1) -> Grid:
    """The indices whose σ̄ is nearest (in log) to Karras et al. 2022, Eq. 5, between σ̄_{T-1} and σ̄_0; then -1.

        σ̄_i = (σ̄_max^{1/ρ} + i/(S-1)·(σ̄_min^{1/ρ} - σ̄_max^{1/ρ}))^ρ,     i = 0 … S-1

    To end at 0: S + 1 such levels, the last of which is index 0.

    Raises:
      ValueError: S out of range, ρ ≤ 0, or a schedule that ends at ᾱ = 0, where σ̄ is infinite.
    """
    _check_count(schedule.num_timesteps, num_steps, end)
    if not rho > 0.0:
        raise ValueError(f"rho={rho} must be > 0")
    sigma_bars = schedule.sigma_bars
    if not np.isfinite(sigma_bars[-1]):
        raise ValueError("this schedule ends at alpha_bar = 0, where sigma_bar is infinite: Karras' rule has no start")
    levels = np.linspace(sigma_bars[-1] ** (1 / rho), sigma_bars[0] ** (1 / rho), num_steps + (end == 0)) ** rho
    return _grid(_nearest(np.log(sigma_bars), np.log(levels))[:num_steps], schedule.num_timesteps, end)


def explicit(num_timesteps: int, indices: Sequence[int], *, end: int = -1) -> Grid:
    """The given starting indices, descending, then `end`: lists such as those of Align Your Steps.

    Raises:
      ValueError: indices that are no grid.
    """
    _check_end(end)
    return check(np.append(np.asarray(indices), end), num_timesteps)


def starting_at(grid: ArrayLike, index: int) -> Grid:
    """What a descending grid does from level `index` on: `index`, then the grid's entries below it.

    For refinement of an image noised to `index` (SDEdit, img2img). The number of steps is what is left.

    Raises:
      ValueError: an index the grid does not span.
    """
    grid = np.asarray(grid)
    if not grid[-1] < index <= grid[0]:
        raise ValueError(f"index={index} is out of range: allowed is {grid[-1] + 1} … {grid[0]}, what the grid spans")
    return np.append(index, grid[grid < index]).astype(np.int32)


def check(grid: ArrayLike, num_timesteps: int) -> Grid:
    """`grid` as `int32[S+1]`, after seeing that it is a grid of a schedule with T = `num_timesteps`.

    An index may be repeated (a step that changes nothing), but not -1.

    Raises:
      ValueError: fewer than two entries, entries that are not whole numbers or leave -1 … T-1, or an order that neither
        descends nor ascends.
    """
    given = np.asarray(grid)
    if given.ndim != 1 or len(given) < 2:
        raise ValueError(f"a time grid is a vector [S+1] with S ≥ 1; this one has shape {given.shape}")
    if not np.all(given == np.floor(given)):
        raise ValueError(f"a time grid holds whole numbers; this one has {given[given != np.floor(given)][0]}")
    if given.min() < -1 or given.max() >= num_timesteps:
        raise ValueError(f"time grid {given.min()} … {given.max()} leaves -1 … {num_timesteps - 1}")
    sign = np.sign(given[-1] - given[0]) or -1
    bad = np.flatnonzero((np.sign(np.diff(given)) == -sign) | ((given[:-1] == -1) & (given[1:] == -1)))
    if bad.size or given[0] == given[-1]:
        i = bad[0] if bad.size else 0
        raise ValueError(
            f"a time grid descends (or, to encode, ascends), but goes from {given[i]} to {given[i + 1]} at step {i}"
        )
    return given.astype(np.int32)


def _ddim_n(num_timesteps: int, name: str, end: int) -> Grid:
    if not name[4:].isdigit() or not int(name[4:]):
        raise ValueError(f"counts={name!r}: 'ddim' must be followed by a number of steps")
    count = int(name[4:])
    for stride in range(1, num_timesteps):
        if len(range(0, num_timesteps, stride)) == count:
            return uniform(num_timesteps, stride=stride, end=end)
    raise ValueError(f"counts={name!r}: no whole stride gives exactly {count} of {num_timesteps} indices")


def _nearest(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.abs(table[None, :] - values[:, None]).argmin(axis=1)


def _check_count(num_timesteps: int, num_steps: int, end: int) -> None:
    _check_end(end)
    most = num_timesteps - (end + 1)
    if not isinstance(num_steps, (int, np.integer)) or not 1 <= num_steps <= most:
        raise ValueError(
            f"num_steps={num_steps} is out of range: allowed is 1 … {most} (num_timesteps={num_timesteps})"
        )


def _check_end(end: int) -> None:
    if end not in (-1, 0):
        raise ValueError(f"end={end} is not one of -1 (clean data), 0")


def _grid(indices: ArrayLike, num_timesteps: int, end: int, *, allow_repeats: bool = False) -> Grid:
    """Starting indices, descending, and then `end`; unless they may repeat, moved apart to free places above `end`."""
    _check_end(end)
    indices = np.asarray(indices).astype(np.int64)
    if not allow_repeats:
        indices = _moved_apart(indices, end + 1, num_timesteps - 1)
    return check(np.append(indices, end), num_timesteps)


def _moved_apart(indices: np.ndarray, lowest: int, highest: int) -> np.ndarray:
    """Different indices, descending: each repeat (or index out of range) goes to the nearest free one."""
    free = np.ones(highest - lowest + 1, bool)
    in_range = (indices >= lowest) & (indices <= highest)
    kept, first = np.unique(np.where(in_range, indices, lowest - 1), return_index=True)
    free[kept[kept >= lowest] - lowest] = False
    firsts = first[kept >= lowest]
    for index in np.delete(indices, firsts):
        places = np.flatnonzero(free) + lowest
        distance = np.abs(places - index)
        place = places[len(places) - 1 - distance[::-1].argmin()]  # the upper one of two
        free[place - lowest] = False
    return np.flatnonzero(~free)[::-1] + lowest
