"""diffusers' schedulers with exact tables and given noise: a run along the whole trajectory, in x and not in x̄.

diffusers rounds its schedule to float32, and DPM-Solver++ and Euler round the state too. Tables are overwritten in
float64 here, where `torch.float32` stands in those two modules float64 is read, and noise comes from the case. In
float32 runs the state is float32 and coefficients stay float64 scalars: taken from a ᾱ in float32, 1 - ᾱ would be wrong
by 1.7e-4 at t = 0, and the comparison would measure diffusers' rounding.
"""

import contextlib
import importlib
import warnings
from unittest import mock

import torch


def lift(name, case, *, spacing, lifted=True, **options):
    """The scheduler `name` with the case's tables, set to the case's number of steps.

    spacing: diffusers' name of it; None for a scheduler with but one.
    lifted: False leaves diffusers' own float32 tables, to see what they cost.

    Raises:
      ValueError: where it would ask the network at other timesteps than the case does.
    """
    reading = _reading_float64(_module(name), case.dtype if lifted else torch.float32)
    with reading, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy, about how PyTorch hands it an array
        warnings.simplefilter("ignore", FutureWarning)  # of diffusers, about DPM-Solver in ε̂
        if spacing is not None:
            options = options | {"timestep_spacing": spacing}
        scheduler = getattr(importlib.import_module("diffusers"), name)(**options)
        scheduler.set_timesteps(case.num_steps)
    if case.asked is not None and scheduler.timesteps.tolist() != case.asked.tolist():
        raise ValueError(f"{name} calls the network at {scheduler.timesteps.tolist()}, ours at {case.asked.tolist()}")
    if not lifted:
        return scheduler
    scheduler.betas, scheduler.alphas, scheduler.alphas_cumprod = case.betas, 1 - case.betas, case.alpha_bars
    last = torch.ones((), dtype=torch.float64) if options.get("set_alpha_to_one", True) else case.alpha_bars[0]
    for name_of_last in ("one", "final_alpha_cumprod", "initial_alpha_cumprod"):
        if hasattr(scheduler, name_of_last):
            setattr(scheduler, name_of_last, last)
    if hasattr(scheduler, "sigmas"):
        ratio = ((1 - case.alpha_bars) / case.alpha_bars).sqrt()
        last = ratio[case.grid[-1]][None] if case.grid[-1] >= 0 else ratio.new_zeros(1)
        scheduler.sigmas = torch.cat([ratio[scheduler.timesteps.long()], last])
    return scheduler


def ddim(name="DDIMScheduler", *, spacing, eta=None, rederive=False, lifted=True, **options):
    """A runner: x at every grid point, `[S + 1, B, …]`, by DDIM or its inverse."""

    def run(case):
        scheduler = lift(name, case, spacing=spacing, lifted=lifted, **_clipping(case), **options)
        passed = [case.x]
        for row, t in enumerate(scheduler.timesteps):
            extra = {}
            if eta is not None:
                extra = {"eta": eta, "variance_noise": case.noise(row), "use_clipped_model_output": rederive}
            passed.append(scheduler.step(case.model(passed[-1], t), t, passed[-1], **extra).prev_sample)
        return torch.stack(passed)

    return run


def ddpm(*, spacing, variance, lifted=True):
    """A runner by ancestral sampling."""

    def run(case):
        scheduler = lift(
            "DDPMScheduler", case, spacing=spacing, lifted=lifted, variance_type=variance, **_clipping(case)
        )
        passed = [case.x]
        for row, t in enumerate(scheduler.timesteps):
            with _drawing("DDPMScheduler", case, row):
                passed.append(scheduler.step(case.model(passed[-1], t), t, passed[-1]).prev_sample)
        return torch.stack(passed)

    return run


def exponential(name, *, spacing, **options):
    """A runner by DPM-Solver, UniPC, DEIS or SA-Solver; a static clip is dynamic thresholding held at 1."""

    def run(case):
        clip = {"thresholding": case.clip is not None, "sample_max_value": case.clip or 1.0}
        scheduler = lift(name, case, spacing=spacing, **clip, **options)
        passed = [case.x]
        with _reading_float64(_module(name), case.dtype), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # as in `lift`
            for row, t in enumerate(scheduler.timesteps):
                with _drawing(name, case, row):
                    passed.append(scheduler.step(case.model(passed[-1], t), t, passed[-1]).prev_sample)
        return torch.stack(passed)

    return run


def euler(name="EulerDiscreteScheduler", *, spacing):
    """A runner by Euler's rule, or its ancestral kind, in x̄ = x/√ᾱ against σ̄."""

    def run(case):
        scheduler = lift(name, case, spacing=spacing)
        x_bar, passed = case.x / case.signal(0), [case.x]
        with _reading_float64(_module(name), case.dtype):
            for row, t in enumerate(scheduler.timesteps):
                with _drawing(name, case, row):
                    eps = case.model(scheduler.scale_model_input(x_bar, t), t)
                    x_bar = scheduler.step(eps, t, x_bar).prev_sample
                passed.append(x_bar * case.signal(row + 1))
        return torch.stack(passed)

    return run


def heun(*, spacing):
    """A runner by Heun's rule in x̄; only x on the grid is kept."""

    def run(case):
        scheduler = lift("HeunDiscreteScheduler", case, spacing=spacing, **_clipping(case))
        x_bar, passed = case.x / case.signal(0), [case.x]
        for t in scheduler.timesteps:
            eps = case.model(scheduler.scale_model_input(x_bar, t), t)
            x_bar = scheduler.step(eps, t, x_bar).prev_sample
            if scheduler.state_in_first_order:
                passed.append(x_bar * case.signal(len(passed)))
        return torch.stack([*passed, x_bar * case.signal(len(passed))])

    return run


def pndm(*, spacing, skip_prk_steps):
    """A runner by PNDM: three Runge-Kutta steps of four calls and then PLMS, or PLMS with an improved first step."""

    def run(case):
        options = {"skip_prk_steps": skip_prk_steps, "set_alpha_to_one": True}
        scheduler = lift("PNDMScheduler", case, spacing=spacing, **options)
        x, passed = case.x, [case.x]
        for call, t in enumerate(scheduler.timesteps):
            x = scheduler.step(case.model(x, t), t, x).prev_sample
            lands = call != 0 if skip_prk_steps else call >= 12 or call % 4 == 3
            if lands:
                passed.append(x)
        return torch.stack(passed)

    return run


def _clipping(case):
    return {"clip_sample": case.clip is not None, "clip_sample_range": case.clip or 1.0}


def _module(name):
    return importlib.import_module(getattr(importlib.import_module("diffusers"), name).__module__)


class Float64:
    """A module (`torch` or NumPy), but what it calls float32 is float64."""

    def __init__(self, module):
        self.module, self.float32 = module, module.float64

    def __getattr__(self, name):
        return getattr(self.module, name)


def _reading_float64(module, dtype):
    return mock.patch.object(module, "torch", Float64(torch)) if dtype == torch.float64 else contextlib.nullcontext()


def _drawing(name, case, row):
    module = _module(name)
    if not hasattr(module, "randn_tensor"):
        return contextlib.nullcontext()
    return mock.patch.object(module, "randn_tensor", return_value=case.noise(row))
