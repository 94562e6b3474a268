"""What the modules of schedules share: `NoiseSchedule`, its builders from β or ᾱ, and the registry."""

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffjax import continuous_time
from diffjax.registry import Registry

Table = NDArray[np.float64]

SCHEDULES = Registry("schedule")
"""Functions (options) → `NoiseSchedule`."""

MAX_TIMESTEPS = 1_000_000
"""The largest number of timesteps of a schedule."""


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The forward process q of DDPM (Ho et al. 2020, §2), as tables of shape `[T]`, float64 and read-only.

    Build one with `linear`, `cosine`, … or `from_betas`. The names of the same tables in the common PyTorch class
    (`GaussianDiffusion`) are given in brackets: `alpha_bars` [alphas_cumprod], `alpha_bars_prev` [alphas_cumprod_prev],
    `sqrt_recip_alpha_bars` [sqrt_recip_alphas_cumprod], `sqrt_recipm1_alpha_bars` [sqrt_recipm1_alphas_cumprod],
    `posterior_mean_coef_x0` [posterior_mean_coef1], `posterior_mean_coef_xt` [posterior_mean_coef2].
    """

    betas: Table

    def __post_init__(self):
        object.__setattr__(self, "betas", _frozen(_checked_betas(self.betas)))
        if np.any(zero := self.alpha_bars[:-1] == 0.0):
            raise ValueError(
                f"betas are too large: alpha_bar is 0 at t={zero.argmax()}; it may be 0 at the last t only"
            )

    @property
    def num_timesteps(self) -> int:
        """The number T of noising steps."""
        return len(self.betas)

    @cached_property
    def alphas(self) -> Table:
        """α_t = 1 - β_t."""
        return _frozen(1.0 - self.betas)

    @cached_property
    def alpha_bars(self) -> Table:
        """ᾱ_t = Π_{s≤t} α_s."""
        return _frozen(np.cumprod(self.alphas))

    @cached_property
    def alpha_bars_prev(self) -> Table:
        """ᾱ_{t-1}, with ᾱ_{-1} = 1."""
        return _frozen(np.append(1.0, self.alpha_bars[:-1]))

    @cached_property
    def sqrt_alpha_bars(self) -> Table:
        """√ᾱ_t: the scale of x_0 in x_t (DDPM Eq. 4)."""
        return _frozen(np.sqrt(self.alpha_bars))

    @cached_property
    def sqrt_one_minus_alpha_bars(self) -> Table:
        """√(1-ᾱ_t): the scale of ε in x_t (DDPM Eq. 4)."""
        return _frozen(np.sqrt(1.0 - self.alpha_bars))

    @cached_property
    def log_one_minus_alpha_bars(self) -> Table:
        """log(1-ᾱ_t): the log-variance of q(x_t | x_0)."""
        return _frozen(np.log(1.0 - self.alpha_bars))

    @cached_property
    def sqrt_recip_alpha_bars(self) -> Table:
        """1/√ᾱ_t; infinite where ᾱ_t = 0."""
        with np.errstate(divide="ignore"):
            return _frozen(np.sqrt(1.0 / self.alpha_bars))

    @cached_property
    def sqrt_recipm1_alpha_bars(self) -> Table:
        """√(1/ᾱ_t - 1); infinite where ᾱ_t = 0."""
        with np.errstate(divide="ignore"):
            return _frozen(np.sqrt(1.0 / self.alpha_bars - 1.0))

    @property
    def sigma_bars(self) -> Table:
        """σ̄_t = √((1-ᾱ_t)/ᾱ_t), the noise level of x/√ᾱ_t (DDIM Eq. 14)."""
        return self.sqrt_recipm1_alpha_bars

    @cached_property
    def log_snr(self) -> Table:
        """log(ᾱ_t/(1-ᾱ_t)), twice DPM-Solver's λ_t; -∞ where ᾱ_t = 0."""
        with np.errstate(divide="ignore"):
            return _frozen(np.log(self.alpha_bars) - self.log_one_minus_alpha_bars)

    @cached_property
    def posterior_variance(self) -> Table:
        """β̃_t = (1-ᾱ_{t-1})/(1-ᾱ_t)·β_t (DDPM Eq. 7); 0 at t = 0."""
        return _frozen(self.betas * (1.0 - self.alpha_bars_prev) / (1.0 - self.alpha_bars))

    @cached_property
    def posterior_log_variance(self) -> Table:
        """log β̃_t, where the value at t = 1 replaces log 0 at t = 0 (Ho et al.'s code).

        Samples do not depend on that entry; likelihoods do. With T = 1 there is no next step, and β_0 replaces it.
        """
        variance = self.posterior_variance
        return _frozen(np.log(np.append(variance[1] if len(variance) > 1 else self.betas[0], variance[1:])))

    @cached_property
    def posterior_mean_coef_x0(self) -> Table:
        """√ᾱ_{t-1}·β_t/(1-ᾱ_t), the weight of x_0 in the posterior's mean (DDPM Eq. 7)."""
        return _frozen(np.sqrt(self.alpha_bars_prev) * self.betas / (1.0 - self.alpha_bars))

    @cached_property
    def posterior_mean_coef_xt(self) -> Table:
        """√α_t·(1-ᾱ_{t-1})/(1-ᾱ_t), the weight of x_t in the posterior's mean (DDPM Eq. 7)."""
        return _frozen(np.sqrt(self.alphas) * (1.0 - self.alpha_bars_prev) / (1.0 - self.alpha_bars))

    def alpha_bar_at(self, t: ArrayLike) -> Table:
        """Returns ᾱ at indices `t` (any shape) in -1 … T-1, with ᾱ = 1 at -1, or at real times (`continuous_time`).

        Raises:
          ValueError: a time outside that range.
        """
        if np.asarray(t).dtype.kind == "f":
            return continuous_time.alpha_bar_at(self.alpha_bars, t)
        return at(self.alpha_bars, t, clean=1.0)

    def timestep_at(self, sigma_bar: ArrayLike) -> Table:
        """Returns the real times in -1 … T-1 of noise levels σ̄ = √((1-ᾱ)/ᾱ), of any shape (`continuous_time`).

        Raises:
          ValueError: a level outside 0 … σ̄_{T-1}.
        """
        return continuous_time.timestep_at(self.alpha_bars, sigma_bar)

    def __repr__(self):
        return (
            f"NoiseSchedule(T={self.num_timesteps}, beta {self.betas[0]:.3g} … {self.betas[-1]:.3g}, "
            f"alpha_bar {self.alpha_bars[0]:.6g} … {self.alpha_bars[-1]:.3g})"
        )


def at(table: Table, t: ArrayLike, clean: float) -> Table:
    """Returns `table[t]` on the host, for indices -1 … T-1 of any shape; `clean` is the value at index -1.

    Raises:
      ValueError: an index outside that range.
    """
    t = np.asarray(t)
    if t.size and (t.min() < -1 or t.max() >= len(table)):
        raise ValueError(f"t={t.min()} … {t.max()} must be within -1 (clean) … {len(table) - 1}")
    return np.append(table, clean)[t]


def from_betas(betas: ArrayLike) -> NoiseSchedule:
    """Builds the schedule of given β, `[T]`, each in (0, 1].

    Args:
      betas: the β of every timestep, each in (0, 1].

    Raises:
      ValueError: not a non-empty vector of numbers in (0, 1], or ᾱ = 0 before the last timestep.
    """
    return NoiseSchedule(np.asarray(betas, dtype=np.float64))


def from_alpha_bars(alpha_bars: ArrayLike) -> NoiseSchedule:
    """Builds the schedule of given ᾱ, `[T]`: β_t = 1 - ᾱ_t/ᾱ_{t-1}, ᾱ_{-1} = 1.

    Raises:
      ValueError: not a non-empty vector that descends strictly from below 1 to 0 or more.
    """
    alpha_bars = np.asarray(alpha_bars, dtype=np.float64)
    if alpha_bars.ndim != 1 or not alpha_bars.size:
        raise ValueError(f"alpha_bars of shape {alpha_bars.shape} must be a non-empty vector [T]")
    before = np.append(1.0, alpha_bars[:-1])
    bad = np.flatnonzero(~((alpha_bars < before) & (alpha_bars >= 0.0)))
    if bad.size:
        raise ValueError(
            f"alpha_bars[{bad[0]}]={alpha_bars[bad[0]]} must be within [0, {before[bad[0]]}), below the one before it"
        )
    return from_betas(1.0 - alpha_bars / before)


def checked_count(num_timesteps: int) -> int:
    """Returns the number T of timesteps of a schedule.

    Raises:
      ValueError: not a whole number within 1 … `MAX_TIMESTEPS`.
    """
    number = isinstance(num_timesteps, (int, float, np.number)) and not isinstance(num_timesteps, bool)
    if not (number and 1 <= num_timesteps <= MAX_TIMESTEPS and num_timesteps == int(num_timesteps)):
        raise ValueError(f"num_timesteps={num_timesteps!r} must be a whole number within 1 … {MAX_TIMESTEPS}")
    return int(num_timesteps)


def _checked_betas(betas: ArrayLike) -> Table:
    betas = np.array(betas, dtype=np.float64)
    if betas.ndim != 1 or not betas.size:
        raise ValueError(f"betas of shape {betas.shape} must be a non-empty vector [T]")
    # A β so small that 1 - β rounds to 1 adds no noise.
    if (bad := np.flatnonzero(~((1.0 - betas < 1.0) & (betas <= 1.0)))).size:
        raise ValueError(f"betas[{bad[0]}]={betas[bad[0]]} must be within (0, 1], and 1 - beta less than 1 in float64")
    return betas


def _frozen(table: NDArray[Any]) -> Table:
    table.setflags(write=False)
    return table
