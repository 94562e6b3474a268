"""Samplers as tables: pure functions (schedule, grid, options) → `Sampler`, in float64 on the host.

Every step of DDPM, DDIM and related methods is affine in x, x̂0, ε̂ and noise, so a sampler is a table with one row for
each network call (`steps.Sampler`), and `sampling.sample` is the one loop that runs it. A table can be printed,
plotted, compared with another library's, stacked (`steps.stack`) and `vmap`ped. A step leads from level t to level s.
"""

import dataclasses

import jax
import numpy as np
from numpy.typing import ArrayLike

from diffjax import timesteps
from diffjax.registry import Registry
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Levels, Sampler, interleave, one_call_a_step

SAMPLERS = Registry("sampler")
"""Functions (schedule, grid, options) → `Sampler`."""


@SAMPLERS.register
def ddpm(
    schedule: NoiseSchedule, grid: ArrayLike, *, variance: str = "fixed_small", last_step_noise: bool = False
) -> Sampler:
    """Builds the ancestral sampler (DDPM Alg. 2) on any descending grid: the mean of q(x_s | x_t, x̂0) plus σ·z.

        x_s = √α(1-ᾱ_s)/(1-ᾱ_t)·x_t + √ᾱ_s(1-α)/(1-ᾱ_t)·x̂0 + σ·z,     α = ᾱ_t/ᾱ_s
        fixed_small: σ² = β̃ = (1-ᾱ_s)/(1-ᾱ_t)·(1-α);     fixed_large: σ² = β = 1-α
        learned_range: log σ² = f·log β + (1-f)·log β̃ (Nichol & Dhariwal 2021, Eq. 15);     learned: log σ² = f

    with f the network's `Prediction.log_var_frac`. A step to clean data (ᾱ_s = 1) adds no noise; there, the β̃ of the
    previous step replaces 0 in log β̃, which affects likelihoods only.

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]`, descending within -1 … T-1.
      variance: σ² of a step: "fixed_small", "fixed_large", "learned" or "learned_range".
      last_step_noise: whether a step to clean data adds noise too if it starts above index 0, with β̃ = 1e-20, as
        diffusers' `DDPMScheduler` does.

    Raises:
      ValueError: an unknown variance, or an invalid grid.
    """
    levels = _descending(schedule, grid)
    ab_t, ab_s = levels.ab_t, levels.ab_s
    alpha = ab_t / ab_s
    large = 1.0 - alpha
    small = (1.0 - ab_s) / (1.0 - ab_t) * large
    noisy = (ab_s < 1.0) & (large > 0.0)  # False on the step to clean data and on repeated indices
    if last_step_noise:
        added = (levels.s == -1) & (levels.t > 0)
        noisy, small = noisy | added, np.where(added, 1e-20, small)
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


@SAMPLERS.register
def ddim(
    schedule: NoiseSchedule,
    grid: ArrayLike,
    *,
    eta: float = 0.0,
    sigma: ArrayLike | None = None,
    sigma_hat: bool = False,
    final_noise: bool = False,
    rederive_eps: bool = True,
    stride_end: int | None = None,
) -> Sampler:
    """Builds DDIM (Song et al. 2021, Eq. 12), with the σ of Eq. 16 between neighbouring grid points.

        x_s = √ᾱ_s·x̂0 + √(1-ᾱ_s-σ²)·ε̂ + σ·z,     σ = η·√((1-ᾱ_s)/(1-ᾱ_t)·(1-ᾱ_t/ᾱ_s))

    η = 0 is deterministic, η = 1 is `ddpm(variance="fixed_small")`. Some code scales the variance instead of σ; its η
    is the square of this η.

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]`, descending within -1 … T-1.
      eta: η in [0, 1], the share of the ancestral sampler's noise.
      sigma: σ of each step, `[S]`, instead of η; every σ² must be ≤ 1-ᾱ_s.
      sigma_hat: whether to add the larger noise σ̂ = √(1-ᾱ_t/ᾱ_s) of App. D.3 (none on a step to clean data) to the
        mean of η = 1; excludes `eta` and `sigma`.
      final_noise: whether, with `sigma_hat`, the step to clean data adds noise too, as in some code.
      rederive_eps: whether ε̂ is derived again from the clipped x̂0; False keeps the network's ε̂ (diffusers' default).
      stride_end: -1 or 0 makes the steps of diffusers' `DDIMScheduler`: each ends ⌊T/S⌋ indices below its start, even
        if the grid's next entry is another, or at this index if that is below 0; None: steps end at the next entry.

    Raises:
      ValueError: η outside [0, 1], σ too large, options that exclude each other, an invalid grid, or one with unequal
        steps and `stride_end`.
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta={eta} must be within [0, 1]")
    if eta and (sigma is not None or sigma_hat):
        raise ValueError(f"eta={eta} must be 0 if sigma or sigma_hat is given")
    if sigma is not None and sigma_hat:
        raise ValueError("sigma_hat=True excludes sigma: give one of them")
    if final_noise and not sigma_hat:
        raise ValueError("final_noise=True needs sigma_hat=True")
    levels = _descending(schedule, grid)
    if stride_end is not None:
        levels = _with_stride(levels, schedule, stride_end)
    ab_t, ab_s = levels.ab_t, levels.ab_s
    sigma_ddpm = np.sqrt((1.0 - ab_s) / (1.0 - ab_t) * (1.0 - ab_t / ab_s))
    if sigma is not None:
        sigma = noise = _checked_sigma(sigma, levels)
    elif sigma_hat:
        sigma, noise = sigma_ddpm, np.sqrt(np.where(final_noise | (ab_s < 1.0), 1.0 - ab_t / ab_s, 0.0))
    else:
        sigma = noise = eta * sigma_ddpm
    direction = np.sqrt(np.maximum(1.0 - ab_s - sigma**2, 0.0))  # rounding can give -1e-17 where σ² = 1-ᾱ_s
    return one_call_a_step(levels, b=np.sqrt(ab_s), c=direction, d=noise, rederive_eps=rederive_eps)


@SAMPLERS.register
def probability_flow(
    schedule: NoiseSchedule, grid: ArrayLike, *, form: str = "eq13", network_at: str = "source"
) -> Sampler:
    """Builds Euler's method for the probability-flow ODE: a descending grid decodes, an ascending one encodes.

    For x̄ = x/√ᾱ as a function of σ̄ = √((1-ᾱ)/ᾱ) (DDIM Eq. 13 and 15):

        eq13: x̄_s = x̄_t + (σ̄_s - σ̄_t)·ε̂                       (descending, this is `ddim(eta=0)`)
        eq15: x̄_s = x̄_t + ½(σ̄_s² - σ̄_t²)/σ̄_t·ε̂               (Euler in the time of the variance-exploding SDE)

    At clean data the network is called with index 0.

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]`, within -1 … T-1, descending or ascending. For eq15 it must stay above -1: eq15 divides by σ̄_t,
        and a step to -1 would leave noise in the data.
      form: the equation of the paper, "eq13" or "eq15".
      network_at: the timestep of the network call: "source", where a step begins, or "destination", where it ends
        (diffusers' `DDIMInverseScheduler`).

    Raises:
      ValueError: an unknown `form` or `network_at`, an invalid grid, or a grid with -1 for eq15.
    """
    levels = _levels(schedule, grid)
    ab_t, ab_s = levels.ab_t, levels.ab_s
    if network_at not in ("source", "destination"):
        raise ValueError(f"network_at={network_at!r} is not one of 'source', 'destination'")
    t_net = np.maximum(levels.t if network_at == "source" else levels.s, 0)
    if form == "eq13":
        return one_call_a_step(levels, b=np.sqrt(ab_s), c=np.sqrt(1.0 - ab_s), t_net=t_net)
    if form != "eq15":
        raise ValueError(f"form={form!r} is not one of 'eq13', 'eq15'")
    if -1 in (levels.t[0], levels.s[-1]):
        raise ValueError("form='eq15' needs a grid that stays above -1 (clean data): end or begin it at 0")
    _check_signal(np.append(ab_t, ab_s))
    variance_t, variance_s = (1.0 - ab_t) / ab_t, (1.0 - ab_s) / ab_s
    slope = 0.5 * (variance_s - variance_t) / np.sqrt(variance_t)
    return one_call_a_step(levels, a=np.sqrt(ab_s / ab_t), c=np.sqrt(ab_s) * slope, t_net=t_net)


@SAMPLERS.register
def heun(schedule: NoiseSchedule, grid: ArrayLike) -> Sampler:
    """Builds Heun's method for the probability-flow ODE in (x̄, σ̄) (Karras et al. 2022, Alg. 1 without churn).

        x̄' = x̄_t + h·ε̂(x̄_t, t),     x̄_s = x̄_t + h·½(ε̂(x̄_t, t) + ε̂(x̄', s)),     h = σ̄_s - σ̄_t

    The second row starts from x̄': x̄_s = x̄' + h/2·(ε̂' - ε̂). A step to clean data is Euler's, so S steps down to -1 make
    2S - 1 network calls. A step from a level of almost no signal, over which √ᾱ grows more than 20-fold, is Euler's
    too, because the second row would multiply ε̂' - ε̂ by half that factor: so begins a cosine schedule at T-1.

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]`, within -1 … T-1, descending to decode or ascending to encode.

    Raises:
      ValueError: an invalid grid.
    """
    levels = _levels(schedule, grid)
    _check_signal(np.append(levels.ab_t, levels.ab_s))
    predict = one_call_a_step(levels, b=np.sqrt(levels.ab_s), c=np.sqrt(1.0 - levels.ab_s), num_eps_history=1)
    half = 0.5 * np.sqrt(levels.ab_s) * (_sigma_bar(levels.ab_s) - _sigma_bar(levels.ab_t))
    arrived = Levels(levels.s, levels.s, levels.ab_s, levels.ab_s)
    correct = one_call_a_step(arrived, a=1.0, c=half, eps_history=-half[:, None])
    corrected = (levels.s != -1) & ~_leaves_noise(levels.ab_t, levels.ab_s)
    predict = dataclasses.replace(predict, lands=~corrected)
    return interleave([predict, correct], [np.ones(len(half), bool), corrected])


@SAMPLERS.register
def dpm_solver_pp(schedule: NoiseSchedule, grid: ArrayLike, *, order: int = 2) -> Sampler:
    """Builds the multistep DPM-Solver++ in x̂0 (Lu et al. 2022), of order 1 or 2 ("2M", Alg. 2).

        x_s = √(1-ᾱ_s)/√(1-ᾱ_t)·x_t + √ᾱ_s(1 - e^{-h})·D,     λ = log(√ᾱ/√(1-ᾱ)),  h = λ_s - λ_t
        D = x̂0 (order 1);   D = (1 + 1/2r)·x̂0 - 1/2r·x̂0₍₋₁₎,  r = h₍₋₁₎/h (order 2)

    The first step is of order 1, and so is a step to clean data, where h is infinite and x_s = x̂0.

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]`, descending within -1 … T-1.
      order: the order of the method, 1 or 2.

    Raises:
      ValueError: another order, or an invalid grid.
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
    # A repeated index is a step of h = 0, which allows no extrapolation.
    half_over_r = np.where(np.isfinite(half_over_r), half_over_r, 0.0)
    return one_call_a_step(
        levels, a=noise_ratio, b=weight * (1.0 + half_over_r), x0_history=-(weight * half_over_r)[:, None]
    )


_ADAMS_BASHFORTH = np.array(
    [[1, 0, 0, 0], [3 / 2, -1 / 2, 0, 0], [23 / 12, -16 / 12, 5 / 12, 0], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]
)
"""Weights of ε̂, ε̂₍₋₁₎, …; row k has order k + 1."""


@SAMPLERS.register
def plms(schedule: NoiseSchedule, grid: ArrayLike, *, order: int = 4) -> Sampler:
    """Builds the pseudo linear multistep method (Liu et al. 2022, Eq. 12): DDIM's step with an Adams-Bashforth ε̂.

        x_s = √ᾱ_s/√ᾱ_t·x_t + (√(1-ᾱ_s) - √ᾱ_s/√ᾱ_t·√(1-ᾱ_t))·ε̂',     ε̂' = (55ε̂ - 59ε̂₍₋₁₎ + 37ε̂₍₋₂₎ - 9ε̂₍₋₃₎)/24

    The first steps have order 1, 2, 3. The weights assume equal steps in t.

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]`, descending within -1 … T-1.
      order: the order of the method, 1 … 4.

    Raises:
      ValueError: another order, or an invalid grid.
    """
    if order not in (1, 2, 3, 4):
        raise ValueError(f"order={order} is not one of 1, 2, 3, 4")
    levels = _descending(schedule, grid)
    a, c = _transfer(levels.ab_t, levels.ab_s)
    weights = c[:, None] * _ADAMS_BASHFORTH[np.minimum(np.arange(len(c)), order - 1), :order]
    return one_call_a_step(levels, a=a, c=weights[:, 0], eps_history=weights[:, 1:])


@SAMPLERS.register
def pndm(schedule: NoiseSchedule, grid: ArrayLike) -> Sampler:
    """Builds PNDM (Liu et al. 2022, Alg. 2): three pseudo Runge-Kutta steps of four calls each, then `plms`.

    A Runge-Kutta step calls the network at t, twice at the middle index m (rounded down), and at s. Each stage starts
    from x_t and applies the step φ of `plms`; the rows of the table start from the x of the row before:

        ε₁ = ε̂(x_t, t), ε₂ = ε̂(φ(x_t, ε₁, t→m), m), ε₃ = ε̂(φ(x_t, ε₂, t→m), m), ε₄ = ε̂(φ(x_t, ε₃, t→s), s)
        x_s = φ(x_t, (ε₁ + 2ε₂ + 2ε₃ + ε₄)/6, t→s)

    The multistep method continues with ε₁. S steps make S + 9 network calls. A step from a level of almost no signal,
    over which √ᾱ grows more than 20-fold, is one step of DDIM, because c of φ would multiply the differences between
    the four ε̂ by that factor: so begins a cosine schedule at T-1.

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]` with S ≥ 4, descending within -1 … T-1.

    Raises:
      ValueError: fewer than 4 steps, or an invalid grid.
    """
    levels = _descending(schedule, grid)
    if len(levels.t) < 4:
        raise ValueError(
            f"num_steps={len(levels.t)} must be ≥ 4 for pndm: 3 Runge-Kutta steps and 1 of the multistep method"
        )
    width = 12
    t, s = levels.t[:3], levels.s[:3]
    ab_t, ab_s = levels.ab_t[:3], levels.ab_s[:3]
    single = _leaves_noise(ab_t, ab_s)
    middle = np.where(single, s, (t + s) // 2)
    ab_m = schedule.alpha_bar_at(middle)
    a_m, c_m = _transfer(ab_t, ab_m)
    a_s, c_s = _transfer(ab_t, ab_s)

    def history(*columns):
        """Returns the weights of the ε̂ of earlier rows, newest first: `[3, width]`."""
        given = np.stack([np.broadcast_to(column, 3) for column in columns], axis=1)
        return np.pad(given, ((0, 0), (0, width - given.shape[1])))

    to_middle = Levels(t, middle, ab_t, ab_m)
    at_middle = Levels(middle, middle, ab_m, ab_m)
    to_end = Levels(middle, s, ab_m, ab_s)
    at_end = Levels(s, s, ab_s, ab_s)
    no, yes = np.zeros(3, bool), np.ones(3, bool)
    runge_kutta = [
        one_call_a_step(to_middle, a=a_m, c=c_m, num_eps_history=width, lands=single),
        one_call_a_step(at_middle, a=1.0, c=c_m, eps_history=history(-c_m), lands=no),
        one_call_a_step(to_end, a=a_s / a_m, c=c_s, eps_history=history(-a_s / a_m * c_m), lands=no),
        one_call_a_step(at_end, a=1.0, c=c_s / 6, eps_history=history(-4 * c_s / 6, 2 * c_s / 6, c_s / 6), lands=yes),
    ]
    rest = Levels(*(column[3:] for column in levels))
    a, c = _transfer(rest.ab_t, rest.ab_s)
    weights = np.zeros((len(c), width))
    # The row of each step's ε₁.
    rows = np.append(0, np.cumsum(np.where(single, 1, 4)))
    rows = np.append(rows, rows[-1] + np.arange(1, len(c)))
    for n in range(len(c)):
        weights[n, rows[n + 3] - rows[n : n + 3][::-1] - 1] = c[n] * _ADAMS_BASHFORTH[3, 1:]
    multistep = one_call_a_step(rest, a=a, c=c * _ADAMS_BASHFORTH[3, 0], eps_history=weights)
    first = interleave(runge_kutta, [yes, ~single, ~single, ~single])
    return jax.tree.map(lambda *columns: np.concatenate(columns), first, multistep)


def _levels(schedule: NoiseSchedule, grid: ArrayLike) -> Levels:
    grid = timesteps.check(grid, schedule.num_timesteps)
    alpha_bar = schedule.alpha_bar_at(grid)
    return Levels(grid[:-1], grid[1:], alpha_bar[:-1], alpha_bar[1:])


def _descending(schedule: NoiseSchedule, grid: ArrayLike) -> Levels:
    levels = _levels(schedule, grid)
    if levels.t[0] < levels.s[-1]:
        raise ValueError(f"grid={levels.t[0]} … {levels.s[-1]} must descend: this sampler denoises")
    return levels


def _with_stride(levels: Levels, schedule: NoiseSchedule, end: int) -> Levels:
    """Returns steps from the same indices that each end ⌊T/S⌋ lower, or at `end` if that is below 0."""
    if end not in (-1, 0):
        raise ValueError(f"stride_end={end} is not one of None, -1 (clean data), 0")
    distances = np.diff(levels.t)
    if len(distances) and np.ptp(distances) > 1:
        raise ValueError(
            f"stride_end={end} needs equal steps, as leading, trailing and linspace have; None allows others"
        )
    s = levels.t - schedule.num_timesteps // len(levels.t)
    s = np.where(s < 0, end, s).astype(np.int32)
    return levels._replace(s=s, ab_s=schedule.alpha_bar_at(s))


def _sigma_bar(alpha_bar: np.ndarray) -> np.ndarray:
    return np.sqrt((1.0 - alpha_bar) / alpha_bar)


def _transfer(ab_t: np.ndarray, ab_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (a, c) of the deterministic step x_s = a·x_t + c·ε̂ (DDIM Eq. 13; PNDM Eq. 11)."""
    _check_signal(ab_t)
    a = np.sqrt(ab_s / ab_t)
    return a, np.sqrt(1.0 - ab_s) - a * np.sqrt(1.0 - ab_t)


def _leaves_noise(ab_t: np.ndarray, ab_s: np.ndarray) -> np.ndarray:
    """Returns which steps lead from almost pure noise to a level with over 20 times the signal √ᾱ, bool `[S]`."""
    return np.sqrt(ab_s) > 20.0 * np.sqrt(ab_t)


def _check_signal(alpha_bar: np.ndarray) -> None:
    if np.any(alpha_bar == 0.0):
        raise ValueError("this sampler divides by alpha_bar, which is 0 on this grid: start the grid lower")


def _log_variance_range(small: np.ndarray, large: np.ndarray) -> np.ndarray:
    """Returns (log β̃, log β) `[S, 2]`; where β̃ is 0, the β̃ of the step before replaces it."""
    latest = np.maximum.accumulate(
        np.where(small > 0.0, np.arange(len(small)), -1)
    )  # repeated indices have no variance
    bounds = np.stack([np.where(latest >= 0, small[latest], large[0]), large], axis=1)
    return np.log(np.where(bounds > 0.0, bounds, 1.0))  # the row of a repeated index adds no noise


def _checked_sigma(sigma: ArrayLike, levels: Levels) -> np.ndarray:
    sigma = np.asarray(sigma, np.float64)
    if sigma.shape != levels.t.shape:
        raise ValueError(f"sigma of shape {sigma.shape} must have one value for each of the {len(levels.t)} steps")
    allowed = np.sqrt(1.0 - levels.ab_s)
    bad = np.flatnonzero(~((sigma >= 0.0) & (sigma <= allowed * (1.0 + 1e-12))))
    if bad.size:
        i = bad[0]
        raise ValueError(
            f"sigma[{i}]={sigma[i]} must be within 0 … √(1-ᾱ_s) = {allowed[i]}, on step {levels.t[i]} → {levels.s[i]}"
        )
    return sigma
