"""Second-order solvers with a call in the middle of each step, and their stochastic forms (k-diffusion)."""

import itertools

import numpy as np
from numpy.typing import ArrayLike

from diffjax.samplers.base import SAMPLERS, levels_of
from diffjax.samplers.recorder import Recorder
from diffjax.samplers.sigma_space import (
    ancestral_step,
    check_distinct,
    check_eta,
    grid_levels,
    is_single_call,
    level_between,
)
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler


@SAMPLERS.register
def dpm2(schedule: NoiseSchedule, grid: ArrayLike, *, eta: float = 0.0) -> Sampler:
    """Builds the midpoint method in x̄ = x/√ᾱ and σ̄ after DPM-Solver-2 (k-diffusion's `sample_dpm_2`).

        x̄_m = x̄_t + (σ_m - σ̄_t)·ε̂(x̄_t, t),     x̄_s = x̄_t + (σ_down - σ̄_t)·ε̂(x̄_m, m) + σ_up·z
        σ_m = √(σ̄_t·σ_down),     σ_up = η·σ̄_s·√(1 - σ̄_s²/σ̄_t²),     σ_down² + σ_up² = σ̄_s²

    η = 0 is diffusers' `KDPM2Discrete`, η = 1 its `KDPM2AncestralDiscrete`. A step to clean data is Euler's, so S steps
    down to -1 make 2S - 1 network calls; so is a step from a level of almost no signal, over which √ᾱ grows more than
    20-fold. On a grid of whole timesteps the middle is the timestep nearest to σ_m.

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]` or real times, descending within -1 … T-1.
      eta: η in [0, 1], the share of the ancestral sampler's noise.

    Raises:
      ValueError: η outside [0, 1], an invalid grid, or a level without signal.
    """
    check_eta(eta)
    levels, dtype = grid_levels(schedule, grid)
    recorder, x = Recorder(), Recorder.start
    for here, there in itertools.pairwise(levels):
        down, up = ancestral_step(here.sigma_bar, there.sigma_bar, eta)
        first = recorder.call(x, here)
        if is_single_call(here, there):
            x = there.signal * (first.x0 + down * first.eps + up * first.z)
            continue
        middle = level_between(schedule, np.sqrt(here.sigma_bar * down), dtype)
        second = recorder.call(middle.signal * (first.x0 + middle.sigma_bar * first.eps), middle, on_grid=False)
        x_bar = second.x / middle.signal + (here.sigma_bar - middle.sigma_bar) * first.eps  # that of the first call
        x = there.signal * (x_bar + (down - here.sigma_bar) * second.eps + up * second.z)
    return recorder.finish(x, levels[-1], dtype=dtype)


@SAMPLERS.register
def dpm_solver_pp_2s_ancestral(schedule: NoiseSchedule, grid: ArrayLike, *, eta: float = 1.0) -> Sampler:
    """Builds the ancestral form of DPM-Solver++(2S) (Lu et al. 2022; k-diffusion's `sample_dpmpp_2s_ancestral`).

        x̄_m = σ_m/σ̄_t·x̄_t + (1 - σ_m/σ̄_t)·x̂0(x̄_t, t)
        x̄_s = σ_down/σ̄_t·x̄_t + (1 - σ_down/σ̄_t)·x̂0(x̄_m, m) + σ_up·z

    in x̄ = x/√ᾱ, with σ_m, σ_down and σ_up of `dpm2`; η = 0 is the solver for the ODE. A step to clean data is
    x_s = x̂0, so S steps down to -1 make 2S - 1 network calls. On a grid of whole timesteps the middle is the timestep
    nearest to σ_m.

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]` or real times, descending within -1 … T-1.
      eta: η in [0, 1], the share of the ancestral sampler's noise.

    Raises:
      ValueError: η outside [0, 1], an invalid grid, or a level without signal.
    """
    check_eta(eta)
    levels, dtype = grid_levels(schedule, grid)
    recorder, x = Recorder(), Recorder.start
    for here, there in itertools.pairwise(levels):
        down, up = ancestral_step(here.sigma_bar, there.sigma_bar, eta)
        first = recorder.call(x, here)
        if there.noise == 0.0:
            x = there.signal * first.x0
            continue
        middle = level_between(schedule, np.sqrt(here.sigma_bar * down), dtype)
        inner = middle.sigma_bar / here.sigma_bar
        x_middle = inner / here.signal * first.x + (1.0 - inner) * first.x0
        second = recorder.call(middle.signal * x_middle, middle, on_grid=False)
        x_bar = (second.x / middle.signal - (1.0 - inner) * first.x0) / inner  # that of the first call
        ratio = down / here.sigma_bar
        x = there.signal * (ratio * x_bar + (1.0 - ratio) * second.x0 + up * second.z)
    return recorder.finish(x, levels[-1], dtype=dtype)


@SAMPLERS.register
def dpm_solver_pp_sde(schedule: NoiseSchedule, grid: ArrayLike, *, eta: float = 1.0) -> Sampler:
    """Builds DPM-Solver++ for the SDE, with two calls a step (k-diffusion's `sample_dpmpp_sde`).

    This is diffusers' `DPMSolverSDE`. Both rows make an ancestral step from x̄_t, the first to σ_m = √(σ̄_t·σ̄_s) with
    the x̂0 at t, and the second to σ̄_s with the x̂0 at m:

        x̄_m = σ_down(m)/σ̄_t·x̄_t + (1 - σ_down(m)/σ̄_t)·x̂0(x̄_t, t) + σ_up(m)·z₁
        x̄_s = σ_down(s)/σ̄_t·x̄_t + (1 - σ_down(s)/σ̄_t)·x̂0(x̄_m, m) + σ_up(s)·(√p·z₁ + √(1-p)·z₂)

    with σ_down and σ_up of `dpm2`. The noise of a step is the increment of a Brownian motion in σ̄, of which z₁ is the
    part down to σ_m: p = (σ̄_t - σ_m)/(σ̄_t - σ̄_s). A step to clean data is x_s = x̂0, so S steps down to -1 make 2S - 1
    network calls. On a grid of whole timesteps the middle is the timestep nearest to σ_m.

    Args:
      schedule: the noise schedule.
      grid: `int[S+1]` or real times, descending within -1 … T-1, without repeats.
      eta: η in [0, 1], the share of the ancestral sampler's noise.

    Raises:
      ValueError: η outside [0, 1], an invalid grid, one that repeats a time, or a level without signal.
    """
    check_eta(eta)
    check_distinct(levels_of(schedule, grid))
    levels, dtype = grid_levels(schedule, grid)
    recorder, x = Recorder(), Recorder.start
    for here, there in itertools.pairwise(levels):
        first = recorder.call(x, here)
        if there.noise == 0.0:
            x = there.signal * first.x0
            continue
        sigma, sigma_to = here.sigma_bar, there.sigma_bar
        middle = level_between(schedule, np.sqrt(sigma * sigma_to), dtype)
        x_bar = first.x / here.signal
        down, up = ancestral_step(sigma, middle.sigma_bar, eta)
        x_middle = down / sigma * x_bar + (1.0 - down / sigma) * first.x0 + up * first.z
        second = recorder.call(middle.signal * x_middle, middle, on_grid=False)
        part = (sigma - middle.sigma_bar) / (sigma - sigma_to)
        z = np.sqrt(part) * first.z + np.sqrt(1.0 - part) * second.z
        down, up = ancestral_step(sigma, sigma_to, eta)
        x = there.signal * (down / sigma * x_bar + (1.0 - down / sigma) * second.x0 + up * z)
    return recorder.finish(x, levels[-1], dtype=dtype)
