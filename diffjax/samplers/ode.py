"""Euler's and Heun's methods for the probability-flow ODE."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from diffjax.samplers.base import SAMPLERS, check_signal, leaves_noise, levels_of, sigma_bar
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Levels, Sampler, interleave, one_call_a_step


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
    levels = levels_of(schedule, grid)
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
    check_signal(np.append(ab_t, ab_s))
    variance_t, variance_s = (1.0 - ab_t) / ab_t, (1.0 - ab_s) / ab_s
    slope = 0.5 * (variance_s - variance_t) / np.sqrt(variance_t)
    return one_call_a_step(levels, a=np.sqrt(ab_s / ab_t), c=np.sqrt(ab_s) * slope, t_net=t_net)


@SAMPLERS.register
def heun(schedule: NoiseSchedule, grid: ArrayLike) -> Sampler:
    """Builds Heun's method for the probability-flow ODE in (x̄, σ̄) (Karras et al. 2022, Alg. 1 without churn).

        x̄' = x̄_t + h·ε̂(x̄_t, t),     x̄_s = x̄_t + h·½(ε̂(x̄_t, t) + ε̂(x̄', s)),     h = σ̄_s - σ̄_t

    The second row starts from x̄': x̄_s = x̄' + h/2·(ε̂' - ε̂). A step to clean data is Euler's, so S steps down to -1 make
    2S - 1 network calls. A step from a level of almost no signal, over which √ᾱ grows more than 20-fold, is Euler's
    too, because the second row would multiply ε̂' - ε̂ by half that factor: so begins a cosine schedule at T-1, and
    every grid whose first level is ᾱ = 0.

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]`, within -1 … T-1, descending to decode or ascending to encode.

    Raises:
      ValueError: an invalid grid, or one that leads to ᾱ = 0.
    """
    levels = levels_of(schedule, grid)
    check_signal(levels.ab_s)
    predict = one_call_a_step(levels, b=np.sqrt(levels.ab_s), c=np.sqrt(1.0 - levels.ab_s), num_eps_history=1)
    with np.errstate(divide="ignore"):  # no row is made of a step from ᾱ = 0
        half = 0.5 * np.sqrt(levels.ab_s) * (sigma_bar(levels.ab_s) - sigma_bar(levels.ab_t))
    arrived = Levels(levels.s, levels.s, levels.ab_s, levels.ab_s)
    correct = one_call_a_step(arrived, a=1.0, c=half, eps_history=-half[:, None])
    corrected = (levels.s != -1) & ~leaves_noise(levels.ab_t, levels.ab_s)
    predict = dataclasses.replace(predict, lands=~corrected)
    return interleave([predict, correct], [np.ones(len(half), bool), corrected])
