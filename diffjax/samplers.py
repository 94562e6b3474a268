"""Samplers as tables: pure functions (schedule, grid, knobs) → `Steps`, in float64 on the host.

Every step of DDPM, DDIM and their kin is affine in what is known after a network call, so a sampler is a table with
one row a call (`steps.Steps`), and `sampling.sample` is the one loop that runs it. A table can be printed, plotted,
compared with another library's, stacked (`steps.stack`) and `vmap`ped. t and s are the levels a step goes from and to.
"""

import dataclasses

import jax
import numpy as np
from numpy.typing import ArrayLike

from diffjax import timesteps
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Levels, Steps, interleave, one_call_a_step


def ddpm(schedule: NoiseSchedule, grid: ArrayLike, *, variance: str = "fixed_small") -> Steps:
    """Ancestral sampling (DDPM Alg. 2) along any descending grid: the posterior mean of q(x_s | x_t, x̂0) plus σ·z.

        x_s = √α(1-ᾱ_s)/(1-ᾱ_t)·x_t + √ᾱ_s(1-α)/(1-ᾱ_t)·x̂0 + σ·z,     α = ᾱ_t/ᾱ_s
        fixed_small: σ² = β̃ = (1-ᾱ_s)/(1-ᾱ_t)·(1-α);     fixed_large: σ² = β = 1-α
        learned_range: log σ² = f·log β + (1-f)·log β̃ (Nichol & Dhariwal 2021, Eq. 15);     learned: log σ² = f

    with f the network's `Prediction.log_var_frac`. No noise is added on a step to clean data (ᾱ_s = 1); there the β̃ of
    the step before it stands in for log 0, which matters to likelihoods alone.

    Args:
      grid: `int[S+1]`, descending within -1 … T-1.
      variance: "fixed_small", "fixed_large", "learned" or "learned_range".

    Raises:
      ValueError: another variance, or a grid that is not one.
    """
    levels = _descending(schedule, grid)
    ab_t, ab_s = levels.ab_t, levels.ab_s
    alpha = ab_t / ab_s
    large = 1.0 - alpha
    small = (1.0 - ab_s) / (1.0 - ab_t) * large
    noisy = (ab_s < 1.0) & (large > 0.0)  # neither the step to clean data nor one that repeats an index
    if variance == "fixed_small":
        d, log_var = np.sqrt(small), None
    elif variance == "fixed_large":
        d, log_var = np.sqrt(np.where(noisy, large, 0.0)), None
    elif variance == "learned":
        d, log_var = np.where(noisy, 1.0, 0.0), np.tile([0.0, 1.0], (len(ab_t), 1))
    elif variance == "learned_range":
        d, log_var = np.where(noisy, 1.0, 0.0), _log_variance_range(small, large)
    else:
        raise ValueError(
            f"variance={variance!r} is not one of 'fixed_small', 'fixed_large', 'learned', 'learned_range'"
        )
    return one_call_a_step(
        levels,
        a=np.sqrt(alpha) * (1.0 - ab_s) / (1.0 - ab_t),
        b=np.sqrt(ab_s) * large / (1.0 - ab_t),
        d=d,
        log_var=log_var,
    )


def ddim(
    schedule: NoiseSchedule,
    grid: ArrayLike,
    *,
    eta: float = 0.0,
    sigma: ArrayLike | None = None,
    sigma_hat: bool = False,
    final_noise: bool = False,
    rederive_eps: bool = True,
) -> Steps:
    """DDIM (Song et al. 2021, Eq. 12), with σ between neighbours of the grid itself (Eq. 16):

        x_s = √ᾱ_s·x̂0 + √(1-ᾱ_s-σ²)·ε̂ + σ·z,     σ = η·√((1-ᾱ_s)/(1-ᾱ_t)·(1-ᾱ_t/ᾱ_s))

    η = 0 is deterministic, η = 1 is `ddpm(variance="fixed_small")`. Some code scales the variance instead of σ: its η
    is this one squared.

    Args:
      grid: `int[S+1]`, descending within -1 … T-1.
      eta: η in [0, 1].
      sigma: σ itself, `[S]`, in place of η: any value with σ² ≤ 1-ᾱ_s.
      sigma_hat: App. D.3's larger noise: the direction of η = 1, but noise of σ̂ = √(1-ᾱ_t/ᾱ_s), none on a step to clean
        data. `eta` and `sigma` are then left alone.
      final_noise: with `sigma_hat`, noise on the step to clean data too, as some code has it.
      rederive_eps: whether ε̂ is derived again from a clipped x̂0; False keeps the network's (diffusers' default).

    Raises:
      ValueError: η outside [0, 1], a σ that is too large, knobs that exclude each other, or a grid that is not one.
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta={eta} must lie within [0, 1]")
    if eta and (sigma is not None or sigma_hat):
        raise ValueError(f"eta={eta} cannot be given together with sigma or sigma_hat")
    if sigma is not None and sigma_hat:
        raise ValueError("sigma and sigma_hat cannot be given together")
    if final_noise and not sigma_hat:
        raise ValueError("final_noise=True means nothing without sigma_hat=True")
    levels = _descending(schedule, grid)
    ab_t, ab_s = levels.ab_t, levels.ab_s
    sigma_ddpm = np.sqrt((1.0 - ab_s) / (1.0 - ab_t) * (1.0 - ab_t / ab_s))
    if sigma is not None:
        sigma = noise = _checked_sigma(sigma, levels)
    elif sigma_hat:
        sigma, noise = sigma_ddpm, np.sqrt(np.where(final_noise | (ab_s < 1.0), 1.0 - ab_t / ab_s, 0.0))
    else:
        sigma = noise = eta * sigma_ddpm
    direction = np.sqrt(np.maximum(1.0 - ab_s - sigma**2, 0.0))  # rounding can leave -1e-17 where σ² = 1-ᾱ_s
    return one_call_a_step(levels, b=np.sqrt(ab_s), c=direction, d=noise, rederive_eps=rederive_eps)


def probability_flow(schedule: NoiseSchedule, grid: ArrayLike, *, form: str = "eq13", ask: str = "source") -> Steps:
    """The probability-flow ODE by Euler's rule, either way: a descending grid decodes, an ascending one encodes.

    In x̄ = x/√ᾱ against σ̄ = √((1-ᾱ)/ᾱ) (DDIM Eq. 13 and 15):

        eq13: x̄_s = x̄_t + (σ̄_s - σ̄_t)·ε̂                       (descending, this is `ddim(eta=0)`)
        eq15: x̄_s = x̄_t + ½(σ̄_s² - σ̄_t²)/σ̄_t·ε̂               (Euler in the time of the variance-exploding SDE)

    The network is asked at the step's source, at index 0 where that is clean data.

    Args:
      grid: `int[S+1]`, within -1 … T-1, descending or ascending. eq15 divides by σ̄_t and, decoding, would leave noise
        in clean data: its grid stays above -1.
      form: "eq13" or "eq15".
      ask: "source", or "destination": the timestep that a step leads to (diffusers' `DDIMInverseScheduler`).

    Raises:
      ValueError: another form or another place to ask, or a grid that is not one or has -1 with eq15.
    """
    levels = _levels(schedule, grid)
    ab_t, ab_s = levels.ab_t, levels.ab_s
    if ask not in ("source", "destination"):
        raise ValueError(f"ask={ask!r} is not one of 'source', 'destination'")
    asked = {} if ask == "source" else {"t_net": np.maximum(levels.s, 0)}
    if form == "eq13":
        return one_call_a_step(levels, b=np.sqrt(ab_s), c=np.sqrt(1.0 - ab_s), **asked)
    if form != "eq15":
        raise ValueError(f"form={form!r} is not one of 'eq13', 'eq15'")
    if -1 in (levels.t[0], levels.s[-1]):
        raise ValueError("form='eq15' needs a grid that stays above -1 (clean data): let it end, or begin, at 0")
    _check_signal(np.append(ab_t, ab_s))
    variance_t, variance_s = (1.0 - ab_t) / ab_t, (1.0 - ab_s) / ab_s
    slope = 0.5 * (variance_s - variance_t) / np.sqrt(variance_t)
    return one_call_a_step(levels, a=np.sqrt(ab_s / ab_t), c=np.sqrt(ab_s) * slope, **asked)


def heun(schedule: NoiseSchedule, grid: ArrayLike) -> Steps:
    """The probability-flow ODE by Heun's rule in (x̄, σ̄) (Karras et al. 2022, Alg. 1 without churn), either way.

        x̄' = x̄_t + h·ε̂(x̄_t, t),     x̄_s = x̄_t + h·½(ε̂(x̄_t, t) + ε̂(x̄', s)),     h = σ̄_s - σ̄_t

    The second line is written from x̄': x̄_s = x̄' + h/2·(ε̂' - ε̂). A step to clean data is Euler's, so S steps down to -1
    are 2S - 1 calls.

    Args:
      grid: `int[S+1]`, within -1 … T-1, descending or ascending.

    Raises:
      ValueError: a grid that is not one.
    """
    levels = _levels(schedule, grid)
    _check_signal(np.append(levels.ab_t, levels.ab_s))
    predict = one_call_a_step(levels, b=np.sqrt(levels.ab_s), c=np.sqrt(1.0 - levels.ab_s), num_eps_history=1)
    half = 0.5 * np.sqrt(levels.ab_s) * (_sigma_bar(levels.ab_s) - _sigma_bar(levels.ab_t))
    arrived = Levels(levels.s, levels.s, levels.ab_s, levels.ab_s)
    correct = one_call_a_step(arrived, a=1.0, c=half, eps_history=-half[:, None])
    corrected = levels.s != -1
    predict = dataclasses.replace(predict, lands=~corrected)
    return interleave([predict, correct], [np.ones(len(half), bool), corrected])


def dpm_solver_pp(schedule: NoiseSchedule, grid: ArrayLike, *, order: int = 2) -> Steps:
    """DPM-Solver++ (Lu et al. 2022), multistep, in x̂0: order 1, or 2 ("2M", Alg. 2).

        x_s = √(1-ᾱ_s)/√(1-ᾱ_t)·x_t + √ᾱ_s(1 - e^{-h})·D,     λ = log(√ᾱ/√(1-ᾱ)),  h = λ_s - λ_t
        D = x̂0 (order 1);   D = (1 + 1/2r)·x̂0 - 1/2r·x̂0₍₋₁₎,  r = h₍₋₁₎/h (order 2)

    The first step is of order 1, and so is a step to clean data, where h is infinite and x_s = x̂0.

    Args:
      grid: `int[S+1]`, descending within -1 … T-1.
      order: 1 or 2.

    Raises:
      ValueError: another order, or a grid that is not one.
    """
    if order not in (1, 2):
        raise ValueError(f"order={order} is not one of 1, 2")
    levels = _descending(schedule, grid)
    noise_ratio = np.sqrt((1.0 - levels.ab_s) / (1.0 - levels.ab_t))
    weight = np.sqrt(levels.ab_s) - np.sqrt(levels.ab_t) * noise_ratio
    if order == 1:
        return one_call_a_step(levels, a=noise_ratio, b=weight)
    finite = levels.s != -1
    with np.errstate(divide="ignore", invalid="ignore"):
        h = np.log(_sigma_bar(levels.ab_t)) - np.log(_sigma_bar(levels.ab_s))
        half_over_r = np.where(finite, 0.5 * h / np.append(np.inf, h[:-1]), 0.0)
    # A repeated index is a step of h = 0, from which nothing can be extrapolated.
    half_over_r = np.where(np.isfinite(half_over_r), half_over_r, 0.0)
    return one_call_a_step(
        levels, a=noise_ratio, b=weight * (1.0 + half_over_r), x0_history=-(weight * half_over_r)[:, None]
    )


_ADAMS_BASHFORTH = np.array(
    [[1, 0, 0, 0], [3 / 2, -1 / 2, 0, 0], [23 / 12, -16 / 12, 5 / 12, 0], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]
)
"""Weights of ε̂, ε̂₍₋₁₎, …: row k is of order k + 1."""


def plms(schedule: NoiseSchedule, grid: ArrayLike, *, order: int = 4) -> Steps:
    """Pseudo linear multistep (Liu et al. 2022, Eq. 12): DDIM's step η = 0 with Adams and Bashforth's mean of ε̂s.

        x_s = √ᾱ_s/√ᾱ_t·x_t + (√(1-ᾱ_s) - √ᾱ_s/√ᾱ_t·√(1-ᾱ_t))·ε̂',     ε̂' = (55ε̂ - 59ε̂₍₋₁₎ + 37ε̂₍₋₂₎ - 9ε̂₍₋₃₎)/24

    The first steps are of order 1, 2, 3. The weights suppose equal steps in t.

    Args:
      grid: `int[S+1]`, descending within -1 … T-1.
      order: 1 … 4.

    Raises:
      ValueError: another order, or a grid that is not one.
    """
    if order not in (1, 2, 3, 4):
        raise ValueError(f"order={order} is not one of 1, 2, 3, 4")
    levels = _descending(schedule, grid)
    a, c = _transfer(levels.ab_t, levels.ab_s)
    weights = c[:, None] * _ADAMS_BASHFORTH[np.minimum(np.arange(len(c)), order - 1), :order]
    return one_call_a_step(levels, a=a, c=weights[:, 0], eps_history=weights[:, 1:])


def pndm(schedule: NoiseSchedule, grid: ArrayLike) -> Steps:
    """PNDM (Liu et al. 2022, Alg. 2): three pseudo Runge-Kutta steps of four calls each, then `plms`.

    A Runge-Kutta step asks at t, twice at the index m half-way (rounded down), and at s, and moves each time from x_t
    by `plms`'s step φ; rows are written from where the last call left x:

        ε₁ = ε̂(x_t, t), ε₂ = ε̂(φ(x_t, ε₁, t→m), m), ε₃ = ε̂(φ(x_t, ε₂, t→m), m), ε₄ = ε̂(φ(x_t, ε₃, t→s), s)
        x_s = φ(x_t, (ε₁ + 2ε₂ + 2ε₃ + ε₄)/6, t→s)

    and hands ε₁ on to the multistep rule. S steps are S + 9 calls.

    Args:
      grid: `int[S+1]` with S ≥ 4, descending within -1 … T-1.

    Raises:
      ValueError: fewer than 4 steps, or a grid that is not one.
    """
    levels = _descending(schedule, grid)
    if len(levels.t) < 4:
        raise ValueError(
            f"pndm needs at least 4 steps: 3 of Runge-Kutta and 1 of the multistep rule, not {len(levels.t)}"
        )
    width = 12
    t, s = levels.t[:3], levels.s[:3]
    middle = (t + s) // 2
    ab_t, ab_s, ab_m = levels.ab_t[:3], levels.ab_s[:3], schedule.alpha_bar_at(middle)
    a_m, c_m = _transfer(ab_t, ab_m)
    a_s, c_s = _transfer(ab_t, ab_s)

    def history(*columns):
        """ε̂ weights of the rows before: `[3, width]` from the newest on."""
        given = np.stack([np.broadcast_to(column, 3) for column in columns], axis=1)
        return np.pad(given, ((0, 0), (0, width - given.shape[1])))

    to_middle = Levels(t, middle, ab_t, ab_m)
    at_middle = Levels(middle, middle, ab_m, ab_m)
    to_end = Levels(middle, s, ab_m, ab_s)
    at_end = Levels(s, s, ab_s, ab_s)
    no, yes = np.zeros(3, bool), np.ones(3, bool)
    runge_kutta = [
        one_call_a_step(to_middle, a=a_m, c=c_m, num_eps_history=width, lands=no),
        one_call_a_step(at_middle, a=1.0, c=c_m, eps_history=history(-c_m), lands=no),
        one_call_a_step(to_end, a=a_s / a_m, c=c_s, eps_history=history(-a_s / a_m * c_m), lands=no),
        one_call_a_step(at_end, a=1.0, c=c_s / 6, eps_history=history(-4 * c_s / 6, 2 * c_s / 6, c_s / 6), lands=yes),
    ]
    rest = Levels(*(column[3:] for column in levels))
    a, c = _transfer(rest.ab_t, rest.ab_s)
    weights = np.zeros((len(c), width))
    for n in range(len(c)):
        # Where the ε̂ of the three steps before stand: ε₁ of a Runge-Kutta step is 4 rows before the next step's.
        rows = [back - 1 if back <= n else n + 4 * (back - n) - 1 for back in (1, 2, 3)]
        weights[n, rows] = c[n] * _ADAMS_BASHFORTH[3, 1:]
    multistep = one_call_a_step(rest, a=a, c=c * _ADAMS_BASHFORTH[3, 0], eps_history=weights)
    first = interleave(runge_kutta, [yes] * 4)
    return jax.tree.map(lambda *columns: np.concatenate(columns), first, multistep)


def _levels(schedule: NoiseSchedule, grid: ArrayLike) -> Levels:
    grid = timesteps.check(grid, schedule.num_timesteps)
    alpha_bar = schedule.alpha_bar_at(grid)
    return Levels(grid[:-1], grid[1:], alpha_bar[:-1], alpha_bar[1:])


def _descending(schedule: NoiseSchedule, grid: ArrayLike) -> Levels:
    levels = _levels(schedule, grid)
    if levels.t[0] < levels.s[-1]:
        raise ValueError(
            f"this sampler denoises: its time grid must descend, and this one goes {levels.t[0]} → {levels.s[-1]}"
        )
    return levels


def _sigma_bar(alpha_bar: np.ndarray) -> np.ndarray:
    return np.sqrt((1.0 - alpha_bar) / alpha_bar)


def _transfer(ab_t: np.ndarray, ab_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(a, c) of the deterministic step x_s = a·x_t + c·ε̂ (DDIM Eq. 13; PNDM Eq. 11)."""
    _check_signal(ab_t)
    a = np.sqrt(ab_s / ab_t)
    return a, np.sqrt(1.0 - ab_s) - a * np.sqrt(1.0 - ab_t)


def _check_signal(alpha_bar: np.ndarray) -> None:
    if np.any(alpha_bar == 0.0):
        raise ValueError("this sampler divides by alpha_bar, which is 0 on this grid: start it lower")


def _log_variance_range(small: np.ndarray, large: np.ndarray) -> np.ndarray:
    """(log β̃, log β) `[S, 2]`, with the β̃ of the step before standing in where it is 0."""
    latest = np.maximum.accumulate(np.where(small > 0.0, np.arange(len(small)), -1))  # repeated indices have none
    bounds = np.stack([np.where(latest >= 0, small[latest], large[0]), large], axis=1)
    return np.log(np.where(bounds > 0.0, bounds, 1.0))  # a repeated index has no variance, and its row no noise


def _checked_sigma(sigma: ArrayLike, levels: Levels) -> np.ndarray:
    sigma = np.asarray(sigma, np.float64)
    if sigma.shape != levels.t.shape:
        raise ValueError(f"sigma of shape {sigma.shape}: one value for each of the {len(levels.t)} steps is needed")
    allowed = np.sqrt(1.0 - levels.ab_s)
    bad = np.flatnonzero(~((sigma >= 0.0) & (sigma <= allowed * (1.0 + 1e-12))))
    if bad.size:
        i = bad[0]
        raise ValueError(
            f"sigma[{i}]={sigma[i]} on the step {levels.t[i]} → {levels.s[i]}: allowed is 0 … √(1-ᾱ_s) = {allowed[i]}"
        )
    return sigma
