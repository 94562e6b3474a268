"""Samplers as tables: pure functions (schedule, grid, knobs) → `Steps`, in float64 on the host.

Every step of DDPM, DDIM and their kin is affine in what is known after a network call, so a sampler is a table with one
row a call, and `sampling.sample` is the one loop that runs it:

    x_s = a·x + b·x̂0 + c·ε̂ + d·z + Σ_k x0_history[k]·x̂0₍₋ₖ₎ + Σ_k eps_history[k]·ε̂₍₋ₖ₎

A table can be printed, plotted, compared with another library's, stacked and `vmap`ped.
"""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from diffjax import timesteps
from diffjax.schedules import NoiseSchedule


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """A sampler: R rows, one a network call. A pytree whose leaves are the columns; NumPy float64 as built.

    Another table of the same shape runs without a new compilation.
    """

    t_net: ArrayLike  # int32 [R]: the timestep the network is asked at
    t_from: ArrayLike  # int32 [R]: the level of x before the row
    t_to: ArrayLike  # int32 [R]: the level of x after it
    lands: ArrayLike  # bool [R]: whether t_to is on the grid (not so for inner calls of higher-order methods)
    signal: ArrayLike  # float [R]: √ᾱ of x where the network is asked
    noise: ArrayLike  # float [R]: √(1-ᾱ) there
    signal_to: ArrayLike  # float [R]: √ᾱ of x after the row
    noise_to: ArrayLike  # float [R]: √(1-ᾱ) there
    a: ArrayLike  # float [R]: coefficient of x
    b: ArrayLike  # float [R]: of x̂0, after clipping
    c: ArrayLike  # float [R]: of ε̂, after re-derivation
    d: ArrayLike  # float [R]: of z ~ N(0, I); with `log_var`, of exp(½ log σ²)·z
    x0_history: ArrayLike  # float [R, H]: of the x̂0 of the H rows before, newest first
    eps_history: ArrayLike  # float [R, H']: of the ε̂ of the H' rows before, newest first
    log_var: ArrayLike | None = None
    """float [R, 2]: (low, high), between which the network's `log_var_frac` f sets log σ² = low + f·(high - low)."""
    rederive_eps: bool = dataclasses.field(default=True, metadata={"static": True})
    """Whether ε̂ follows a clipped x̂0, ε̂ = (x - √ᾱ x̂0)/√(1-ᾱ), or stays as the network gave it."""

    @property
    def num_rows(self) -> int:
        """R, the number of network calls."""
        return np.shape(self.t_net)[-1]

    @property
    def num_steps(self) -> int:
        """S, the number of grid steps."""
        return int(np.sum(self.lands))

    @property
    def grid(self) -> timesteps.Grid:
        """The time grid `int32[S+1]` that the table walks along."""
        return np.append(self.t_from[0], np.asarray(self.t_to)[np.asarray(self.lands)]).astype(np.int32)

    @property
    def is_stochastic(self) -> bool:
        """Whether any row adds noise, so that a key is needed."""
        return bool(np.any(np.asarray(self.d) != 0))

    def __str__(self):
        history = [("x0", self.x0_history), ("eps", self.eps_history)]
        names = ["t_net", "from", "to", "lands", "signal", "noise", "a·x", "b·x0", "c·eps", "d·z"]
        names += [f"·{kind}[-{k + 1}]" for kind, table in history for k in range(np.shape(table)[1])]
        floats = [self.signal, self.noise, self.a, self.b, self.c, self.d]
        floats += [column for _, table in history for column in np.transpose(table)]
        if self.log_var is not None:
            names += ["logvar.lo", "logvar.hi"]
            floats += list(np.transpose(self.log_var))
        cells = [[f"{v:d}" for v in column] for column in (self.t_net, self.t_from, self.t_to)]
        cells += [["yes" if v else "no" for v in self.lands]]
        cells += [[f"{v:.6g}" for v in column] for column in floats]
        return "\n".join("".join(f"{cell:>12}" for cell in line) for line in [names, *zip(*cells, strict=True)])


def ddpm(schedule: NoiseSchedule, grid: ArrayLike, *, variance: str = "fixed_small") -> Steps:
    """Ancestral sampling (DDPM Alg. 2) along any descending grid: the posterior mean of q(x_s | x_t, x̂0) plus σ·z.

        x_s = √α(1-ᾱ_s)/(1-ᾱ_t)·x_t + √ᾱ_s(1-α)/(1-ᾱ_t)·x̂0 + σ·z,     α = ᾱ_t/ᾱ_s
        fixed_small: σ² = (1-ᾱ_s)/(1-ᾱ_t)·(1-α) (β̃);     fixed_large: σ² = 1-α (β)

    No noise is added on a step to clean data (ᾱ_s = 1).

    Args:
      grid: `int[S+1]`, strictly descending within -1 … T-1.
      variance: "fixed_small" or "fixed_large".

    Raises:
      ValueError: another variance, or a grid that is not one.
    """
    levels = _descending(schedule, grid)
    ab_t, ab_s = levels.ab_t, levels.ab_s
    alpha = ab_t / ab_s
    sigma2 = {
        "fixed_small": (1.0 - ab_s) / (1.0 - ab_t) * (1.0 - alpha),
        "fixed_large": np.where(ab_s < 1.0, 1.0 - alpha, 0.0),
    }
    if variance not in sigma2:
        raise ValueError(f"variance={variance!r} is not one of {', '.join(map(repr, sigma2))}")
    return _one_call_a_step(
        levels,
        a=np.sqrt(alpha) * (1.0 - ab_s) / (1.0 - ab_t),
        b=np.sqrt(ab_s) * (1.0 - alpha) / (1.0 - ab_t),
        d=np.sqrt(sigma2[variance]),
    )


def ddim(schedule: NoiseSchedule, grid: ArrayLike, *, eta: float = 0.0, rederive_eps: bool = True) -> Steps:
    """DDIM (Song et al. 2021, Eq. 12), with σ between neighbours of the grid itself (Eq. 16):

        x_s = √ᾱ_s·x̂0 + √(1-ᾱ_s-σ²)·ε̂ + σ·z,     σ = η·√((1-ᾱ_s)/(1-ᾱ_t)·(1-ᾱ_t/ᾱ_s))

    η = 0 is deterministic, η = 1 is `ddpm(variance="fixed_small")`.

    Args:
      grid: `int[S+1]`, strictly descending within -1 … T-1.
      eta: η in [0, 1]; it scales σ, not the variance.
      rederive_eps: whether ε̂ is derived again from a clipped x̂0; False keeps the network's (diffusers' default).

    Raises:
      ValueError: η outside [0, 1], or a grid that is not one.
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta={eta} must lie within [0, 1]")
    levels = _descending(schedule, grid)
    ab_t, ab_s = levels.ab_t, levels.ab_s
    sigma = eta * np.sqrt((1.0 - ab_s) / (1.0 - ab_t) * (1.0 - ab_t / ab_s))
    return _one_call_a_step(
        levels, b=np.sqrt(ab_s), c=np.sqrt(1.0 - ab_s - sigma**2), d=sigma, rederive_eps=rederive_eps
    )


class _Levels(NamedTuple):
    """Where each step goes from (t) and to (s): index and ᾱ, `[S]`."""

    t: np.ndarray
    s: np.ndarray
    ab_t: np.ndarray
    ab_s: np.ndarray


def _descending(schedule: NoiseSchedule, grid: ArrayLike) -> _Levels:
    grid = timesteps.check(grid, schedule.num_timesteps)
    if grid[0] < grid[-1]:
        raise ValueError(f"this sampler denoises: its time grid must descend, and this one goes {grid[0]} → {grid[-1]}")
    alpha_bar = schedule.alpha_bar_at(grid)
    return _Levels(grid[:-1], grid[1:], alpha_bar[:-1], alpha_bar[1:])


def _one_call_a_step(levels: _Levels, *, a=0.0, b=0.0, c=0.0, d=0.0, rederive_eps: bool = True) -> Steps:
    """`Steps` without inner calls, history or learned variance; coefficients are `[S]` or scalars."""
    rows = len(levels.t)
    a, b, c, d = (np.broadcast_to(np.asarray(column, np.float64), rows) for column in (a, b, c, d))
    return Steps(
        t_net=np.maximum(levels.t, 0).astype(np.int32),
        t_from=levels.t,
        t_to=levels.s,
        lands=np.ones(rows, bool),
        signal=np.sqrt(levels.ab_t),
        noise=np.sqrt(1.0 - levels.ab_t),
        signal_to=np.sqrt(levels.ab_s),
        noise_to=np.sqrt(1.0 - levels.ab_s),
        a=a,
        b=b,
        c=c,
        d=d,
        x0_history=np.zeros((rows, 0)),
        eps_history=np.zeros((rows, 0)),
        rederive_eps=rederive_eps,
    )
