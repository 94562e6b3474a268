"""S3: DDIM over a thinned index list, and the probability flow of DDIM Eq. 15 both ways."""

from itertools import pairwise

import numpy as np
import torch

from torch_reference.tables import AlphaBars, filled


def indices(num_timesteps, tau, scheduling="uniform", *, historical_list=False):
    """Ascending indices: every tau-th ("uniform", tau a stride) or tau of them on a square law ("exp"), then T-1.

    historical_list: the fault that repeats stay: T-1 twice where tau divides T-1, index 0 twice and more in "exp".

    Raises:
      ValueError: another `scheduling` (the original's check could not fail).
    """
    if scheduling == "uniform":
        chosen = [*range(0, num_timesteps, tau), num_timesteps - 1]
    elif scheduling == "exp":
        chosen = [*(np.linspace(0, np.sqrt(0.8 * num_timesteps), tau) ** 2).astype(int).tolist(), num_timesteps - 1]
    else:
        raise ValueError(f"scheduling={scheduling!r} is neither 'uniform' nor 'exp'")
    return chosen if historical_list else sorted(set(chosen))


def grid(num_timesteps, tau, scheduling="uniform", *, end="one", historical_list=False):
    """`indices` descending, and -1 after them where the run ends at ᾱ = 1.

    end: "one", or "alpha_bar_0" as the original stops, where noise of std √(1 - ᾱ_0) remains.

    Raises:
      ValueError: another `end` or `scheduling`.
    """
    if end not in ("one", "alpha_bar_0"):
        raise ValueError(f"end={end!r} is neither 'one' nor 'alpha_bar_0'")
    descending = indices(num_timesteps, tau, scheduling, historical_list=historical_list)[::-1]
    return [*descending, -1] if end == "one" else descending


def sigmas(betas, levels, *, eta=1.0, sigma_from_consecutive=False, float32_schedule=False):
    """η·σ of each step between neighbours of `levels`, float64 `[S]` (DDIM Eq. 16).

    sigma_from_consecutive: the fault that σ is that of the step t → t-1, however far the step goes.
    """
    ab = AlphaBars(betas, float32_schedule=float32_schedule)
    pairs = [(t, t - 1 if sigma_from_consecutive else s) for t, s in pairwise(levels)]
    return eta * torch.stack([((1 - ab[s]) / (1 - ab[t]) * (1 - ab[t] / ab[s])).sqrt() for t, s in pairs])


def ddim(
    betas,
    x,
    eps_model,
    noise,
    *,
    tau,
    scheduling="uniform",
    eta=0.0,
    dtype=torch.float64,
    sigma_from_consecutive=False,
    end="one",
    historical_list=False,
    float32_schedule=False,
):
    """DDIM Eq. 12 along `grid`: `[S + 1, B, …]`; NaN where σ² exceeds 1 - ᾱ_s, as only `sigma_from_consecutive` can."""
    ab = AlphaBars(betas, float32_schedule=float32_schedule)
    levels = grid(len(ab), tau, scheduling, end=end, historical_list=historical_list)
    sigma = sigmas(
        betas,
        levels,
        eta=eta,
        sigma_from_consecutive=sigma_from_consecutive,
        float32_schedule=float32_schedule,
    )
    x = x.to(dtype)
    passed = [x]
    for row, (t, s) in enumerate(pairwise(levels)):
        eps = eps_model(x, filled(x, t)).to(dtype)
        x0 = (x - (1 - ab[t]).sqrt() * eps) / ab[t].sqrt()
        x = ab[s].sqrt() * x0 + (1 - ab[s] - sigma[row] ** 2).sqrt() * eps + sigma[row] * noise(row).to(dtype)
        passed.append(x)
    return torch.stack(passed)


def probability_flow(
    betas,
    x,
    eps_model,
    *,
    tau,
    scheduling="uniform",
    reverse,
    dtype=torch.float64,
    historical_list=False,
    float32_schedule=False,
):
    """x̄ = x/√ᾱ moves by ½(σ̄_s² - σ̄_t²)/σ̄_t·ε̂(x_t, t) (DDIM Eq. 15) between index T-1 and index 0: `[S + 1, B, …]`.

    reverse: True goes from noise to data, False from data, taken to be at index 0, to noise.
    """
    ab = AlphaBars(betas, float32_schedule=float32_schedule)
    levels = indices(len(ab), tau, scheduling, historical_list=historical_list)
    levels = levels[::-1] if reverse else levels
    ratio2 = [(1 - ab[t]) / ab[t] for t in levels]
    x = x.to(dtype)
    passed = [x]
    for row, (t, s) in enumerate(pairwise(levels)):
        eps = eps_model(x, filled(x, t)).to(dtype)
        bar = x / ab[t].sqrt() + 0.5 * (ratio2[row + 1] - ratio2[row]) / ratio2[row].sqrt() * eps
        x = bar * ab[s].sqrt()
        passed.append(x)
    return torch.stack(passed)
