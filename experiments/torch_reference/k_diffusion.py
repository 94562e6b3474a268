"""k-diffusion's `sampling.py` by itself (importing its package would need torchvision, CLIP and more), as runners."""

import functools
import importlib
import importlib.util
import sys
import types

import numpy as np
import torch

from diffjax import continuous_time


def is_installed():
    """Whether k-diffusion is installed, with or without what it needs (`pip install --no-deps k-diffusion`)."""
    return importlib.util.find_spec("k_diffusion") is not None


@functools.cache
def load():
    """The module `k_diffusion.sampling`; what it imports and its samplers do not need is left empty."""
    spec = importlib.util.find_spec("k_diffusion")
    package, utils = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
    package.__path__, package.utils = list(spec.submodule_search_locations), utils
    utils.append_dims = lambda x, ndim: x[(...,) + (None,) * (ndim - x.ndim)]
    stubs = {"k_diffusion": package, "k_diffusion.utils": utils}
    for name in ("torchdiffeq", "torchsde"):
        stubs[name] = types.ModuleType(name)
        stubs[name].odeint = None
    before = {name: sys.modules.pop(name) for name in stubs if name in sys.modules}
    sys.modules.update(stubs)
    try:
        return importlib.import_module("k_diffusion.sampling")
    finally:
        # Only these: NumPy's modules, which it may be the first to import, cannot be imported twice.
        for name in stubs:
            del sys.modules[name]
        sys.modules.update(before)


def denoiser(model, alpha_bars, clip=None):
    """The network ε̂(x, t) of a schedule as k-diffusion calls it: x̂0 of x̄ = x/√ᾱ and σ̄, clipped or not."""

    def call(x_bar, sigma):
        level = float(sigma[0])
        t = max(float(continuous_time.timestep_at(alpha_bars, level)), 0.0)
        x0 = x_bar - level * model(x_bar / np.hypot(1.0, level), torch.tensor([t], dtype=torch.float64))
        return x0 if clip is None else x0.clamp(-clip, clip)

    return call


def runner(name, draws=None, **options):
    """A runner by `sample_<name>`: x at every grid point, `[S + 1, B, …]`.

    draws: case → its draws of noise in turn, for samplers that take a `noise_sampler`.
    """

    def run(case):
        alpha_bars = case.alpha_bars.numpy()
        signals = np.sqrt(continuous_time.alpha_bar_at(alpha_bars, case.grid))
        sigmas = torch.from_numpy(np.sqrt(1.0 / signals**2 - 1.0)).to(case.dtype)
        passed = []
        given = {} if draws is None else {"noise_sampler": one_by_one(draws(case))}
        x_bar = load().__dict__[f"sample_{name}"](
            denoiser(case.model, alpha_bars, case.clip),
            case.x / signals[0],
            sigmas,
            disable=True,
            callback=lambda step: passed.append(step["x"] * signals[len(passed)]),
            **given,
            **options,
        )
        return torch.stack([*passed, x_bar * signals[-1]])

    return run


def one_by_one(draws):
    """A noise sampler that gives the draws in turn."""
    draws = iter(draws)
    return lambda *_: next(draws)
