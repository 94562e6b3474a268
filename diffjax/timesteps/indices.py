"""Spacings by formulas of indices."""

import re
from collections.abc import Sequence

import numpy as np

from diffjax.timesteps.base import SPACINGS, Grid, check, check_count, check_end, with_end


@SPACINGS.register
def full(num_timesteps: int, *, end: int = -1) -> Grid:
    """Returns every index: T-1, T-2, …, 0, then -1 (or down to 0).

    Args:
      num_timesteps: the number T of timesteps.
      end: the last entry, -1 (clean data) or 0.

    Raises:
      ValueError: another `end`, or a grid without steps.
    """
    return with_end(np.arange(num_timesteps - 1, end, -1), num_timesteps, end)


@SPACINGS.register
def leading(num_timesteps: int, num_steps: int, *, offset: int = 0, end: int = -1) -> Grid:
    """Returns i·⌊T/S⌋ + `offset` for i = S-1 … 0, then -1 (diffusers' "leading"; DDIM's "uniform" if S divides T).

    The first index lies below T-1, unless the offset makes up for it, so x still holds some signal there. With S = 1
    it is the offset. With `end=0`: i·⌊T/(S+1)⌋ for i = S … 0, without an offset.

    Args:
      num_timesteps: the number T of timesteps.
      num_steps: the number S of steps.
      offset: the number added to each index; diffusers lets it move the first index to T and beyond, which is invalid
        here.
      end: the last entry, -1 (clean data) or 0.

    Raises:
      ValueError: S out of range, an offset that leaves 0 … T-1, or another `end`.

    Examples:
      >>> leading(1000, 4)
      array([750, 500, 250,   0,  -1], dtype=int32)
    """
    check_count(num_timesteps, num_steps, end)
    nodes = num_steps + (end == 0)
    indices = np.arange(nodes)[::-1] * (num_timesteps // nodes) + offset
    if offset < 0 or indices[0] >= num_timesteps or (offset and end == 0):
        raise ValueError(f"offset={offset} puts index {indices[0]} outside 0 … {num_timesteps - 1}, or end=0 off 0")
    return with_end(indices[:num_steps], num_timesteps, end)


@SPACINGS.register
def trailing(
    num_timesteps: int, num_steps: int, *, rounding: str = "nearest", as_diffusers: bool = False, end: int = -1
) -> Grid:
    """Returns round(T - i·T/S) - 1 for i = 0 … S-1, then -1 (diffusers' "trailing"): starts at T-1.

    diffusers takes all of `arange(T, 0, -T/S)`, which has one entry too many for 62 values of S at T = 1000.
    `rounding="floor"` is ⌊(S-i)·T/S⌋ - 1, the same if S divides T: the intention of code that truncates
    `linspace(T, 0, S+1)` (or `linspace(-1, T-1, S+1)`). In float32 such code is off by one somewhere for 63 values of S
    at T = 1000; here the result is exact. With `end=0`: round(T - i·(T-1)/S) - 1.

    Args:
      num_timesteps: the number T of timesteps.
      num_steps: the number S of steps.
      rounding: how indices are rounded, to the "nearest" whole number or down ("floor").
      as_diffusers: whether to refuse an S for which diffusers makes S + 1 steps, the last from index -1.
      end: the last entry, -1 (clean data) or 0.

    Raises:
      ValueError: S out of range, or one that is refused; an unknown rounding, or another `end`.

    Examples:
      >>> trailing(1000, 4)
      array([999, 749, 499, 249,  -1], dtype=int32)
    """
    check_count(num_timesteps, num_steps, end)
    if rounding not in ("nearest", "floor"):
        raise ValueError(f"rounding={rounding!r} is not one of 'nearest', 'floor'")
    span, i = num_timesteps - (end + 1), np.arange(num_steps)
    if rounding == "floor":
        return with_end((num_steps - i) * span // num_steps + end, num_timesteps, end)
    levels = np.arange(num_timesteps, end + 1, -span / num_steps)
    if as_diffusers and len(levels) > num_steps:
        raise ValueError(
            f"num_steps={num_steps} makes {len(levels)} steps in diffusers, the last from index -1; take another "
            "number, or as_diffusers=False"
        )
    return with_end(np.round(levels[:num_steps]) - 1, num_timesteps, end)


@SPACINGS.register
def linspace(num_timesteps: int, num_steps: int, *, as_diffusers: bool = False, end: int = -1) -> Grid:
    """Returns round(i·(T-1)/(S-1)) for i = S-1 … 0, then -1 (diffusers' "linspace"): includes T-1 and 0.

    diffusers' DDIM nevertheless steps to t - ⌊T/S⌋, not to the next entry (`samplers.ddim(stride_end=…)`). With S = 1
    the grid starts at T-1 (in diffusers, and with `as_diffusers`, at 0). With `end=0`: round(i·(T-1)/S) for i = S … 0.

    Args:
      num_timesteps: the number T of timesteps.
      num_steps: the number S of steps.
      as_diffusers: whether a single step starts at index 0.
      end: the last entry, -1 (clean data) or 0.

    Raises:
      ValueError: S out of range, or another `end`.
    """
    check_count(num_timesteps, num_steps, end)
    nodes, single = num_steps + (end == 0), 0 if as_diffusers else num_timesteps - 1
    indices = np.linspace(0, num_timesteps - 1, nodes).round()[::-1] if nodes > 1 else [single]
    return with_end(indices[:num_steps], num_timesteps, end)


@SPACINGS.register
def uniform(num_timesteps: int, *, stride: int, last: bool = False, end: int = -1) -> Grid:
    """Returns every `stride`-th index, 0, stride, 2·stride, … < T, descending, then -1: ⌈T/stride⌉ steps.

    DDIM's code has stride = ⌊T/S⌋ and makes more than S steps if S does not divide T (31 for S = 30, 143 for 128).

    Args:
      num_timesteps: the number T of timesteps.
      stride: the distance between indices, in 1 … T; some code calls it tau.
      last: whether to include T-1; it is never repeated, unlike in code that appends it where the stride divides T-1.
      end: the last entry, -1 (clean data) or 0.

    Raises:
      ValueError: a stride out of range, or another `end`.
    """
    check_end(end)
    if not (1 <= stride <= num_timesteps and stride == int(stride)):
        raise ValueError(f"stride={stride} is out of range: allowed is 1 … {num_timesteps}")
    indices = np.arange(0, num_timesteps, int(stride))
    indices = np.union1d(indices, [num_timesteps - 1]) if last else indices
    return with_end(indices[indices > end][::-1], num_timesteps, end)


@SPACINGS.register
def quadratic(
    num_timesteps: int,
    num_steps: int,
    *,
    fraction: float = 0.8,
    last: bool = False,
    allow_repeats: bool = False,
    end: int = -1,
) -> Grid:
    """Returns ⌊(i·√(`fraction`·T)/(n-1))²⌋ for i = n-1 … 0, then -1: dense near clean data (DDIM App. D.2; "quad").

    n = S, or S-1 with `last`, which puts T-1 first (some code calls that "exp", which it is not). Without it the grid
    starts at 0.8·T, where x is not quite noise; with S = 1, at index 0. At T = 1000 the formula repeats indices from
    S = 30 on (29 different ones; 49 for S = 50, 688 for S = 1000).

    Args:
      num_timesteps: the number T of timesteps.
      num_steps: the number S of steps.
      fraction: the share of T at which the formula starts, in (0, 1].
      last: whether T-1 is put first.
      allow_repeats: whether to keep repeated indices, each of which is a step that changes nothing, as in DDIM's
        published figures.
      end: the last entry, -1 (clean data) or 0 (then n includes the 0).

    Raises:
      ValueError: S out of range, a fraction outside (0, 1], or another `end`.

    Examples:
      >>> quadratic(1000, 4)
      array([800, 355,  88,   0,  -1], dtype=int32)
    """
    check_count(num_timesteps, num_steps, end)
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"fraction={fraction} must be within (0, 1]")
    count = num_steps + (end == 0) - last
    squares = np.linspace(0.0, np.sqrt(fraction * num_timesteps), count) ** 2
    indices = np.minimum(squares.astype(np.int64), num_timesteps - 1)[::-1]
    indices = np.append(num_timesteps - 1, indices) if last else indices
    return with_end(indices[:num_steps], num_timesteps, end, allow_repeats=allow_repeats)


@SPACINGS.register
def exponential(num_timesteps: int, num_steps: int, *, end: int = -1) -> Grid:
    """Returns round(T^{i/(S-1)}) - 1 for i = S-1 … 0, then -1: index + 1 falls by a constant factor from T to 1.

    Low indices that the formula repeats move up to free ones and become consecutive.

    Args:
      num_timesteps: the number T of timesteps.
      num_steps: the number S of steps.
      end: the last entry, -1 (clean data) or 0.

    Raises:
      ValueError: S out of range, or another `end`.
    """
    check_count(num_timesteps, num_steps, end)
    nodes = num_steps + (end == 0)
    indices = np.geomspace(num_timesteps, 1, nodes).round() - 1 if nodes > 1 else [num_timesteps - 1]
    return with_end(indices[:num_steps], num_timesteps, end)


@SPACINGS.register
def sections(num_timesteps: int, counts: str | Sequence[int], *, end: int = -1) -> Grid:
    """Spreads `counts[k]` indices over section k of equal sections of T (improved-diffusion's `space_timesteps`).

    A section of length `size` (the first T mod n are one longer) has the indices start + round(j·(size-1)/(count-1)),
    j = 0 … count-1, which include both its ends; halves round to even. The grid then ends at -1.

    Args:
      num_timesteps: the number T of timesteps.
      counts: the numbers of indices, clean end first, as a list or a string ("10,10,20"). The string "ddimN" means
        every i-th index, with the smallest i that gives exactly N; at T = 1000, no i does for 938 of the N in 1 … 1000.
      end: the last entry, -1 (clean data) or 0 (one step fewer, since every such list contains 0).

    Raises:
      ValueError: a section with fewer indices than its count, counts that are not numbers ≥ 1, an N without a stride.
    """
    if isinstance(counts, str):
        if counts.startswith("ddim"):
            return _ddim_n(num_timesteps, counts, end)
        try:
            counts = [int(part) for part in counts.split(",")]
        except ValueError:
            raise ValueError(f"counts={counts!r} must be numbers separated by commas, or 'ddimN'") from None
    if not 1 <= len(counts) <= num_timesteps:
        raise ValueError(f"counts has {len(counts)} sections; it must have 1 … {num_timesteps} (num_timesteps)")
    size, extra = divmod(num_timesteps, len(counts))
    indices, start = [], 0
    for k, count in enumerate(counts):
        length = size + (k < extra)
        if not isinstance(count, (int, np.integer)) or not 1 <= count <= length:
            raise ValueError(f"counts[{k}]={count} is out of range: allowed is 1 … {length}, the section's length")
        stride = (length - 1) / (count - 1) if count > 1 else 1
        # A cumulative sum, as in improved-diffusion: the rounding of halves depends on it.
        offsets = np.append(0.0, np.cumsum(np.full(count - 1, float(stride)))).tolist()
        indices.extend(start + round(offset) for offset in offsets)
        start += length
    return with_end([index for index in indices[::-1] if index > end], num_timesteps, end)


@SPACINGS.register
def explicit(num_timesteps: int, indices: Sequence[int], *, end: int = -1) -> Grid:
    """Returns the given starting indices, then `end`; for published lists such as those of Align Your Steps.

    Args:
      num_timesteps: the number T of timesteps.
      indices: the starting indices, descending.
      end: the last entry, -1 (clean data) or 0.

    Raises:
      ValueError: indices that are not a grid.
    """
    check_end(end)
    if not len(indices):
        raise ValueError(f"indices={indices!r} must have at least one index")
    return check(np.append(np.asarray(indices), end), num_timesteps)


def _ddim_n(num_timesteps: int, name: str, end: int) -> Grid:
    if not re.fullmatch("ddim[1-9][0-9]{0,8}", name):
        raise ValueError(f"counts={name!r} must have a number of steps after 'ddim'")
    count = int(name[4:])
    for stride in range(1, num_timesteps):
        if len(range(0, num_timesteps, stride)) == count:
            return uniform(num_timesteps, stride=stride, end=end)
    raise ValueError(f"counts={name!r}: no whole stride gives exactly {count} of {num_timesteps} indices")
