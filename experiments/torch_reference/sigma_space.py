"""diffusers' schedulers in x̄ = x/√ᾱ and σ̄, all their formulas in float64: runs along the whole trajectory."""

import contextlib
import importlib
import warnings
from unittest import mock

import numpy as np
import torch

from diffjax import continuous_time
from torch_reference import lifted


def runner(name, draws=None, **options):
    """A runner: x at every grid point, `[S + 1, B, …]`, by the scheduler `name` of diffusers.

    draws: (case, call) → the z of a call, for schedulers that draw some.
    """

    def run(case):
        module = importlib.import_module(getattr(importlib.import_module("diffusers"), name).__module__)
        with _all_float64(module), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how PyTorch hands arrays over
            scheduler = getattr(module, name)(trained_betas=case.betas.tolist(), **options)
            scheduler.set_timesteps(case.num_steps)
            if not np.allclose(scheduler.timesteps, case.asked, rtol=0.0, atol=1e-6):
                raise ValueError(f"{name} calls the network at {scheduler.timesteps.tolist()}, ours at {case.asked}")
            x_bar, passed = case.x / case.signal(0), [case.x]
            x_bar = x_bar.to(case.dtype)
            for call, t in enumerate(scheduler.timesteps):
                eps = case.model(scheduler.scale_model_input(x_bar, t).to(case.dtype), t)
                with _drawing(module, scheduler, draws, case, call):
                    x_bar = scheduler.step(eps, t, x_bar).prev_sample.to(case.dtype)
                if getattr(scheduler, "state_in_first_order", True):
                    passed.append((x_bar * case.signal(len(passed))).to(case.dtype))
            if len(passed) == case.num_steps:
                passed.append((x_bar * case.signal(case.num_steps)).to(case.dtype))
        return torch.stack(passed)

    return run


def ancestral(case, call):
    """The z of a call of a solver that adds noise at the end of each step."""
    return case.noise(call)


def brownian(case, call):
    """The z of a call of a solver that makes two a step and whose second adds a whole increment of Brownian motion."""
    if call % 2 == 0:
        return case.noise(call)
    times = case.asked[call - 1], case.asked[call], case.grid[call // 2 + 1]
    sigma, between, sigma_to = np.sqrt(1.0 / continuous_time.alpha_bar_at(case.alpha_bars.numpy(), times) - 1.0)
    part = (sigma - between) / (sigma - sigma_to)
    return np.sqrt(part) * case.noise(call - 1) + np.sqrt(1.0 - part) * case.noise(call)


@contextlib.contextmanager
def _all_float64(module):
    """What the module makes in float32 is made in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_default_dtype, before)
        stack.enter_context(mock.patch.object(module, "torch", lifted.Float64(torch)))
        stack.enter_context(mock.patch.object(module, "np", lifted.Float64(np)))
        yield


def _drawing(module, scheduler, draws, case, call):
    if draws is None:
        return contextlib.nullcontext()
    if hasattr(scheduler, "noise_sampler"):
        scheduler.noise_sampler = lambda *_: draws(case, call)
        return contextlib.nullcontext()
    return mock.patch.object(module, "randn_tensor", return_value=draws(case, call))
