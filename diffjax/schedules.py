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


def from_alpha_bars(alpha_bars: ArrayLike) -> NoiseSchedule:
    """The schedule with the given ᾱ, `[T]`: β_t = 1 - ᾱ_t/ᾱ_{t-1}, ᾱ_{-1} = 1.

    Raises:
      ValueError: not a non-empty vector that descends strictly from under 1 to 0 or more.
    """
    alpha_bars = np.asarray(alpha_bars, dtype=np.float64)
    if alpha_bars.ndim != 1 or not alpha_bars.size:
        raise ValueError(f"alpha_bars of shape {alpha_bars.shape}: a non-empty vector [T] is needed")
    before = np.append(1.0, alpha_bars[:-1])
    bad = np.flatnonzero(~((alpha_bars < before) & (alpha_bars >= 0.0)))
    if bad.size:
        raise ValueError(
            f"alpha_bars[{bad[0]}]={alpha_bars[bad[0]]} must lie within [0, {before[bad[0]]}), under the one before it"
        )
    return from_betas(1.0 - alpha_bars / before)


def linear(
    num_timesteps: int = 1000, *, beta_start: float = 1e-4, beta_end: float = 0.02, per_thousand: bool = False
) -> NoiseSchedule:
    """β from `beta_start` to `beta_end` in equal steps (DDPM §4).

    Args:
      num_timesteps: T.
      beta_start: β_0.
      beta_end: β_{T-1}.
      per_thousand: both β times 1000/T, so that ᾱ ends where it does with 1000 steps (improved-diffusion).

    Raises:
      ValueError: not 0 < beta_start < beta_end ≤ 1 (after scaling), or no timesteps.
    """
    total = _checked_count(num_timesteps)
    scale = 1000.0 / total if per_thousand else 1.0
    return from_betas(np.linspace(*_checked_range(scale * beta_start, scale * beta_end), total))


def quadratic(num_timesteps: int = 1000, *, beta_start: float = 1e-4, beta_end: float = 0.02) -> NoiseSchedule:
    """√β from √`beta_start` to √`beta_end` in equal steps ("quad" in Ho et al.'s code).

    Raises:
      ValueError: as `linear`.
    """
    start, end = _checked_range(beta_start, beta_end)
    return from_betas(np.linspace(start**0.5, end**0.5, _checked_count(num_timesteps)) ** 2)


def scaled_linear(num_timesteps: int = 1000, *, beta_start: float = 8.5e-4, beta_end: float = 0.012) -> NoiseSchedule:
    """`quadratic` by its name in latent diffusion (and diffusers), with the β used there.

    Raises:
      ValueError: as `linear`.
    """
    return quadratic(num_timesteps, beta_start=beta_start, beta_end=beta_end)


def sigmoid(
    num_timesteps: int = 1000, *, beta_start: float = 1e-4, beta_end: float = 0.02, width: float = 6.0
) -> NoiseSchedule:
    """β = `beta_start` + (`beta_end` - `beta_start`)·sigmoid(u), u = -`width` … `width` in equal steps (DDIM's code).

    Raises:
      ValueError: as `linear`, or a width ≤ 0.
    """
    start, end = _checked_range(beta_start, beta_end)
    if not width > 0.0:
        raise ValueError(f"width={width} must be > 0")
    u = np.linspace(-width, width, _checked_count(num_timesteps))
    return from_betas(start + (end - start) / (1.0 + np.exp(-u)))


def constant(num_timesteps: int = 1000, *, beta: float = 0.02) -> NoiseSchedule:
    """The same β at every step ("const" in Ho et al.'s code).

    Raises:
      ValueError: β outside (0, 1], or no timesteps.
    """
    return from_betas(np.full(_checked_count(num_timesteps), beta, np.float64))


def jsd(num_timesteps: int = 1000) -> NoiseSchedule:
    """β_t = 1/(T - t) (Sohl-Dickstein et al. 2015, §2.4.1; "jsd" in Ho et al.'s code): ᾱ falls linearly, to 0.

    At the last timestep x holds no signal, so a network that predicts ε alone cannot start there.

    Raises:
      ValueError: no timesteps.
    """
    total = _checked_count(num_timesteps)
    return from_betas(1.0 / np.arange(total, 0, -1))


def cosine(num_timesteps: int = 1000, *, offset: float = 0.008, max_beta: float = 0.999) -> NoiseSchedule:
    """ᾱ(u) ∝ cos²((u + s)/(1 + s)·π/2), s = `offset`, β_t = min(1 - ᾱ((t+1)/T)/ᾱ(t/T), `max_beta`).

    Nichol & Dhariwal 2021, Eq. 17. The cap takes hold at the last β alone.

    Raises:
      ValueError: `offset` negative, `max_beta` outside (0, 1), or no timesteps.
    """
    if not offset >= 0.0:
        raise ValueError(f"offset={offset} must be ≥ 0")
    if not 0.0 < max_beta < 1.0:
        raise ValueError(f"max_beta={max_beta} must lie within (0, 1)")
    u = np.linspace(0.0, 1.0, _checked_count(num_timesteps) + 1)
    f = np.cos((u + offset) / (1.0 + offset) * np.pi / 2.0) ** 2
    return from_betas(np.minimum(1.0 - f[1:] / f[:-1], max_beta))


def zero_terminal_snr(schedule: NoiseSchedule) -> NoiseSchedule:
    """The schedule with √ᾱ shifted and scaled so that it ends at 0 and begins where it did (Lin et al. 2024, Alg. 1).

    At the last timestep x holds no signal: v- and x_0-networks can start there, ε-networks cannot.

    Raises:
      ValueError: a single timestep.
    """
    if schedule.num_timesteps < 2:
        raise ValueError("num_timesteps=1: rescaling needs at least 2")
    root = schedule.sqrt_alpha_bars
    scaled = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return from_alpha_bars(np.append(scaled[:-1] ** 2, 0.0))


def respace(schedule: NoiseSchedule, indices: ArrayLike) -> NoiseSchedule:
    """The schedule of the chain that visits `indices` alone: ᾱ'_i = ᾱ[indices[i]] (improved-diffusion's respacing).

    A network trained on `schedule` is asked at `indices[t]` for t of the new one (`guidance.map_timesteps`).

    Args:
      schedule: what to thin out.
      indices: `int[S]`, ascending strictly within 0 … T-1.

    Raises:
      ValueError: indices out of range or order.
    """
    indices = np.asarray(indices)
    if indices.ndim != 1 or not indices.size or np.any(np.diff(indices) <= 0):
        raise ValueError("indices must be a non-empty vector that ascends strictly")
    if indices[0] < 0:
        raise ValueError(f"indices[0]={indices[0]} is out of range: allowed is 0 … {schedule.num_timesteps - 1}")
    return from_alpha_bars(schedule.alpha_bar_at(indices))


def _checked_range(beta_start: float, beta_end: float) -> tuple[float, float]:
    if not 0.0 < beta_start < beta_end <= 1.0:
        raise ValueError(
            f"beta_start={beta_start}, beta_end={beta_end}: beta_end must exceed beta_start, both within (0, 1]"
        )
    return beta_start, beta_end


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
