"""Noise schedules: β_t and all tables derived from it, in float64 on the host.

The index is `t = 0 … T-1`: `alpha_bars[t]` is ᾱ after `t + 1` noising steps, the paper's ᾱ_{t+1}. Index -1 is clean
data, ᾱ = 1. Tables stay float64 NumPy until they reach the device: in float32, 1 - ᾱ is off by 1.7e-4 at t = 0.
"""

import dataclasses
from functools import cached_property

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


@SCHEDULES.register
def linear(
    num_timesteps: int = 1000, *, beta_start: float = 1e-4, beta_end: float = 0.02, per_thousand: bool = False
) -> NoiseSchedule:
    """Builds the schedule whose β goes from `beta_start` to `beta_end` in equal steps (DDPM §4).

    Args:
      num_timesteps: the number T of timesteps.
      beta_start: the first β.
      beta_end: the last β.
      per_thousand: whether `beta_start` and `beta_end` are multiplied by 1000/T, so ᾱ ends as with T = 1000
        (improved-diffusion).

    Raises:
      ValueError: not 0 < beta_start < beta_end ≤ 1 (after scaling), or an invalid number of timesteps.
    """
    total = _checked_count(num_timesteps)
    return from_betas(np.linspace(*_beta_range(beta_start, beta_end, total, per_thousand), total))


@SCHEDULES.register
def quadratic(
    num_timesteps: int = 1000, *, beta_start: float = 1e-4, beta_end: float = 0.02, per_thousand: bool = False
) -> NoiseSchedule:
    """Builds the schedule whose √β goes from √`beta_start` to √`beta_end` in equal steps ("quad" in Ho et al.'s code).

    Args:
      num_timesteps: the number T of timesteps.
      beta_start: the first β.
      beta_end: the last β.
      per_thousand: whether `beta_start` and `beta_end` are multiplied by 1000/T, so ᾱ ends as with T = 1000
        (improved-diffusion).

    Raises:
      ValueError: as in `linear`.
    """
    total = _checked_count(num_timesteps)
    start, end = _beta_range(beta_start, beta_end, total, per_thousand)
    return from_betas(np.linspace(start**0.5, end**0.5, total) ** 2)


@SCHEDULES.register
def scaled_linear(
    num_timesteps: int = 1000, *, beta_start: float = 8.5e-4, beta_end: float = 0.012, per_thousand: bool = False
) -> NoiseSchedule:
    """Builds `quadratic` with the default β of latent diffusion; the name is diffusers'.

    Args:
      num_timesteps: the number T of timesteps.
      beta_start: the first β.
      beta_end: the last β.
      per_thousand: whether `beta_start` and `beta_end` are multiplied by 1000/T, so ᾱ ends as with T = 1000
        (improved-diffusion).

    Raises:
      ValueError: as in `linear`.
    """
    return quadratic(num_timesteps, beta_start=beta_start, beta_end=beta_end, per_thousand=per_thousand)


@SCHEDULES.register
def sigmoid(
    num_timesteps: int = 1000,
    *,
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    per_thousand: bool = False,
    sigmoid_range: float = 6.0,
) -> NoiseSchedule:
    """Builds β = `beta_start` + (`beta_end` - `beta_start`)·sigmoid(u), with u in equal steps (DDIM's code).

    Args:
      num_timesteps: the number T of timesteps.
      beta_start: the value of β for u = -∞.
      beta_end: the value of β for u = ∞.
      per_thousand: whether `beta_start` and `beta_end` are multiplied by 1000/T, so ᾱ ends as with T = 1000
        (improved-diffusion).
      sigmoid_range: the largest u, in (0, 700]; the smallest is its negative.

    Raises:
      ValueError: as in `linear`, or a `sigmoid_range` outside (0, 700].
    """
    total = _checked_count(num_timesteps)
    start, end = _beta_range(beta_start, beta_end, total, per_thousand)
    if not 0.0 < sigmoid_range <= 700.0:
        raise ValueError(f"sigmoid_range={sigmoid_range} must be within (0, 700]")
    u = np.linspace(-sigmoid_range, sigmoid_range, total)
    return from_betas(start + (end - start) / (1.0 + np.exp(-u)))


@SCHEDULES.register
def constant(num_timesteps: int = 1000, *, beta: float = 0.02) -> NoiseSchedule:
    """Builds the schedule with one β for all steps ("const" in Ho et al.'s code).

    Args:
      num_timesteps: the number T of timesteps.
      beta: the β of every step, in (0, 1].

    Raises:
      ValueError: β outside (0, 1], or an invalid number of timesteps.
    """
    if not 0.0 < beta <= 1.0:
        raise ValueError(f"beta={beta} must be within (0, 1]")
    return from_betas(np.full(_checked_count(num_timesteps), beta, np.float64))


@SCHEDULES.register
def jsd(num_timesteps: int = 1000) -> NoiseSchedule:
    """Builds β_t = 1/(T - t) (Sohl-Dickstein et al. 2015, §2.4.1; "jsd" in Ho et al.'s code): ᾱ falls linearly to 0.

    At the last timestep x holds no signal, so a network that predicts ε alone cannot start there.

    Args:
      num_timesteps: the number T of timesteps.

    Raises:
      ValueError: an invalid number of timesteps.
    """
    total = _checked_count(num_timesteps)
    return from_betas(1.0 / np.arange(total, 0, -1))


@SCHEDULES.register
def cosine(num_timesteps: int = 1000, *, s: float = 0.008, max_beta: float = 0.999) -> NoiseSchedule:
    """Builds ᾱ(u) ∝ cos²((u + s)/(1 + s)·π/2), β_t = min(1 - ᾱ((t+1)/T)/ᾱ(t/T), `max_beta`).

    (Nichol & Dhariwal 2021, Eq. 17.) The cap changes only the last β.

    Args:
      num_timesteps: the number T of timesteps.
      s: the offset s in [0, 100], which keeps β from being too small near t = 0.
      max_beta: the largest β, in (0, 1).

    Raises:
      ValueError: `s` outside [0, 100], `max_beta` outside (0, 1), or an invalid number of timesteps.
    """
    if not 0.0 <= s <= 100.0:
        raise ValueError(f"s={s} must be within [0, 100]")
    if not 0.0 < max_beta < 1.0:
        raise ValueError(f"max_beta={max_beta} must be within (0, 1)")
    u = np.linspace(0.0, 1.0, _checked_count(num_timesteps) + 1)
    f = np.cos((u + s) / (1.0 + s) * np.pi / 2.0) ** 2
    return from_betas(np.minimum(1.0 - f[1:] / f[:-1], max_beta))


@SCHEDULES.register
def edm(num_timesteps: int = 1000, *, sigma_min: float = 0.002, sigma_max: float = 80.0) -> NoiseSchedule:
    """Builds the levels σ̄ from `sigma_min` to `sigma_max` in equal ratios (the range of Karras et al. 2022, Table 1).

    The log-SNR is linear in t, also between the timesteps, so t is an affine function of EDM's c_noise = ¼·log σ̄.

    Args:
      num_timesteps: the number T of timesteps.
      sigma_min: σ̄_0, at least 1e-7.
      sigma_max: σ̄_{T-1}.

    Raises:
      ValueError: not 1e-7 ≤ sigma_min < sigma_max, an infinite one, or fewer than two timesteps.
    """
    if not 1e-7 <= sigma_min < sigma_max <= 1e7:
        raise ValueError(
            f"sigma_min={sigma_min}, sigma_max={sigma_max} must satisfy 1e-7 ≤ sigma_min < sigma_max ≤ 1e7"
        )
    if (total := _checked_count(num_timesteps)) < 2:
        raise ValueError(f"num_timesteps={num_timesteps} must be ≥ 2 for the levels from sigma_min to sigma_max")
    return from_alpha_bars(1.0 / (1.0 + np.geomspace(sigma_min, sigma_max, total) ** 2))


@SCHEDULES.register
def flow(num_timesteps: int = 1000, *, shift: float = 1.0) -> NoiseSchedule:
    """Builds the levels of the linear path (1-u)·x_0 + u·ε of rectified flow at u = 1/T, 2/T … 1, or shifted u.

        u' = shift·u/(1 + (shift-1)·u)  (Esser et al. 2024, Eq. 23),     ᾱ = (1-u')²/((1-u')² + u'²),     σ̄ = u'/(1-u')

    At the last timestep x holds no signal: networks of the velocity, v or x_0 can start there, ε-networks cannot.

    Args:
      num_timesteps: the number T of timesteps.
      shift: larger values shift the levels towards noise.

    Raises:
      ValueError: a shift that is not > 0 and finite, or an invalid number of timesteps.
    """
    if not 0.0 < shift < np.inf:
        raise ValueError(f"shift={shift} must be > 0 and finite")
    total = _checked_count(num_timesteps)
    clean = np.arange(total - 1, -1, -1) / total
    clean = clean / (clean + shift * (1.0 - clean))  # 1 - u', exact near u = 1
    return from_alpha_bars(clean**2 / (clean**2 + (1.0 - clean) ** 2))


SCHEDULES.register(from_betas)


def zero_terminal_snr(schedule: NoiseSchedule) -> NoiseSchedule:
    """Shifts and scales √ᾱ so that it ends at 0 and keeps its first value (Lin et al. 2024, Alg. 1).

    At the last timestep x holds no signal: v- and x_0-networks can start there, ε-networks cannot.

    Raises:
      ValueError: a schedule of one timestep.
    """
    if schedule.num_timesteps < 2:
        raise ValueError("num_timesteps=1 must be ≥ 2 for zero terminal SNR")
    root = schedule.sqrt_alpha_bars
    scaled = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return from_alpha_bars(np.append(scaled[:-1] ** 2, 0.0))


def respace(schedule: NoiseSchedule, indices: ArrayLike) -> NoiseSchedule:
    """Builds the schedule of the chain that visits only `indices`, ᾱ'_i = ᾱ[indices[i]] (improved-diffusion).

    A network trained on `schedule` is called with `indices[t]` for t of the new schedule
    (`parameterization.map_timesteps`).

    Args:
      schedule: the schedule to respace.
      indices: `int[S]`, strictly ascending within 0 … T-1.

    Raises:
      ValueError: indices that are out of range or do not ascend strictly.
    """
    indices = np.asarray(indices)
    if indices.ndim != 1 or not indices.size or np.any(np.diff(indices) <= 0):
        raise ValueError("indices must be a non-empty vector that ascends strictly")
    if indices[0] < 0:
        raise ValueError(f"indices[0]={indices[0]} must be within 0 … {schedule.num_timesteps - 1}")
    return from_alpha_bars(schedule.alpha_bar_at(indices))


def _beta_range(beta_start: float, beta_end: float, total: int, per_thousand: bool) -> tuple[float, float]:
    scale = 1000.0 / total if per_thousand else 1.0
    start, end = scale * beta_start, scale * beta_end
    if not 0.0 < start < end <= 1.0:
        after = f" after scaling by {scale:g}" if per_thousand else ""
        raise ValueError(
            f"beta_start={beta_start}, beta_end={beta_end} must satisfy 0 < beta_start < beta_end ≤ 1{after}"
        )
    return start, end


def _checked_count(num_timesteps: int) -> int:
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


def _frozen(table: Table) -> Table:
    table.setflags(write=False)
    return table
