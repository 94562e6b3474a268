"""azula's exponential Adams-Bashforth samplers as runners."""

import importlib
import types

import numpy as np
import torch

from diffjax import continuous_time


def runner(name, order):
    """A runner by the sampler `name` of azula: x at every grid point, `[S + 1, B, …]`."""

    def run(case):
        azula = importlib.import_module("azula.sample")
        scales = np.sqrt(continuous_time.alpha_bar_at(case.alpha_bars.numpy(), case.grid))
        signals = torch.from_numpy(scales)
        noises = torch.from_numpy(np.sqrt(1.0 - scales**2))

        passed = []
        times = case.grid.tolist()

        def denoiser(x, t):
            row = times.index(float(t))
            passed.append(x.to(case.dtype))
            eps = case.model(passed[-1], t)
            x0 = (passed[-1] - noises[row] * eps) / signals[row]
            x0 = x0 if case.clip is None else x0.clamp(-case.clip, case.clip)
            return types.SimpleNamespace(mean=x0)

        denoiser.schedule = lambda _: (signals, noises)

        class OnGrid(getattr(azula, name)):
            timesteps = torch.tensor(times, dtype=torch.float64)

        last = OnGrid(denoiser, order=order, silent=True)(case.x)
        return torch.stack([*passed, last.to(case.dtype)])

    return run
