"""Euler's method for the probability-flow ODE, to decode and to encode."""

import numpy as np
from numpy.typing import ArrayLike

from diffjax.samplers.base import SAMPLERS, check_signal, levels_of
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler, one_call_a_step


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
        (diffusers' `DDIMInverseScheduler`). It is not the level of x, so that v- and x_0-networks need
        `parameterization.from_v(predict)` without a schedule.

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
