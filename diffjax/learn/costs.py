"""Costs of all steps between the points of a fine grid, for `search`: the deviation from a trajectory, the KL bound."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffjax import samplers, sampling, timesteps
from diffjax.likelihood.variational import checked
from diffjax.loop import Clip, as_clip, network_call
from diffjax.noise import initial_noise, keys_of, sample_noise
from diffjax.prediction import Predict, as_predict
from diffjax.schedules import NoiseSchedule
from diffjax.timesteps import Grid


def fine_grid(schedule: NoiseSchedule, num_steps: int = 100) -> Grid:
    """Returns the grid from which the costs choose if none is given: indices about uniform in log-SNR, then -1."""
    return timesteps.log_snr(schedule, min(num_steps, schedule.num_timesteps), rounded=True)


def trajectory_costs(
    schedule: NoiseSchedule,
    predict: Predict,
    keys: jax.Array,
    shape: tuple[int, ...],
    *,
    grid: ArrayLike | None = None,
    clip: Clip = None,
) -> NDArray[np.float64]:
    """Returns how far one step of DDIM leads from a trajectory of many steps, for all pairs of its points.

    The cost of t → s is the root mean square of DDIM(x_t → s) - x_s, with x_t and x_s on the trajectory, as in GITS
    (Chen et al. 2024, "On the trajectory regularity of ODE-based diffusion sampling", Alg. 1): their sum bounds the
    error of the whole run, if later steps do not enlarge it. N network calls give all N² costs.

    Args:
      schedule: the noise schedule.
      predict: as in `sample`.
      keys: typed keys `[B]` of the initial noise; one batch.
      shape: the shape of one sample.
      grid: the points of the trajectory, `[N+1]`, descending to -1, which DPM-Solver++ of order 2 visits (default:
        `fine_grid`).
      clip: as in `sample`.

    Returns:
      `[N+1, N+1]`, as `search(costs, num_steps, grid)` takes them.

    Raises:
      ValueError: an invalid grid, or as in `sample`.
    """
    grid, signal, noise = _points(schedule, grid)
    path = sampling.sample_trajectory(
        samplers.dpm_solver_pp(schedule, grid), predict, initial_noise(keys, shape), clip=clip
    )
    x, x0 = (np.asarray(part, np.float64).reshape(len(grid), -1) for part in (path.x, path.x0))
    costs = np.full((len(grid), len(grid)), np.inf)
    for start in range(len(grid) - 1):
        eps = (x[start] - signal[start] * x0[start]) / noise[start]
        for end in range(start + 1, len(grid)):
            step = signal[end] * x0[start] + noise[end] * eps
            costs[-1 - start, -1 - end] = np.sqrt(np.mean((step - x[end]) ** 2))
    return costs


def kl_costs(
    schedule: NoiseSchedule,
    predict: Predict,
    x0: jax.Array,
    key: jax.Array,
    *,
    grid: ArrayLike | None = None,
    clip: Clip = None,
    batch_size: int = 250,
) -> NDArray[np.float64]:
    """Returns the KL bound of a step of the reverse SDE that keeps x̂0 fixed, for all pairs of a fine grid, bits/dim.

        cost(t → s) = ∫ E‖x̂0(x_u, u) - x̂0(x_t, t)‖²/d · dσ̄_u/σ̄_u³     over the levels σ̄_u between s and t

    with x_u and x_t on one path of the forward process (Girsanov's theorem; Sabour et al. 2024, "Align your steps",
    Eq. 10 in the variance-exploding form). There the levels are moved by descent; here the best of the fine grid's
    points are found exactly, since the bound is a sum over steps. The step to -1 is integrated to the last level above.

    Args:
      schedule: the noise schedule.
      predict: as in `sample`.
      x0: `[B, …]`, data.
      key: typed keys `[B]`, or one key.
      grid: the fine grid, `[N+1]`, descending to -1 (default: `fine_grid`); the integral is a sum over its points.
      clip: as in `sample`.
      batch_size: examples at a time.

    Returns:
      `[N+1, N+1]`, as `search(costs, num_steps, grid)` takes them.

    Raises:
      ValueError: an invalid grid, or arguments that are invalid for `sample`.
    """
    grid, signal, noise = _points(schedule, grid)
    x0, predict = checked(as_predict(predict), x0)
    keys, count = keys_of(key, len(x0)), len(grid) - 1
    sigma = (noise / signal)[:-1]
    rows = (
        np.arange(count, dtype=np.int32),
        np.maximum(grid[:-1], 0),
        signal[:-1],
        noise[:-1],
        np.sqrt(sigma**2 - np.append(sigma[1:], 0.0) ** 2),
    )
    square = np.zeros((count, count))
    for start in range(0, len(x0), batch_size):
        part = slice(start, start + batch_size)
        found = np.asarray(_predictions(rows, predict, x0[part], keys[part], as_clip(clip)), np.float64)
        flat = found.reshape(count, -1)
        norms = np.sum(flat**2, axis=1)
        square += np.maximum(norms[:, None] + norms[None, :] - 2.0 * flat @ flat.T, 0.0)
    square /= x0.size
    weights = 0.5 * (sigma[1:] ** -2 - sigma[:-1] ** -2)  # of the interval between point n and n + 1
    intervals = 0.5 * (square[:, 1:] + square[:, :-1]) * weights[None, :]
    costs = np.full((count + 1, count + 1), np.inf)
    for start in range(count):
        total = np.cumsum(intervals[start, start:]) / math.log(2.0)
        costs[-1 - start, : count - start] = np.append(total, total[-1:] if len(total) else 0.0)[::-1]
    return costs


@jax.jit
def _predictions(rows, predict: Predict, x0: jax.Array, keys: jax.Array, clip: Clip) -> jax.Array:
    """Returns x̂0 at every point of a path of the forward process, `[N, B, …]`."""

    def body(path, row):
        number, t, signal, noise, added = row[:2] + tuple(column.astype(x0.dtype) for column in row[2:])
        path = path + added * sample_noise(keys, number, x0.shape[1:], x0.dtype)
        found = network_call(predict, signal * path, jnp.full(len(x0), t), signal, noise, clip)
        return path, found.x0

    return jax.lax.scan(body, x0, rows, reverse=True)[1]


def _points(schedule: NoiseSchedule, grid: ArrayLike | None) -> tuple[Grid, np.ndarray, np.ndarray]:
    """Returns a fine grid and its √ᾱ and √(1-ᾱ), `[N+1]` each.

    Raises:
      ValueError: a grid that does not descend strictly to -1, or starts at ᾱ = 0.
    """
    grid = timesteps.check(fine_grid(schedule) if grid is None else grid, schedule.num_timesteps)
    if grid[-1] != -1 or not np.all(np.diff(grid) < 0):
        raise ValueError(f"grid={grid[0]} … {grid[-1]} must descend strictly to -1")
    alpha_bar = schedule.alpha_bar_at(grid)
    if alpha_bar[0] == 0.0:
        raise ValueError("grid starts at alpha_bar = 0: start it lower")
    return grid, np.sqrt(alpha_bar), np.sqrt(1.0 - alpha_bar)
