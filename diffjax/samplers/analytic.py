"""Samplers of optimal variance (Analytic-DPM, Bao et al. 2022), from moments of a network that are kept in a file."""

import dataclasses
import os
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffjax import files, json_files
from diffjax.errors import UserError
from diffjax.samplers.ancestral import ddim
from diffjax.samplers.base import SAMPLERS, descending
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler

_ARRAYS = ("eps_square", "error", "x0_mse", "x0_mse_error", "decoder", "decoder_error")


class Moments(NamedTuple):
    """What a network predicts on average, by timestep: means over examples, `[T]` each, and their standard errors."""

    eps_square: NDArray[np.float64]
    """E‖ε̂‖²/d, the mean over examples and elements."""
    error: NDArray[np.float64]
    """The standard error of `eps_square`."""
    x0_mse: NDArray[np.float64]
    """E‖x̂0 - x_0‖²/d."""
    x0_mse_error: NDArray[np.float64]
    num: int
    """The number of examples."""
    decoder: NDArray[np.float64] | None = None
    """-log P(x_0 | x_t) in bits/dim if the last step of a grid starts at t, with the variance `x0_mse`."""
    decoder_error: NDArray[np.float64] | None = None


def save_moments(path: str | os.PathLike, schedule: NoiseSchedule, moments: Moments, protocol: str = "") -> None:
    """Writes moments as JSON, with the schedule that they belong to and a sentence on how they were estimated."""
    arrays = {name: np.asarray(value).tolist() for name in _ARRAYS if (value := getattr(moments, name)) is not None}
    facts = {"protocol": protocol, "num": int(moments.num), "alpha_bars": schedule.alpha_bars.tolist()}
    json_files.write_record(path, facts | arrays)


def load_moments(path: str | os.PathLike, schedule: NoiseSchedule) -> Moments:
    """Reads the moments that `save_moments` or `diffjax moments` has written.

    Raises:
      ValueError: a file that is missing or damaged, or moments of another schedule.
    """
    name = f"path={os.fspath(path)!r}"
    try:
        record = json_files.read_record(files.to_path(path), "it does not exist: `diffjax moments` writes it")
        alpha_bars = np.array(record["alpha_bars"], np.float64)
        arrays = {name: np.array(record[name], np.float64) for name in _ARRAYS if name in record}
        found = Moments(num=int(record["num"]), **arrays)
    except (UserError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name} holds no moments: {' '.join(str(error).split())}") from error
    total = schedule.num_timesteps
    if alpha_bars.shape != (total,) or not np.allclose(alpha_bars, schedule.alpha_bars, rtol=1e-6, atol=1e-12):
        raise ValueError(f"{name} holds moments of another schedule")
    if any(array.shape != (total,) or not np.all(np.isfinite(array)) for array in arrays.values()):
        raise ValueError(f"{name} holds no moments: each must be {total} finite numbers")
    return found


def analytic_variances(
    schedule: NoiseSchedule,
    grid: ArrayLike,
    eps_square: ArrayLike,
    *,
    eta: float = 1.0,
    largest: float | None = 1.0,
) -> NDArray[np.float64]:
    """Returns the variance σ*² of each step that minimises the KL divergence of the reverse chain (Bao et al. 2022).

        σ*² = λ² + (√((1-ᾱ_t)/α) - √(1-ᾱ_s-λ²))²·(1 - E‖ε̂‖²/d),     α = ᾱ_t/ᾱ_s          (Theorem 1)

    λ is the σ of DDIM's mean (Eq. 16 there, scaled by η; η = 1 is DDPM's mean). The result is bounded below by λ² and
    above by the two limits of Theorem 2, the second of which needs data within ± `largest`. It is 0 on a step to clean
    data, where samplers add no noise.

    Args:
      schedule: the noise schedule.
      grid: `[S+1]`, descending, of indices or real times.
      eps_square: `[T]`: E‖ε̂‖²/d by timestep (`learn.moments`); between timesteps it is interpolated linearly.
      eta: η in [0, 1].
      largest: the largest absolute value of the data; None: no such limit.

    Raises:
      ValueError: another length of `eps_square`, η outside [0, 1], or an invalid grid.
    """
    eps_square = np.asarray(eps_square, np.float64)
    if eps_square.shape != (schedule.num_timesteps,):
        raise ValueError(f"eps_square of shape {eps_square.shape} must be [{schedule.num_timesteps}]")
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta={eta} must be within [0, 1]")
    levels = descending(schedule, grid)
    ab_t, ab_s = levels.ab_t, levels.ab_s
    square = np.interp(np.maximum(levels.t, 0), np.arange(schedule.num_timesteps), eps_square)
    alpha = ab_t / ab_s
    mean = eta**2 * (1.0 - ab_s) / (1.0 - ab_t) * (1.0 - alpha)
    direction = np.sqrt(np.maximum(1.0 - ab_s - mean, 0.0))
    spread = (np.sqrt((1.0 - ab_t) / alpha) - direction) ** 2
    variance = mean + spread * np.clip(1.0 - square, 0.0, 1.0)
    if largest is not None:
        scale = (np.sqrt(ab_s) - direction * np.sqrt(ab_t / (1.0 - ab_t))) ** 2
        variance = np.minimum(variance, mean + scale * largest**2)
    return np.where(levels.s == -1, 0.0, variance)


def with_variances(table: Sampler, variances: ArrayLike) -> Sampler:
    """Returns a table of one row a step with noise of the given variances, `[S]`; the means stay as they are.

    Raises:
      ValueError: another number of variances than rows, negative ones, or a table of learned variance.
    """
    variances = np.asarray(variances, np.float64)
    if variances.shape != (table.num_rows,) or not np.all(variances >= 0.0) or table.log_var is not None:
        raise ValueError(
            f"variances of shape {variances.shape} must be {table.num_rows} numbers ≥ 0, for a table without log_var"
        )
    return dataclasses.replace(table, d=np.sqrt(variances))


@SAMPLERS.register
def analytic(schedule: NoiseSchedule, grid: ArrayLike, *, path: str, eta: float = 1.0, largest: float = 1.0) -> Sampler:
    """Builds DDPM (η = 1) or DDIM with the optimal variance of each step (`analytic_variances`).

    Args:
      schedule: the noise schedule.
      grid: `[S+1]`, descending, of indices or real times.
      path: the file of the network's moments, which `diffjax moments` writes.
      eta: η of the mean, in [0, 1]. The noise is larger than DDIM's at the same η, and not 0 at η = 0.
      largest: the largest absolute value of the data, which bounds the variances.

    Raises:
      ValueError: a file that is missing or damaged, moments of another schedule, η outside [0, 1], or an invalid grid.
    """
    if not largest > 0.0:
        raise ValueError(f"largest={largest} must be > 0")
    table = ddim(schedule, grid, eta=eta)
    eps_square = load_moments(path, schedule).eps_square
    return with_variances(table, analytic_variances(schedule, grid, eps_square, eta=eta, largest=largest))
