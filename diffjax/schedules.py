"""Noise schedules: β_t and every table that derives from it, in float64 on the host.

Code index `t = 0 … T-1`: `alpha_bars[t]` is ᾱ after `t + 1` noisings, the paper's ᾱ_{t+1}. Index -1 is clean data,
ᾱ = 1. Tables stay float64 NumPy until they reach the device: in float32, 1 - ᾱ is already wrong by 1.7e-4 at t = 0.
"""

import dataclasses
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Table = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The forward process q of DDPM (Ho et al. 2020, §2), as tables of shape `[T]`, float64 and read-only.

    Build one with `linear`, `cosine`, … or `from_betas`. Names of the same tables in the usual PyTorch class
    (`GaussianDiffusion`) stand in brackets: `alpha_bars` [alphas_cumprod], `alpha_bars_prev` [alphas_cumprod_prev],
    `sqrt_recip_alpha_bars` [sqrt_recip_alphas_cumprod], `sqrt_recipm1_alpha_bars` [sqrt_recipm1_alphas_cumprod],
    `posterior_mean_coef_x0` [posterior_mean_coef1], `posterior_mean_coef_xt` [posterior_mean_coef2].
    """

    betas: Table

    def __post_init__(self):
        object.__setattr__(self, "betas", _frozen(_checked_betas(self.betas)))

    @property
    def num_timesteps(self) -> int:
        """T, the number of noisings."""
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
        """√(1/ᾱ_t - 1), the noise-to-signal ratio σ̄_t of DDIM Eq. 14; infinite where ᾱ_t = 0."""
        with np.errstate(divide="ignore"):
            return _frozen(np.sqrt(1.0 / self.alpha_bars - 1.0))

    @cached_property
    def posterior_variance(self) -> Table:
        """β̃_t = (1-ᾱ_{t-1})/(1-ᾱ_t)·β_t (DDPM Eq. 7); 0 at t = 0."""
        return _frozen(self.betas * (1.0 - self.alpha_bars_prev) / (1.0 - self.alpha_bars))

    @cached_property
    def posterior_log_variance(self) -> Table:
        """log β̃_t, where the next step's value stands in for log 0 at t = 0 (Ho et al.'s code).

        Samples do not depend on that entry, likelihoods do. With T = 1 there is no next step: β_0 stands in.
        """
        variance = self.posterior_variance
        return _frozen(np.log(np.append(variance[1] if len(variance) > 1 else self.betas[0], variance[1:])))

    @cached_property
    def posterior_mean_coef_x0(self) -> Table:
        """√ᾱ_{t-1}·β_t/(1-ᾱ_t), what x_0 weighs in the posterior's mean (DDPM Eq. 7)."""
        return _frozen(np.sqrt(self.alpha_bars_prev) * self.betas / (1.0 - self.alpha_bars))

    @cached_property
    def posterior_mean_coef_xt(self) -> Table:
        """√α_t·(1-ᾱ_{t-1})/(1-ᾱ_t), what x_t weighs in the posterior's mean (DDPM Eq. 7)."""
        return _frozen(np.sqrt(self.alphas) * (1.0 - self.alpha_bars_prev) / (1.0 - self.alpha_bars))

    def alpha_bar_at(self, t: ArrayLike) -> Table:
        """ᾱ at indices `t` (any shape) in -1 … T-1, with ᾱ = 1 at -1.

        Raises:
          ValueError: an index outside that range.
        """
        return at(self.alpha_bars, t, clean=1.0)

    def __repr__(self):
        return (
            f"NoiseSchedule(T={self.num_timesteps}, beta {self.betas[0]:.3g} … {self.betas[-1]:.3g}, "
            f"alpha_bar {self.alpha_bars[0]:.6g} … {self.alpha_bars[-1]:.3g})"
        )


def at(table: Table, t: ArrayLike, clean: float) -> Table:
    """`table[t]` on the host, for indices -1 … T-1 of any shape; `clean` is the value at index -1.

    Raises:
      ValueError: an index outside that range.
    """
    t = np.asarray(t)
    if t.size and (t.min() < -1 or t.max() >= len(table)):
        raise ValueError(f"timestep {t.min()} … {t.max()} is out of range: allowed are -1 (clean) … {len(table) - 1}")
    return np.append(table, clean)[t]


def from_betas(betas: ArrayLike) -> NoiseSchedule:
    """The schedule with the given β, `[T]`, each in (0, 1].

    Raises:
      ValueError: not a non-empty vector of numbers in (0, 1].
    """
    return NoiseSchedule(np.asarray(betas, dtype=np.float64))


def linear(num_timesteps: int = 1000, *, beta_start: float = 1e-4, beta_end: float = 0.02) -> NoiseSchedule:
    """β from `beta_start` to `beta_end` in equal steps (DDPM §4).

    Raises:
      ValueError: not 0 < beta_start < beta_end ≤ 1, or no timesteps.
    """
    if not 0.0 < beta_start < beta_end <= 1.0:
        raise ValueError(
            f"beta_start={beta_start}, beta_end={beta_end}: beta_end must exceed beta_start, both within (0, 1]"
        )
    return from_betas(np.linspace(beta_start, beta_end, _checked_count(num_timesteps)))


def cosine(num_timesteps: int = 1000, *, offset: float = 0.008, max_beta: float = 0.999) -> NoiseSchedule:
    """ᾱ(u) ∝ cos²((u + s)/(1 + s)·π/2), s = `offset`, β_t = min(1 - ᾱ((t+1)/T)/ᾱ(t/T), `max_beta`).

    Nichol & Dhariwal 2021, Eq. 17. The cap takes hold at the last β alone.

    Raises:
      ValueError: `offset` negative, `max_beta` outside (0, 1), or no timesteps.
    """
    if offset < 0.0:
        raise ValueError(f"offset={offset} must be ≥ 0")
    if not 0.0 < max_beta < 1.0:
        raise ValueError(f"max_beta={max_beta} must lie within (0, 1)")
    u = np.linspace(0.0, 1.0, _checked_count(num_timesteps) + 1)
    f = np.cos((u + offset) / (1.0 + offset) * np.pi / 2.0) ** 2
    return from_betas(np.minimum(1.0 - f[1:] / f[:-1], max_beta))


def _checked_count(num_timesteps: int) -> int:
    if num_timesteps != int(num_timesteps) or num_timesteps < 1:
        raise ValueError(f"num_timesteps={num_timesteps} must be a whole number ≥ 1")
    return int(num_timesteps)


def _checked_betas(betas: ArrayLike) -> Table:
    betas = np.array(betas, dtype=np.float64)
    if betas.ndim != 1 or not betas.size:
        raise ValueError(f"betas of shape {betas.shape}: a non-empty vector [T] is needed")
    if not (np.all(betas > 0.0) and np.all(betas <= 1.0)):
        bad = int(np.flatnonzero(~((betas > 0.0) & (betas <= 1.0)))[0])
        raise ValueError(f"betas[{bad}]={betas[bad]} must lie within (0, 1]")
    return betas


def _frozen(table: Table) -> Table:
    table.setflags(write=False)
    return table
