"""Time grids that minimise a sum of costs of their steps, by dynamic programming over all grids."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffjax.schedules import NoiseSchedule
from diffjax.timesteps import Grid


class Found(NamedTuple):
    """A grid and the sum of the costs of its steps."""

    grid: Grid
    """`[S+1]`, from the first point to the last: T-1 … -1, or points of the fine grid."""
    cost: float


def search(costs: ArrayLike, num_steps: int, grid: ArrayLike | None = None) -> Found:
    """Finds the grid of S steps with the least sum of costs (Watson et al. 2021, Alg. 1): exact, in O(S·T²).

    Args:
      costs: `[T+1, T+1]`; `costs[t+1, s+1]` is the cost of the step from index t to index s < t, where -1 is clean
        data. Entries with s ≥ t are not used; infinity forbids a step.
      num_steps: S, in 1 … T.
      grid: the T+1 points that are chosen from, descending, where they are others than T-1 … -1: indices, or real times
        (`trajectory_costs`, `kl_costs`). Then rows and columns of `costs` count these points from the last.

    Raises:
      ValueError: costs of another shape or with NaN, another number of points, S out of range, or no grid of finite
        cost.

    Examples:
      The step from t to s costs (t - s)², so that equal steps are best.

      >>> t = np.arange(-1, 8)
      >>> search((t[:, None] - t) ** 2, num_steps=4)
      Found(grid=array([ 7,  5,  3,  1, -1], dtype=int32), cost=16.0)
    """
    found = _path(*_tables(costs, num_steps), num_steps)
    return found if grid is None else found._replace(grid=_points(grid, len(costs))[-2 - found.grid])


def search_all(costs: ArrayLike, most: int, grid: ArrayLike | None = None) -> list[Found]:
    """Finds the best grids of 1 … `most` steps in one pass; as `search`, but steps whose grids are infinite are kept.

    Raises:
      ValueError: as `search`.
    """
    best, previous = _tables(costs, most)
    found = [_path(best, previous, steps) for steps in range(1, most + 1)]
    if grid is None:
        return found
    points = _points(grid, len(best[0]))
    return [one._replace(grid=points[-2 - one.grid]) for one in found]


def _points(grid: ArrayLike, count: int) -> Grid:
    """Returns the points to choose from.

    Raises:
      ValueError: another number of points, or an order that does not descend.
    """
    grid = np.asarray(grid)
    if grid.shape != (count,) or not np.all(np.diff(grid) < 0):
        raise ValueError(f"grid of shape {grid.shape} must be {count} descending points, as many as costs has rows")
    return grid.astype(np.float64 if grid.dtype.kind == "f" else np.int32)


def _tables(costs: ArrayLike, most: int) -> tuple[list[NDArray[np.float64]], list[NDArray[np.int64]]]:
    """Returns, for k = 0 … most, the least cost of reaching each index from T-1 in k steps, and the index before it."""
    costs = np.asarray(costs, np.float64)
    size = len(costs)
    if costs.ndim != 2 or costs.shape != (size, size) or size < 2:
        raise ValueError(f"costs of shape {costs.shape} must be [T+1, T+1]")
    if isinstance(most, bool) or not isinstance(most, (int, np.integer)) or not 1 <= most <= size - 1:
        raise ValueError(f"num_steps={most} is out of range: allowed is 1 … {size - 1}")
    below = np.tri(size, k=-1, dtype=bool)
    if np.any(np.isnan(costs[below])):
        raise ValueError("costs has NaN")
    allowed = np.where(below, costs, np.inf)
    best = [np.where(np.arange(size) == size - 1, 0.0, np.inf)]
    previous = [np.zeros(size, np.int64)]
    for _ in range(most):
        totals = best[-1][:, None] + allowed
        previous.append(np.argmin(totals, axis=0))
        best.append(np.min(totals, axis=0))
    return best, previous


def _path(best: list[np.ndarray], previous: list[np.ndarray], num_steps: int) -> Found:
    if not np.isfinite(best[num_steps][0]):
        raise ValueError(f"num_steps={num_steps}: no grid has a finite cost")
    places = [0]
    for step in range(num_steps, 0, -1):
        places.append(int(previous[step][places[-1]]))
    return Found(np.array(places[::-1], np.int32) - 1, float(best[num_steps][0]))


def bound_costs(
    schedule: NoiseSchedule, x0_mse: ArrayLike, decoder: ArrayLike, *, variance: str = "fixed_small"
) -> NDArray[np.float64]:
    """Returns the terms of the variational bound for all steps, bits/dim, as `search` takes them.

    The term of a step t → s ≥ 0 is KL(q(x_s | x_t, x_0) ‖ N(μ(x_t, x̂0), σ²)); it depends on the network through the
    error of x̂0 at t alone, so T numbers give all T² terms (Watson et al. 2021, §3).

    Args:
      schedule: the noise schedule.
      x0_mse: `[T]`: the mean squared error of x̂0 by timestep (`likelihood.bound`, `learn.decoder_terms`).
      decoder: `[T]`: -log P(x_0 | x_t) in bits/dim where step t → -1 decodes (`learn.decoder_terms`).
      variance: σ²: "fixed_small" β̃, "fixed_large" 1 - ᾱ_t/ᾱ_s, or "optimal", the one that makes each term least.

    Raises:
      ValueError: an unknown variance, or tables of another length.
    """
    total = schedule.num_timesteps
    x0_mse, decoder = np.asarray(x0_mse, np.float64), np.asarray(decoder, np.float64)
    if x0_mse.shape != (total,) or decoder.shape != (total,):
        raise ValueError(f"x0_mse {x0_mse.shape} and decoder {decoder.shape} must be [{total}]")
    ab_t, ab_s = schedule.alpha_bars[:, None], schedule.alpha_bars[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        large = 1.0 - ab_t / ab_s
        small = (1.0 - ab_s) / (1.0 - ab_t) * large
        error = ab_s * (large / (1.0 - ab_t)) ** 2 * x0_mse[:, None]
        if variance == "fixed_small":
            nats = 0.5 * error / small
        elif variance == "fixed_large":
            nats = 0.5 * (np.log(large / small) + (small + error) / large - 1.0)
        elif variance == "optimal":
            nats = 0.5 * np.log1p(error / small)
        else:
            raise ValueError(f"variance={variance!r} is not one of 'fixed_small', 'fixed_large', 'optimal'")
    costs = np.full((total + 1, total + 1), np.inf)
    costs[1:, 1:] = np.where(np.tri(total, k=-1, dtype=bool), nats / np.log(2.0), np.inf)
    costs[1:, 0] = decoder
    return costs
