"""diffjax: denoising diffusion models (DDPM, DDIM) in JAX. Schedules and samplers are tables, networks are functions.

`import diffjax` imports the functional core, which needs only NumPy and JAX; other subpackages load on first use.
"""

import importlib
from typing import TYPE_CHECKING

from diffjax import (
    editing,
    guidance,
    latents,
    likelihood,
    parameterization,
    process,
    samplers,
    sampling,
    schedules,
    steps,
    thresholds,
    timesteps,
)
from diffjax.compilation_cache import use_compilation_cache
from diffjax.noise import initial_noise, sample_keys
from diffjax.sampling import (
    Prediction,
    Trajectory,
    sample,
    sample_many,
    sample_trajectory,
)
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler, stack

if TYPE_CHECKING:
    from diffjax import (
        data,
        interop,
        inverse,
        learn,
        losses,
        metrics,
        models,
        report,
        runs,
        sweeps,
        tasks,
        training,
        viz,
    )
    from diffjax.training.arrays import train

__version__ = "0.2.0"

_LAZY = (
    "data",
    "interop",
    "inverse",
    "learn",
    "losses",
    "metrics",
    "models",
    "report",
    "runs",
    "sweeps",
    "tasks",
    "training",
    "viz",
)

__all__ = [
    "NoiseSchedule",
    "Prediction",
    "Sampler",
    "Trajectory",
    "data",
    "editing",
    "guidance",
    "initial_noise",
    "interop",
    "inverse",
    "latents",
    "learn",
    "likelihood",
    "losses",
    "metrics",
    "models",
    "parameterization",
    "process",
    "report",
    "runs",
    "sample",
    "sample_keys",
    "sample_many",
    "sample_trajectory",
    "samplers",
    "sampling",
    "schedules",
    "stack",
    "steps",
    "sweeps",
    "tasks",
    "thresholds",
    "timesteps",
    "train",
    "training",
    "use_compilation_cache",
    "viz",
]

if not TYPE_CHECKING:

    def __getattr__(name: str):
        if name == "train":
            return importlib.import_module("diffjax.training.arrays").train
        if name in _LAZY:
            return importlib.import_module(f"diffjax.{name}")
        raise AttributeError(f"module 'diffjax' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
