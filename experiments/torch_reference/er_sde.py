"""ER-SDE-Solvers (Cui, Zhang, Bao & Liao 2025) in PyTorch, in x̄ and σ̄, with their integrals by an adaptive rule."""

import itertools

import numpy as np
import torch
from scipy.integrate import quad

from diffjax import continuous_time
from torch_reference import k_diffusion


def phi(sigma):
    """The noise scaling "ER SDE 5"."""
    return sigma * (np.exp(sigma**0.3) + 10.0)


def runner(order):
    """A runner by the solver of the given order: x at every grid point, `[S + 1, B, …]`."""

    def run(case):
        alpha_bars = case.alpha_bars.numpy()
        signals = np.sqrt(continuous_time.alpha_bar_at(alpha_bars, case.grid))
        sigmas = np.sqrt(1.0 / signals**2 - 1.0)
        denoise = k_diffusion.denoiser(case.model, alpha_bars, case.clip)
        x, passed, old_x0, old_slope = case.x / signals[0], [case.x], None, None
        for i, (sigma, sigma_to) in enumerate(itertools.pairwise(sigmas)):
            x0 = denoise(x, torch.tensor([sigma]))
            if sigma_to == 0.0:
                passed.append(x0)
                break
            ratio, h = phi(sigma_to) / phi(sigma), sigma_to - sigma
            x = ratio * x + (1.0 - ratio) * x0 + np.sqrt(sigma_to**2 - (ratio * sigma) ** 2) * case.noise(i)
            slope = None if old_x0 is None else (x0 - old_x0) / (sigma - sigmas[i - 1])
            if slope is not None and order >= 2:
                x = x + (h + phi(sigma_to) * integral(0, sigma_to, sigma)) * slope
            if old_slope is not None and order == 3:
                second = 2.0 * (slope - old_slope) / (sigma - sigmas[i - 2])
                x = x + (h**2 / 2.0 + phi(sigma_to) * integral(1, sigma_to, sigma)) * second
            old_x0, old_slope = x0, slope
            passed.append(x * signals[i + 1])
        return torch.stack([part.to(case.dtype) for part in passed])

    return run


def integral(power, low, high):
    """∫ (σ - high)^power/φ(σ) from `low` to `high`."""
    return quad(lambda sigma: (sigma - high) ** power / phi(sigma), low, high, epsabs=1e-14, epsrel=1e-13)[0]
