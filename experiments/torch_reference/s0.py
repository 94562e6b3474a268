"""S0: ancestral DDPM with a choice of variance, and DDIM over `linspace(T, 0, S + 1)`."""

from itertools import pairwise

import torch

from torch_reference.tables import AlphaBars, filled


def ddpm(betas, x, eps_model, noise, *, dtype=torch.float64, simple_var=True, clip=None, float32_schedule=False):
    """DDPM Alg. 2 over all T indices: `[T + 1, B, …]`, x_T first.

    simple_var: σ² = β_t, else β̃_t; no noise at t = 0.
    clip: x̂0 is held to [-clip, clip] and the mean is the posterior's; None: the mean in ε form (DDPM Eq. 11).
    """
    ab = AlphaBars(betas, float32_schedule=float32_schedule)
    x = x.to(dtype)
    passed = [x]
    for row, t in enumerate(range(len(ab) - 1, -1, -1)):
        beta, ab_t, ab_s = ab.beta(t), ab[t], ab[t - 1]
        eps = eps_model(x, filled(x, t)).to(dtype)
        if clip is None:
            mean = (x - beta / (1 - ab_t).sqrt() * eps) / (1 - beta).sqrt()
        else:
            x0 = ((x - (1 - ab_t).sqrt() * eps) / ab_t.sqrt()).clamp(-clip, clip)
            mean = ((1 - beta).sqrt() * (1 - ab_s) * x + ab_s.sqrt() * beta * x0) / (1 - ab_t)
        variance = beta if simple_var else (1 - ab_s) / (1 - ab_t) * beta
        x = mean + variance.sqrt() * noise(row).to(dtype) if t > 0 else mean
        passed.append(x)
    return torch.stack(passed)


def grid(num_timesteps, num_steps, *, float32_linspace=False):
    """⌊T·(S - i)/S⌋ - 1 for i = 0 … S: from T-1 down to -1.

    float32_linspace: the fault for 63 values of S at T = 1000: float32 puts some points a hair below their integer.
    """
    if float32_linspace:
        return (torch.linspace(num_timesteps, 0, num_steps + 1).long() - 1).tolist()
    return [num_timesteps * (num_steps - i) // num_steps - 1 for i in range(num_steps + 1)]


def ddim(
    betas,
    x,
    eps_model,
    noise,
    *,
    num_steps,
    eta=0.0,
    simple_var=False,
    dtype=torch.float64,
    eta_scales_variance=False,
    final_noise=False,
    float32_linspace=False,
    float32_schedule=False,
):
    """DDIM Eq. 12 gathered by x and ε̂, along `grid`: `[S + 1, B, …]`.

    simple_var: σ(η=1) in the direction and noise σ̂ = √(1 - ᾱ_t/ᾱ_s) (App. D.3).
    eta_scales_variance: the fault σ² = η·σ²(1), so that its η is the paper's η².
    final_noise: the fault that σ̂ noise is added on the step to clean data too.
    """
    ab = AlphaBars(betas, float32_schedule=float32_schedule)
    indices = grid(len(ab), num_steps, float32_linspace=float32_linspace)
    scale = 1.0 if simple_var else eta if eta_scales_variance else eta**2
    x = x.to(dtype)
    passed = [x]
    for row, (t, s) in enumerate(pairwise(indices)):
        ab_t, ab_s = ab[t], ab[s]
        eps = eps_model(x, filled(x, t)).to(dtype)
        variance = scale * (1 - ab_s) / (1 - ab_t) * (1 - ab_t / ab_s)
        added = 1 - ab_t / ab_s if simple_var else variance
        if simple_var and s == -1 and not final_noise:
            added = torch.zeros_like(added)
        to_eps = (1 - ab_s - variance).sqrt() - (ab_s * (1 - ab_t) / ab_t).sqrt()
        x = (ab_s / ab_t).sqrt() * x + to_eps * eps + added.sqrt() * noise(row).to(dtype)
        passed.append(x)
    return torch.stack(passed)
