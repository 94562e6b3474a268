"""PNDM and its pseudo linear multistep method."""

import jax
import numpy as np
from numpy.typing import ArrayLike

from diffjax.samplers.base import SAMPLERS, check_signal, descending, leaves_noise, transfer
from diffjax.samplers.recorder import Call, Expression, Level, Recorder, level_at
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Levels, Sampler, interleave, one_call_a_step

_ADAMS_BASHFORTH = np.array(
    [[1, 0, 0, 0], [3 / 2, -1 / 2, 0, 0], [23 / 12, -16 / 12, 5 / 12, 0], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]
)
"""Weights of ε̂, ε̂₍₋₁₎, …; row k has order k + 1."""


@SAMPLERS.register
def plms(
    schedule: NoiseSchedule, grid: ArrayLike, *, order: int = 4, first_step: str = "euler", average: str = "eps"
) -> Sampler:
    """Builds the pseudo linear multistep method (Liu et al. 2022, Eq. 12): DDIM's step with an Adams-Bashforth ε̂.

        x_s = √ᾱ_s/√ᾱ_t·x_t + (√(1-ᾱ_s) - √ᾱ_s/√ᾱ_t·√(1-ᾱ_t))·ε̂',     ε̂' = (55ε̂ - 59ε̂₍₋₁₎ + 37ε̂₍₋₂₎ - 9ε̂₍₋₃₎)/24

    The first steps have order 1, 2, 3, which makes it iPNDM (Zhang & Chen 2023, App. H.2; diffusers' `IPNDMScheduler`).
    The weights assume equal steps in t. A first level without signal (ᾱ = 0) is left by DDIM's step, for networks that
    predict x̂0 there.

    Args:
      schedule: the noise schedule.
      grid: `[S+1]`, descending within -1 … T-1.
      order: the order of the method, 1 … 4.
      first_step: "euler" makes one network call; "heun" makes two, at both ends, and takes the mean of their ε̂, as in
        latent diffusion and in diffusers' `PNDMScheduler` with skip_prk_steps. It needs two steps or more.
      average: the output that the weights apply to: "eps", or "v", whose mean becomes ε̂' = √ᾱ_t·v̂' + √(1-ᾱ_t)·x_t
        (what diffusers' `PNDMScheduler` does with v-networks); "v" needs the first step "euler".

    Raises:
      ValueError: another order, first step or output, or an invalid grid.
    """
    if order not in (1, 2, 3, 4):
        raise ValueError(f"order={order} is not one of 1, 2, 3, 4")
    if first_step not in ("euler", "heun"):
        raise ValueError(f"first_step={first_step!r} is not one of 'euler', 'heun'")
    levels = descending(schedule, grid)
    if _averages_v(average):
        if first_step == "heun":
            raise ValueError("average='v' needs first_step='euler'")
        return _in_v(schedule, levels, order=order, runge_kutta=0)
    without_signal = levels.ab_t == 0.0
    a, c = transfer(np.where(without_signal, levels.ab_s, levels.ab_t), levels.ab_s)
    a, c = np.where(without_signal, 0.0, a), np.where(without_signal, np.sqrt(1.0 - levels.ab_s), c)
    weights = c[:, None] * _ADAMS_BASHFORTH[np.minimum(np.arange(len(c)), order - 1), :order]
    if first_step == "euler":
        b = np.where(without_signal, np.sqrt(levels.ab_s), 0.0)
        return one_call_a_step(levels, a=a, b=b, c=weights[:, 0], eps_history=weights[:, 1:])
    check_signal(levels.ab_t)
    if len(c) < 2:
        raise ValueError("first_step='heun' needs num_steps ≥ 2")
    first, rest = (Levels(*(column[part] for column in levels)) for part in (slice(1), slice(1, None)))
    arrived = Levels(first.s, first.s, first.ab_s, first.ab_s)
    half = 0.5 * c[:1]
    history = np.zeros((len(c), order))
    history[0, :1] = -half
    for step in range(1, len(c)):
        for lag in range(1, min(step, order - 1) + 1):
            # One more row lies between this step and the first call of the first step.
            history[step, lag - 1 + (lag == step)] = weights[step, lag]
    return jax.tree.map(
        lambda *columns: np.concatenate(columns),
        one_call_a_step(first, a=a[:1], c=c[:1], num_eps_history=order, lands=False),
        one_call_a_step(arrived, a=1.0, c=half, eps_history=history[:1]),
        one_call_a_step(rest, a=a[1:], c=weights[1:, 0], eps_history=history[1:]),
    )


@SAMPLERS.register
def pndm(schedule: NoiseSchedule, grid: ArrayLike, *, average: str = "eps") -> Sampler:
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
      average: the output whose mean is taken, "eps" or "v", as in `plms`.

    Raises:
      ValueError: fewer than 4 steps, another output, or an invalid grid.
    """
    levels = descending(schedule, grid)
    if len(levels.t) < 4:
        raise ValueError(
            f"num_steps={len(levels.t)} must be ≥ 4 for pndm: 3 Runge-Kutta steps and 1 of the multistep method"
        )
    if _averages_v(average):
        return _in_v(schedule, levels, order=4, runge_kutta=3)
    width = 12
    t, s = levels.t[:3], levels.s[:3]
    ab_t, ab_s = levels.ab_t[:3], levels.ab_s[:3]
    single = leaves_noise(ab_t, ab_s)
    middle = np.where(single, s, _middle(t, s))
    ab_m = schedule.alpha_bar_at(middle)
    a_m, c_m = transfer(ab_t, ab_m)
    a_s, c_s = transfer(ab_t, ab_s)

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
    a, c = transfer(rest.ab_t, rest.ab_s)
    weights = np.zeros((len(c), width))
    # The row of each step's ε₁.
    rows = np.append(0, np.cumsum(np.where(single, 1, 4)))
    rows = np.append(rows, rows[-1] + np.arange(1, len(c)))
    for n in range(len(c)):
        weights[n, rows[n + 3] - rows[n : n + 3][::-1] - 1] = c[n] * _ADAMS_BASHFORTH[3, 1:]
    multistep = one_call_a_step(rest, a=a, c=c * _ADAMS_BASHFORTH[3, 0], eps_history=weights)
    first = interleave(runge_kutta, [yes, ~single, ~single, ~single])
    return jax.tree.map(lambda *columns: np.concatenate(columns), first, multistep)


def _middle(t: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Returns the times halfway, rounded down between whole timesteps."""
    return (t + s) // 2 if t.dtype.kind == "i" else (t + s) / 2


def _averages_v(average: str) -> bool:
    """Returns whether the mean is that of v̂.

    Raises:
      ValueError: neither "eps" nor "v".
    """
    if average not in ("eps", "v"):
        raise ValueError(f"average={average!r} is not one of 'eps', 'v'")
    return average == "v"


def _in_v(schedule: NoiseSchedule, levels: Levels, *, order: int, runge_kutta: int) -> Sampler:
    """Builds `plms` or, with 3 Runge-Kutta steps, `pndm` with the means of v̂."""
    check_signal(levels.ab_t)
    single = leaves_noise(levels.ab_t, levels.ab_s)
    recorder, x = Recorder(), Recorder.start
    slopes: list[Expression] = []  # v̂ of the steps, newest first
    for number, (t, s) in enumerate(zip(levels.t, levels.s, strict=True)):
        here, there = level_at(schedule, t), level_at(schedule, s)
        first = recorder.call(x, here)
        slopes.insert(0, _v(first))
        if number >= runge_kutta or single[number]:
            used = 1 if number < runge_kutta else min(len(slopes), order)
            mean = Expression({})
            for weight, v in zip(_ADAMS_BASHFORTH[used - 1], slopes[:used], strict=False):
                mean = mean + weight * v
            x = _step_by_v(first, mean, there)
            continue
        middle = level_at(schedule, _middle(t, s))
        second = recorder.call(_step_by_v(first, _v(first), middle), middle, on_grid=False)
        third = recorder.call(_step_by_v(first, _v(second), middle), middle, on_grid=False)
        fourth = recorder.call(_step_by_v(first, _v(third), there), there, on_grid=False)
        x = _step_by_v(first, (_v(first) + 2 * _v(second) + 2 * _v(third) + _v(fourth)) / 6, there)
    return recorder.finish(x, level_at(schedule, levels.s[-1]), dtype=levels.t.dtype)


def _v(call: Call) -> Expression:
    """Returns v̂ = √ᾱ·ε̂ - √(1-ᾱ)·x̂0 of a call."""
    return call.level.signal * call.eps - call.level.noise * call.x0


def _step_by_v(call: Call, v: Expression, there: Level) -> Expression:
    """Returns the step of `plms` from the x of a call with ε̂' = √ᾱ_t·v + √(1-ᾱ_t)·x_t."""
    here = call.level
    ratio = there.signal / here.signal
    return ratio * call.x + (there.noise - ratio * here.noise) * (here.signal * v + here.noise * call.x)
