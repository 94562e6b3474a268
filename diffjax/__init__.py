"""diffjax: denoising diffusion in JAX. Schedules, grids and samplers are data; networks are functions.

The functional core (NumPy and JAX alone) is imported with the package; the rest on first use.
"""

import importlib

from diffjax import (
    editing,
    guidance,
    latents,
    likelihood,
    process,
    samplers,
    sampling,
    schedules,
    steps,
    thresholds,
    timesteps,
)
from diffjax.noise import initial_noise, sample_keys
from diffjax.sampling import (
    Prediction,
    Trajectory,
    sample,
    sample_many,
    sample_trajectory,
)
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Steps, stack

__version__ = "0.1.0"

_LAZY = ("data", "evaluation", "interop", "losses", "models", "tasks", "training", "viz")

__all__ = [
    "NoiseSchedule",
    "Prediction",
    "Steps",
    "Trajectory",
    "editing",
    "initial_noise",
    "guidance",
    "latents",
    "likelihood",
    "process",
    "sample",
    "sample_keys",
    "sample_many",
    "sample_trajectory",
    "samplers",
    "sampling",
    "schedules",
    "stack",
    "steps",
    "thresholds",
    "timesteps",
    *_LAZY,
]


def __getattr__(name: str):
    if name in _LAZY:
        return importlib.import_module(f"diffjax.{name}")
    raise AttributeError(f"module 'diffjax' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
