"""Builds the `Run` of an imported network: its task, and a resolved config with the values of its files."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffjax import fields, models, schedules
from diffjax.errors import UserError
from diffjax.runs import Run, resolve
from diffjax.samplers import SAMPLERS
from diffjax.schedules import SCHEDULES, NoiseSchedule
from diffjax.tasks.base import Objective, Task
from diffjax.tasks.generation import Generation
from diffjax.tasks.super_resolution import SuperResolution

VARIANCES = ("fixed_small", "fixed_large", "learned_range")
_LARGEST_SIZE = 16384
_OBJECTIVE = ("target", "vlb_weight", "label_dropout", "sigma_data")


def betas(values: ArrayLike) -> dict[str, Any]:
    """Returns the config section of a schedule with the given β, `[T]`."""
    return {"name": "from_betas", "betas": tuple(np.asarray(values, np.float64).tolist())}


def schedule(section: Mapping[str, Any]) -> NoiseSchedule:
    """Builds the schedule of a config section.

    Raises:
      ValueError: an invalid value.
    """
    options = {name: value for name, value in section.items() if name not in ("name", "zero_terminal_snr")}
    made = SCHEDULES[section["name"]](**options)
    return schedules.zero_terminal_snr(made) if section.get("zero_terminal_snr") else made


def image_shape(path: Path, image_size: int | tuple[int, int] | None, channels: int) -> tuple[int, int, int]:
    """Returns (height, width, channels) of a network's images.

    Args:
      path: the file, for error messages.
      image_size: the height and width, or one number for both; None if unknown.
      channels: channels of an image.

    Raises:
      UserError: an unknown or invalid size.
    """
    if image_size is None:
        raise UserError(f"{path} does not say the size of its images: give image_size=")
    size = tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(size) != 2 or not all(type(length) is int and 1 <= length <= _LARGEST_SIZE for length in size):
        raise UserError(
            f"image_size={image_size!r} must be a whole number within 1 … {_LARGEST_SIZE}, or two of them "
            "(height, width)"
        )
    return (*size, channels)


def generation(
    network: models.Network,
    params: Any,
    path: Path,
    image_shape: tuple[int, int, int],
    *,
    schedule_section: Mapping[str, Any],
    variance: str,
    target: str = "eps",
    sigma_data: float = 0.5,
    timestep_scale: float = 1.0,
    noise_conditioning: str = "t",
    label_dropout: float = 0.0,
    condition_channels: int = 0,
    label_size: int = 0,
    sample: Mapping[str, Any] | None = None,
    preferred: Mapping[str, Any] | None = None,
) -> Run:
    """Returns the run of a network that generates images.

    Args:
      network: the network.
      params: its parameters.
      path: the file that they were read from.
      image_shape: (height, width, channels) of an image.
      schedule_section: the config section of the schedule that it was trained on.
      variance: the variance that its authors sample with, one of `VARIANCES`; a learned one is the network's output.
      target: what the network predicts: "eps", "x0", "v", "flow" or "edm".
      sigma_data: σ_data of the target "edm".
      timestep_scale: the factor of the network's second input before it is embedded.
      noise_conditioning: the network's second input, as in `tasks.generation`.
      label_dropout: the probability that a label was dropped in training.
      condition_channels: channels of its condition image; 0: none.
      label_size: the size of the vectors that it takes as labels; 0: it takes none.
      sample, preferred: as in `run`.

    Raises:
      ValueError: an invalid value.
    """
    if variance not in VARIANCES:
        raise ValueError(f"variance={variance!r} is not one of {', '.join(map(repr, VARIANCES))}")
    learned = variance == "learned_range"
    # The λ of Improved DDPM; a network with a learned variance was trained with some λ > 0.
    objective = Objective(
        target=target, vlb_weight=0.001 if learned else 0.0, label_dropout=label_dropout, sigma_data=sigma_data
    )
    task = Generation(
        network=network,
        schedule=schedule(schedule_section),
        image_shape=image_shape,
        objective=objective,
        timestep_scale=timestep_scale,
        noise_conditioning=noise_conditioning,
        variance=variance if learned else None,
        condition_channels=condition_channels,
        label_size=label_size,
    )
    return run(
        task, params, path, schedule_section=schedule_section, variance=variance, sample=sample, preferred=preferred
    )


def run(
    task: Generation | SuperResolution,
    params: Any,
    path: Path,
    *,
    schedule_section: Mapping[str, Any],
    variance: str,
    sample: Mapping[str, Any] | None = None,
    preferred: Mapping[str, Any] | None = None,
) -> Run:
    """Returns the run of an imported network, which is sampled in at most 50 steps, by DDIM unless `sample` says so.

    Args:
      task: the task, with the network and its schedule.
      params: the network's parameters.
      path: the file that they were read from.
      schedule_section: the config section of the schedule.
      variance: the variance that its authors sample with.
      sample: fields of `config.sample`: the sampler (default: ddim), the timestep spacing and its options (default:
        leading), the clipping (default: ± 1) and its options.
      preferred: options of samplers, used with those samplers that have them.

    Raises:
      UserError: an invalid value.
    """
    preferred = {"variance": variance, **(preferred or {})}
    given = {"sampler": "ddim", "timestep_spacing": "leading", "clip": 1.0, **(sample or {})}
    known = fields.options(SAMPLERS[given["sampler"]])
    given |= {name: value for name, value in preferred.items() if name in known}
    most = task.schedule.num_timesteps - given.get("offset", 0)
    config = resolve.resolve(
        {
            "task": _task_section(task),
            "data": {"source": "unknown", "image_shape": task.image_shape},
            "schedule": dict(schedule_section),
            "model": _model_section(task.network),
            "train": {name: getattr(task.objective, name) for name in _OBJECTIVE},
            "sample": {"num_steps": max(1, min(50, most)), **given},
        }
    )
    return Run(config=config, task=task, params=params, source=str(path), preferred=preferred)


def _task_section(task: Task) -> dict[str, Any]:
    if isinstance(task, SuperResolution):
        level = task.level
        return {
            "name": "super_resolution",
            "noise_conditioning": level.conditioning,
            "noise_level_sampling": level.sampling,
            "noise_level_scale": level.scale,
        }
    return {
        "name": "generation",
        "timestep_scale": task.timestep_scale,
        "noise_conditioning": task.noise_conditioning,
    }


def _model_section(network: models.Network) -> dict[str, Any]:
    names = [
        field.name for field in dataclasses.fields(network) if field.name not in ("parent", "name", "out_channels")
    ]
    kind = next(name for name in models.NETWORKS if models.NETWORKS[name] is type(network))
    return {"name": kind, **{name: getattr(network, name) for name in names}, "dtype": jnp.dtype(network.dtype).name}
