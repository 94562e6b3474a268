"""Restart sampling (Xu et al. 2023, Algorithm 1) in PyTorch, in x̄ and σ̄."""

import itertools

import numpy as np
import torch

from torch_reference import k_diffusion


def runner(num_steps, intervals, restart_noise):
    """A runner by Heun's method on Karras et al.'s levels: x at every grid point, `[S + 1, B, …]`.

    intervals: (σ_min, σ_max, steps, times), as in `samplers.restart`.
    """

    def run(case):
        alpha_bars = case.alpha_bars.numpy()
        denoise = k_diffusion.denoiser(case.model, alpha_bars, case.clip)
        legs = _legs(_karras(alpha_bars, num_steps), intervals)
        x, passed, calls = case.x * np.hypot(1.0, legs[0][0]), [case.x], 0
        for leg, following in itertools.zip_longest(legs, legs[1:]):
            for sigma, sigma_to in itertools.pairwise(leg):
                slope, calls = (x - denoise(x, torch.tensor([sigma]))) / sigma, calls + 1
                if sigma_to > 0.0:
                    predicted, calls = x + (sigma_to - sigma) * slope, calls + 1
                    slope = (slope + (predicted - denoise(predicted, torch.tensor([sigma_to]))) / sigma_to) / 2
                x = x + (sigma_to - sigma) * slope
                passed.append(x / np.hypot(1.0, sigma_to))
            if following is not None:
                # One row of the table goes down to the bottom and up again: the bottom is no point of its grid.
                x = x + restart_noise * np.sqrt(following[0] ** 2 - leg[-1] ** 2) * case.noise(calls - 1)
                passed[-1] = x / np.hypot(1.0, following[0])
        return torch.stack([part.to(case.dtype) for part in passed])

    return run


def _legs(sigmas, intervals):
    """The ways down, each an array of σ̄; noise leads from the end of one to the start of the next."""
    legs, leg, start = [], sigmas[:1], 0
    for low, high, num_steps, times in sorted(intervals, reverse=True):
        point = int(np.argmin(np.abs(sigmas - low)))
        leg = np.append(leg, sigmas[start + 1 : point + 1])
        for _ in range(times):
            legs.append(leg)
            leg = np.linspace(high ** (1 / 7), sigmas[point] ** (1 / 7), num_steps + 1) ** 7
        start = point
    return [*legs, np.append(leg, sigmas[start + 1 :])]


def _karras(alpha_bars, num_steps):
    low, high = np.sqrt(1.0 / alpha_bars[[0, -1]] - 1.0)
    return np.append(np.linspace(high ** (1 / 7), low ** (1 / 7), num_steps) ** 7, 0.0)
