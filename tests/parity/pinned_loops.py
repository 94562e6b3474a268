"""Runs of the pinned loops by diffusers, in float32 as its tests do or with all formulas in float64."""

import contextlib
import functools
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
      sum: of |x| over all values.
      x: the state at the end, float64 `[B, C, …]`.
      draws: scheduler call (0 is the first of the loop) → the z that it drew, float64 `[B, C, …]`, in the order drawn.
      timesteps: those of the loop, one for each scheduler call (in "corrected" loops, for each pair of calls).
    """

    sum: float
    x: np.ndarray
    draws: dict[int, np.ndarray]
    timesteps: list[float]


def numbered_sample(shape):
    """0, 1, 2, … over their number, with the batch axis last and then moved to the front: float64 `[B, C, …]`."""
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
      float64, and its calls draw the z of the float32 run.
    """
    kind = getattr(diffusers, record.scheduler)
    module = inspect.getmodule(kind)
    draws = Draws(seed=record.seed) if dtype == "float32" else Draws(given=run_diffusers(record).draws)
    with in_precision(module, dtype), drawing(module, draws), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy, about how PyTorch hands it an array
        warnings.filterwarnings("ignore", "Should have t", UserWarning)  # of torchsde, about rounding
        scheduler = kind(**record.config)
        for name in record.through:
            scheduler = getattr(diffusers, name).from_config(scheduler.config)
        x = torch.tensor(numbered_sample(record.shape), dtype=getattr(torch, dtype))
        x, timesteps = LOOPS[record.kind](record, scheduler, x, draws)
    return Outcome(
        sum=x.abs().sum().item(), x=x.double().numpy(), draws=draws.drawn, timesteps=[float(t) for t in timesteps]
    )


def run_loop(record, scheduler, x, draws):
    """Every timestep from `record.start` on, once for each pass."""
    if record.timesteps is not None:
        scheduler.set_timesteps(timesteps=list(record.timesteps))
    elif record.num_steps is not None:
        scheduler.set_timesteps(record.num_steps)
    timesteps = scheduler.timesteps[record.start :]
    if record.scaled_start:
        x = x * scheduler.init_noise_sigma
    if record.noised:
        x = scheduler.add_noise(x, torch.tensor(numbered_noise(record.shape), dtype=x.dtype), timesteps[:1])
    known = inspect.signature(scheduler.step).parameters
    for _ in range(record.passes):
        scheduler._step_index = None
        for row, t in enumerate(timesteps):
            scaled = x if record.scaling == "unused" else scheduler.scale_model_input(x, t)
            x = scaled if record.scaling == "state" else x
            options = {"eta": 0.0} if "eta" in known else {}
            if "prev_timestep" in known and row + 1 < len(timesteps):
                options["prev_timestep"] = timesteps[row + 1]
            x = scheduler.step(network(scaled, t.to(x.dtype)), t, x, **options).prev_sample
            draws.call += 1
    return x, timesteps.tolist() * record.passes


def run_batch(record, scheduler, x, draws):
    """One step of three batches, each at its own timestep."""
    if record.num_steps is not None:
        scheduler.set_timesteps(record.num_steps)
    t = torch.arange(3).repeat_interleave(len(x))
    x = torch.cat([x, x + 0.1, x - 0.1])
    output = network(x, t.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype))
    return scheduler.batch_step_no_noise(output, t, x), range(3)


def run_corrected(record, scheduler, x, draws):
    """A correction and a prediction at each timestep."""
    scheduler.set_sigmas(record.num_steps)
    scheduler.set_timesteps(record.num_steps)
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):  # σ has as many values as in training
        sigma = sigma.to(x.dtype)
        x = scheduler.step_correct(network(x, sigma), x).prev_sample
        draws.call += 1
        x = scheduler.step_pred(network(x, sigma), t, x).prev_sample
        draws.call += 1
    return x, scheduler.timesteps


LOOPS = {"loop": run_loop, "batch": run_batch, "corrected": run_corrected}


class Draws:
    """The noise of one run: drawn in float32 from a seed, or given by call.

    Fields:
      call: the number of the scheduler call that is being made.
      drawn: call → z.
    """

    def __init__(self, *, seed=None, given=None):
        self.generator = torch.Generator().manual_seed(seed or 0)
        self.given = given
        self.call, self.drawn = 0, {}

    def normal(self, shape, *, dtype=None, **_):
        """The z of the call, in place of diffusers' `randn_tensor`."""
        z = torch.randn(shape, generator=self.generator, dtype=torch.float32)
        return self._keep(z, dtype or torch.get_default_dtype())

    def brownian(self, kind, x, sigma_min, sigma_max, seed):
        """A sampler of Brownian increments, in place of diffusers' class `kind` of them."""
        sampler = kind(x.float(), sigma_min, sigma_max, seed)
        return lambda sigma, sigma_next: self._keep(sampler(sigma, sigma_next), x.dtype)

    def _keep(self, z, dtype):
        if self.call in self.drawn:
            raise ValueError(f"scheduler call {self.call} draws twice")
        z = z.double() if self.given is None else torch.tensor(self.given[self.call])
        self.drawn[self.call] = z.numpy()
        return z.to(dtype)


@contextlib.contextmanager
def drawing(module, draws):
    """The scheduler's module draws from `draws`."""
    with contextlib.ExitStack() as stack:
        if hasattr(module, "randn_tensor"):
            stack.enter_context(mock.patch.object(module, "randn_tensor", draws.normal))
        if hasattr(module, "BrownianTreeNoiseSampler"):
            sampler = functools.partial(draws.brownian, module.BrownianTreeNoiseSampler)
            stack.enter_context(mock.patch.object(module, "BrownianTreeNoiseSampler", sampler))
        yield


class Float64:
    """A module (`torch` or NumPy), but what it calls float32 is float64."""

    def __init__(self, module):
        self.module, self.float32 = module, module.float64

    def __getattr__(self, name):
        return getattr(self.module, name)


@contextlib.contextmanager
def in_precision(module, dtype):
    """In "float64", what the scheduler's module makes in float32 is made in float64."""
    before = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        if dtype == "float64":
            torch.set_default_dtype(torch.float64)
            stack.callback(torch.set_default_dtype, before)
            for name, library in (("torch", torch), ("np", np)):
                if hasattr(module, name):
                    stack.enter_context(mock.patch.object(module, name, Float64(library)))
        yield
