"""Runs a sampler of diffjax and one of PyTorch whole, on the same input, and measures how far apart they end.

Both sides get the same x_T, the same noise, and the same stand-in network ε̂(x, t) = 0.6 sin 2x + 0.3 x + t/2000, large
enough that clipping bites. A row's error is ‖Δ‖₂/‖ref‖₂ at the worst point of the grid, the last one included.
"""

import dataclasses
from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import torch

import diffjax as dj
from diffjax import continuous_time, schedules
from diffjax.sampling import Prediction

SHAPE = (3, 4, 4, 2)
PACKAGES = {"diffusers": "diffusers", "k-diffusion": "k_diffusion", "azula": "azula"}
TOLERANCE = {"float64": 1e-6, "float32": 1e-5}
SCHEDULES = {
    "linear": schedules.linear,
    "scaled_linear": schedules.scaled_linear,
    "cosine": schedules.cosine,
    "zero_snr": lambda: schedules.zero_terminal_snr(schedules.linear()),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """What is compared. Both sides walk the same grid from the same x, which is data where the grid ascends."""

    schedule: str
    grid: str
    steps: int
    sampler: str
    counterpart: str
    ours: Callable[[schedules.NoiseSchedule], dj.Sampler]
    theirs: Callable[["Case"], torch.Tensor]
    """x at every grid point, `[S + 1, B, …]`."""
    eta: float | None = None
    clip: float | None = None
    network: str = "eps"
    by_design: str = ""
    """Why the two differ, where they are meant to; such a row cannot fail."""

    @property
    def is_quick(self) -> bool:
        """Whether it is not one of the 1000-step runs."""
        return self.steps < 100

    @property
    def package(self) -> str | None:
        """The package that has the counterpart; None for one of this folder's."""
        return PACKAGES.get(self.counterpart.split()[0])

    def __str__(self):
        parts = [self.schedule, self.grid, self.steps, self.sampler, f"eta={self.eta}", f"clip={self.clip}"]
        return "-".join(str(part) for part in [*parts, self.counterpart]).replace(" ", "_")


@dataclasses.dataclass(frozen=True)
class Case:
    """The PyTorch side's view of a row."""

    betas: torch.Tensor  # float64 [T]
    alpha_bars: torch.Tensor  # float64 [T]
    grid: np.ndarray  # int32 or float64 [S + 1]
    asked: np.ndarray | None  # like the grid, [R]: where both ask the network; None where they are meant to differ
    x: torch.Tensor  # [B, …]
    noise: Callable[[int], torch.Tensor]
    model: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    clip: float | None
    dtype: torch.dtype

    @property
    def num_steps(self) -> int:
        """S."""
        return len(self.grid) - 1

    def signal(self, k: int) -> torch.Tensor:
        """√ᾱ at grid point k."""
        return torch.tensor(continuous_time.alpha_bar_at(self.alpha_bars.numpy(), self.grid[k])).sqrt()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a row in one dtype."""

    error: float
    """‖Δ‖₂/‖ref‖₂ at the worst grid point."""
    clipped: float
    """The share of x̂0 that lies on the clip bounds."""


def run(row: Row, dtype: str) -> Outcome:
    """Both sides of a row, in float64 or float32."""
    with jax.enable_x64(dtype == "float64"):
        schedule = SCHEDULES[row.schedule]()
        steps = row.ours(schedule)
        grid = steps.grid
        keys = dj.sample_keys(0, 0, SHAPE[0])
        x = dj.initial_noise(keys, SHAPE[1:], jnp.dtype(dtype))
        x = 0.5 * jnp.tanh(x) if grid[0] < grid[-1] else x
        frames = dj.sample_trajectory(steps, _predict(row.network, schedule), x, keys, clip=row.clip)
        case = Case(
            betas=torch.from_numpy(schedule.betas.copy()),
            alpha_bars=torch.from_numpy(schedule.alpha_bars.copy()),
            grid=grid,
            asked=None if row.by_design else np.asarray(steps.t_net),
            x=torch.from_numpy(np.array(x)),
            noise=lambda row: torch.from_numpy(np.array(_noise(keys, row, dtype))),
            model=partial(_torch_model, row.network),
            clip=row.clip,
            dtype=getattr(torch, dtype),
        )
        theirs = row.theirs(case)
        if theirs.dtype != case.dtype or frames.x.dtype != dtype or len(theirs) != len(grid):
            raise ValueError(f"{row}: {theirs.dtype} of length {len(theirs)}, {frames.x.dtype} of length {len(grid)}")
        ours, theirs = np.asarray(frames.x, np.float64), theirs.double().numpy()
        looked = np.asarray(frames.x0[: -1 if grid[-1] == -1 else None])
    axes = tuple(range(1, ours.ndim))
    errors = np.sqrt(np.sum((ours - theirs) ** 2, axes) / np.sum(theirs**2, axes))
    clipped = 0.0 if row.clip is None else float(np.mean(np.abs(looked) == np.float32(row.clip)))
    return Outcome(error=float(np.max(errors)), clipped=clipped)


def problem(row: Row, dtype: str, outcome: Outcome) -> str:
    """What is wrong with an outcome, in a few words; empty if nothing is."""
    if row.clip is not None and not 0.0 < outcome.clipped < 1.0:
        return "clipping idle" if outcome.clipped == 0.0 else "all clipped"
    if row.by_design:
        return "" if np.isfinite(outcome.error) else "not finite"
    return "" if outcome.error <= TOLERANCE[dtype] else f"above {TOLERANCE[dtype]:g}"  # NaN is above as well


def _network(sin, x, t):
    return 0.6 * sin(2 * x) + 0.3 * x + t / 2000


def _torch_model(kind, x, t):
    """The network as PyTorch samplers call it; t a scalar tensor or `int64[B]`, all equal. Channels are axis 1."""
    out = _network(torch.sin, x, float(t.flatten()[0]))
    if kind == "learned_range":
        return torch.cat([out, torch.sin(x)], dim=1)
    if kind == "learned":
        return torch.cat([out, torch.exp(torch.sin(x) - 3)], dim=1)
    return out


@jax.tree_util.Partial
def _eps(x, t):
    return _network(jnp.sin, x, t[0].astype(x.dtype))


def _v(signal, noise, x, t):
    signal, noise = signal[t[0]].astype(x.dtype), noise[t[0]].astype(x.dtype)
    v = _eps(x, t)
    return Prediction(x0=signal * x - noise * v, eps=signal * v + noise * x)


def _with_variance(kind, signal, noise, x, t):
    eps = _eps(x, t)
    frac = (jnp.sin(x) + 1) / 2 if kind == "learned_range" else jnp.sin(x) - 3
    x0 = (x - noise[t[0]].astype(x.dtype) * eps) / signal[t[0]].astype(x.dtype)
    return Prediction(x0=x0, eps=eps, log_var_frac=frac)


def _predict(kind, schedule):
    if kind == "eps":
        return _eps
    tables = schedule.sqrt_alpha_bars.copy(), schedule.sqrt_one_minus_alpha_bars.copy()
    tables = tuple(jnp.asarray(table) for table in tables)
    if kind == "v":
        return jax.tree_util.Partial(_v, *tables)
    return jax.tree_util.Partial(_variance_kinds(kind), *tables)


@cache
def _variance_kinds(kind):
    return partial(_with_variance, kind)


@partial(jax.jit, static_argnums=2)
def _noise(keys, row, dtype):
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, row), SHAPE[1:], dtype))(keys)
