"""Runs of the pinned loops by diffusers, in float32 as its tests do or with all formulas in float64."""

import contextlib
import importlib
import inspect
import warnings
from typing import NamedTuple
from unittest import mock

import diffusers
import numpy as np
import torch


class Outcome(NamedTuple):
    """What a loop ends with.

    Fields:
      sum, mean: of |x| over all values.
      x: the state at the end, float64 `[B, C, …]`.
      draws: scheduler call (0 is the first of the loop) → the z that it drew, float64 `[B, C, …]`, in that order.
      timesteps: those of the loop, one for each network call.
    """

    sum: float
    mean: float
    x: np.ndarray
    draws: dict[int, np.ndarray]
    timesteps: list[float]


def numbered_sample(shape):
    """0, 1, 2, … over their number, the batch axis last and then moved to the front: float64 `[B, C, …]`."""
    size = int(np.prod(shape))
    return np.moveaxis((np.arange(size) / size).reshape(*shape[1:], shape[0]), -1, 0)


def numbered_noise(shape):
    """The numbers of `numbered_sample` in falling order: float64 `[B, C, …]`."""
    size = int(np.prod(shape))
    return np.moveaxis((np.arange(size)[::-1] / size).reshape(*shape[1:], shape[0]), -1, 0)


def network(x, t):
    """The network of all tests, x · t / (t + 1)."""
    return x * t / (t + 1)


def run_diffusers(record, *, dtype="float32"):
    """The `Outcome` of a record's loop, driven as diffusers' test drives it.

    dtype: "float32" is that of the tests. In "float64" the state, the tables and the formulas of the scheduler are
      float64; z has the values of the float32 run.
    """
    kind = getattr(diffusers, record.scheduler)
    draws = _Draws(record)
    with _precision(inspect.getmodule(kind), dtype), draws.kept(inspect.getmodule(kind)), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy, about how PyTorch hands it an array
        scheduler = kind(**record.config)
        for name in record.through:
            scheduler = getattr(diffusers, name).from_config(scheduler.config)
        x = torch.tensor(numbered_sample(record.shape), dtype=getattr(torch, dtype))
        x, timesteps = _LOOPS[record.kind](record, scheduler, x, draws)
    total = x.abs().sum().item()
    return Outcome(
        sum=total,
        mean=x.abs().mean().item(),
        x=x.double().numpy(),
        draws=draws.drawn,
        timesteps=[float(t) for t in timesteps],
    )


def _run_loop(record, scheduler, x, draws):
    if record.timesteps is not None:
        scheduler.set_timesteps(timesteps=list(record.timesteps))
    elif record.num_steps is not None:
        scheduler.set_timesteps(record.num_steps)
    timesteps = scheduler.timesteps[record.start :]
    if record.scaled_start:
        x = x * scheduler.init_noise_sigma
    if record.noised:
        noise = torch.tensor(numbered_noise(record.shape), dtype=x.dtype)
        x = scheduler.add_noise(x, noise, timesteps[:1])
    known = inspect.signature(scheduler.step).parameters
    for _ in range(record.passes):
        if record.passes > 1:
            scheduler._step_index = None
        for row, t in enumerate(timesteps):
            scaled = x if record.scaling == "unused" else scheduler.scale_model_input(x, t)
            x = scaled if record.scaling == "state" else x
            output = network(scaled, t.to(x.dtype))
            options = {"generator": draws.generator} if "generator" in known else {}
            options |= {"eta": 0.0} if "eta" in known else {}
            if "prev_timestep" in known and row + 1 < len(timesteps):
                options["prev_timestep"] = timesteps[row + 1]
            x = scheduler.step(output, t, x, **options).prev_sample
            draws.call += 1
    return x, timesteps


def _run_batch(record, scheduler, x, draws):
    if record.num_steps is not None:
        scheduler.set_timesteps(record.num_steps)
    x, t = torch.cat([x, x + 0.1, x - 0.1]), torch.arange(3).repeat_interleave(len(x))
    output = network(x, t.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype))
    return scheduler.batch_step_no_noise(output, t, x), range(3)


def _run_corrected(record, scheduler, x, draws):
    scheduler.set_sigmas(record.num_steps)
    scheduler.set_timesteps(record.num_steps)
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=True):
        for step in (scheduler.step_correct, lambda output, x, **options: scheduler.step_pred(output, t, x, **options)):  # noqa: B023
            x = step(network(x, sigma.to(x.dtype)), x, generator=draws.generator).prev_sample
            draws.call += 1
    return x, scheduler.timesteps


_LOOPS = {"loop": _run_loop, "batch": _run_batch, "corrected": _run_corrected}


class _Draws:
    """The noise of one run: made in float32, widened to the state's dtype, and kept by the call that draws it."""

    def __init__(self, record):
        self.generator = torch.Generator().manual_seed(record.seed or 0)
        self.call, self.drawn = 0, {}

    @contextlib.contextmanager
    def kept(self, module):
        with contextlib.ExitStack() as stack:
            if hasattr(module, "randn_tensor"):
                stack.enter_context(mock.patch.object(module, "randn_tensor", self._normal))
            if hasattr(module, "BrownianTreeNoiseSampler"):
                stack.enter_context(mock.patch.object(module, "BrownianTreeNoiseSampler", self._brownian))
            yield

    def _keep(self, z, dtype):
        if self.call in self.drawn:
            raise ValueError(f"call {self.call} draws twice")
        self.drawn[self.call] = z.double().numpy()
        return z.to(dtype)

    def _normal(self, shape, generator=None, device=None, dtype=None, layout=None):
        return self._keep(torch.randn(shape, generator=self.generator, dtype=torch.float32), dtype or torch.float32)

    def _brownian(self, x, sigma_min, sigma_max, seed):
        sampler = _brownian_sampler()(x.float(), sigma_min, sigma_max, seed)
        return lambda sigma, sigma_next: self._keep(sampler(sigma, sigma_next), x.dtype)


_BROWNIAN = getattr(
    importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_sde"), "BrownianTreeNoiseSampler", None
)


def _brownian_sampler():
    return _BROWNIAN


class _Float64:
    """A module, but what it calls float32 is float64."""

    def __init__(self, module):
        self.module, self.float32 = module, module.float64

    def __getattr__(self, name):
        return getattr(self.module, name)


@contextlib.contextmanager
def _precision(module, dtype):
    if dtype == "float32":
        yield
        return
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with mock.patch.object(module, "torch", _Float64(torch)), mock.patch.object(module, "np", _Float64(np)):
            yield
    finally:
        torch.set_default_dtype(before)
