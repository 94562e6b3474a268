"""Converts the JSON config of diffusers' schedulers to a schedule and a way of sampling, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax.errors import UserError
from diffjax.interop import diffusers_levels, diffusers_solvers, imported
from diffjax.interop.diffusers_configs import read_config
from diffjax.runs import Run

# The defaults of fields that a config of DDPM or DDIM may leave out.
DEFAULTS = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "variance_type": "fixed_small",
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "prediction_type": "epsilon",
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "steps_offset": 0,
    "set_alpha_to_one": True,
    "rescale_betas_zero_snr": False,
}
_SCHEDULES = ("linear", "scaled_linear", "sigmoid", "squaredcos_cap_v2")
_SPACINGS = ("leading", "trailing", "linspace")
_LARGEST_FLOAT = float(np.finfo(np.float32).max)
_TARGETS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_OF_DDPM = ("DDPMScheduler", "DDPMParallelScheduler")
# An inverse scheduler encodes (`latents.encode`); its network is sampled by DDIM.
_OF_DDIM = ("DDIMScheduler", "DDIMParallelScheduler", "DDIMInverseScheduler")
_CHOICES = {
    "beta_schedule": _SCHEDULES,
    "prediction_type": tuple(_TARGETS),
    # diffusers takes a "learned" output as σ², and not as log σ².
    "variance_type": ("fixed_small", "fixed_small_log", "fixed_large", "learned_range"),
    "timestep_spacing": _SPACINGS,
}
_OWN_CHOICES: dict[str, dict[str, tuple]] = {
    **{kind: {"beta_schedule": (*_SCHEDULES, "laplace")} for kind in _OF_DDPM},
    "DDIMInverseScheduler": {
        "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
        "timestep_spacing": ("leading", "trailing"),
    },
}
_RANGES = {
    "num_train_timesteps": (1, 10**6),
    "beta_start": (0.0, 1.0),
    "beta_end": (0.0, 1.0),
    "clip_sample_range": (1e-6, 1e6),
    "dynamic_thresholding_ratio": (0.0, 1.0),
    "sample_max_value": (1e-6, float("inf")),
    "steps_offset": (0, 10**6),
}


class Scheduler(NamedTuple):
    """The values of a scheduler's config."""

    schedule_section: dict[str, Any]
    """The config section of the schedule."""
    target: str
    variance: str
    sample: dict[str, Any]
    """Fields of `config.sample`: the timestep spacing, the clipping and, of a solver, the sampler and its options."""
    preferred: dict[str, Any]
    """The options of `ddim` and `ddpm` that make them diffusers'."""
    sigma_data: float = 0.5
    """σ_data of the target "edm"."""
    noise_conditioning: str = "t"
    timestep_scale: float = 1.0
    """These two are fields of `config.task`."""


def read_scheduler(path: Path, *, variance: str = "fixed_small") -> Scheduler:
    """Reads the config of a scheduler: of DDPM, of DDIM, or of `diffusers_solvers` or `diffusers_levels`.

    Args:
      path: the file.
      variance: the variance type, if the config has none.

    Raises:
      UserError: a file that is missing or damaged; a scheduler or a value that this library does not support.
    """
    given = read_config(path, {}, "DDPMScheduler")
    kind = given.get("_class_name", "DDPMScheduler")
    known = (*_OF_DDPM, *_OF_DDIM, *diffusers_solvers.SOLVERS, *diffusers_levels.FIELDS)
    if kind not in known:
        raise UserError(f"{path}: _class_name={kind!r} is not one of {', '.join(map(repr, known))}")
    if kind in diffusers_solvers.SOLVERS:
        return _read_solver(path, kind, given)
    if kind in diffusers_levels.FIELDS:
        return _read_levels(path, kind, given)
    config = DEFAULTS | {"variance_type": variance} | given
    choices = _CHOICES | _OWN_CHOICES.get(kind, {})
    schedule_section, num_betas = _read_schedule(path, config, choices)
    if problem := _contradiction(config, num_betas):
        raise UserError(f"{path}: {problem}")
    spacing = config["timestep_spacing"]
    own = {"offset": config["steps_offset"]} if spacing == "leading" else {"as_diffusers": True}
    return Scheduler(
        schedule_section=schedule_section,
        target=_TARGETS[config["prediction_type"]],
        variance=config["variance_type"].removesuffix("_log"),
        sample={"timestep_spacing": spacing, **own, **_clip(config)},
        preferred=_preferred(config),
    )


def _read_solver(path: Path, kind: str, given: Mapping[str, Any]) -> Scheduler:
    """Returns the values of a solver's config.

    Raises:
      UserError: a value that is invalid or not supported.
    """
    config = {**diffusers_solvers.SOLVERS[kind].fields, **given}
    try:
        diffusers_solvers.check(kind, config)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    allowed = diffusers_solvers.SOLVERS[kind].choices.get("beta_schedule", _SCHEDULES[:2] + _SCHEDULES[3:])
    choices = {"beta_schedule": allowed}
    if "prediction_type" not in diffusers_solvers.SOLVERS[kind].choices:
        choices["prediction_type"] = tuple(_TARGETS)
    section, num_betas = _read_schedule(path, config, choices)
    if num_betas != config["num_train_timesteps"]:
        raise UserError(f"{path}: {_contradiction(config, num_betas)}")
    sample, options = diffusers_solvers.sample_fields(kind, config)
    return Scheduler(
        schedule_section=section,
        target=_TARGETS[config["prediction_type"]],
        variance="fixed_small",
        sample=sample | options | _clip(config),
        preferred={},
    )


def _read_levels(path: Path, kind: str, given: Mapping[str, Any]) -> Scheduler:
    """Returns the values of the config of a scheduler without β.

    Raises:
      UserError: a value that is invalid or not supported.
    """
    config = {**diffusers_levels.FIELDS[kind], **given}
    try:
        diffusers_levels.check(kind, config)
        _check_numbers(config)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    read = diffusers_levels.read(kind, config)
    return Scheduler(
        schedule_section=read.schedule_section,
        target=read.target,
        variance="fixed_small",
        sample=read.sample | read.options | _clip(config),
        preferred={},
        sigma_data=read.sigma_data,
        noise_conditioning=read.noise_conditioning,
        timestep_scale=read.timestep_scale,
    )


def _read_schedule(path: Path, config: dict[str, Any], choices: Mapping[str, tuple]) -> tuple[dict[str, Any], int]:
    """Returns the config section of the schedule, and its number of timesteps.

    Raises:
      UserError: a value that is invalid or not supported.
    """
    for field, allowed in choices.items():
        if config[field] not in allowed:
            raise UserError(f"{path}: {field}={config[field]!r} is not one of {', '.join(map(repr, allowed))}")
    try:
        _check_numbers(config)
        section = _schedule_section(config)
        return section, imported.schedule(section).num_timesteps
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error


def _check_numbers(config: Mapping[str, Any]) -> None:
    """Checks the fields that are numbers or flags.

    Raises:
      ValueError: a value of another type, or out of range.
    """
    for field, (low, high) in _RANGES.items():
        if field not in config:
            continue
        value, kinds = config[field], (int,) if isinstance(DEFAULTS[field], int) else (int, float)
        if type(value) not in kinds or not low <= value <= high:
            kind = "a whole number" if kinds == (int,) else "a number"
            raise ValueError(f"{field}={value!r} must be {kind} within {low} … {high}")
    for field in ("clip_sample", "thresholding", "set_alpha_to_one", "rescale_betas_zero_snr"):
        if type(config.get(field, False)) is not bool:
            raise ValueError(f"{field}={config[field]!r} must be true or false")


def _contradiction(config: Mapping[str, Any], num_betas: int) -> str:
    """Returns which fields do not go together, or an empty string."""
    total = config["num_train_timesteps"]
    if num_betas != total:
        return f"num_train_timesteps={total} must be the number of trained_betas, {num_betas}"
    spacing = config["timestep_spacing"]
    if config["rescale_betas_zero_snr"] and config["prediction_type"] == "epsilon" and spacing != "leading":
        return (
            f"rescale_betas_zero_snr=True with timestep_spacing={spacing!r} needs prediction_type 'v_prediction' or "
            "'sample': sampling starts at alpha_bar = 0, where epsilon does not determine the image"
        )
    return ""


def _preferred(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options with which `ddim` and `ddpm` make diffusers' steps, where the defaults would not."""
    spacing, offset = config["timestep_spacing"], config["steps_offset"]
    starts_at_0 = spacing == "linspace" or (spacing == "leading" and offset == 0)  # the last step
    preferred: dict[str, Any] = {}
    if not (spacing == "leading" and offset == 0 and config["set_alpha_to_one"]):
        preferred["stride_end"] = -1 if config["set_alpha_to_one"] else 0
    if not starts_at_0 and not config["variance_type"].startswith("fixed_small"):
        preferred["last_step_noise"] = True
    return preferred


def _schedule_section(config: dict[str, Any]) -> dict[str, Any]:
    kind, total = config["beta_schedule"], config["num_train_timesteps"]
    if config["trained_betas"] is not None:
        section = imported.betas(config["trained_betas"])
    elif kind == "squaredcos_cap_v2":
        section = {"name": "cosine", "num_timesteps": total}
    elif kind in ("exp", "laplace"):
        section = imported.betas(getattr(diffusers_solvers, f"{kind}_betas")(total))
    else:
        ends = {name: config[name] for name in ("beta_start", "beta_end")}
        section = {"name": kind, "num_timesteps": total, **ends}
    return section | {"zero_terminal_snr": bool(config.get("rescale_betas_zero_snr"))}


def _clip(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `config.sample` that describe the clipping."""
    if not config.get("thresholding"):
        return {"clip": config["clip_sample_range"] if config.get("clip_sample") else None}
    largest = float(config["sample_max_value"])
    if largest == 1.0:
        return {"clip": 1.0}  # s = 1
    return {
        "clip": "dynamic",
        "percentile": config["dynamic_thresholding_ratio"],
        "limit": 1.0,
        "largest": None if largest >= _LARGEST_FLOAT else largest,
    }


def write_scheduler(run: Run) -> dict[str, Any]:
    """Returns the config of a `DDPMScheduler`, from which diffusers can also make a `DDIMScheduler`.

    Args:
      run: a run that generates images.

    Raises:
      UserError: values that diffusers does not support; all are listed.
    """
    betas, task, options, lacking = run.schedule.betas, run.task, run.config.sample, []
    spacing = options.timestep_spacing
    clipping = _written_clip(run)
    if task.timestep_scale != 1.0:
        lacking.append(f"timestep_scale={task.timestep_scale}")
    if task.noise_conditioning != "t":
        lacking.append(f"noise_conditioning={task.noise_conditioning!r}")
    if task.objective.target not in _TARGETS.values():
        lacking.append(f"target={task.objective.target!r}")
    if task.variance == "learned":
        lacking.append("variance='learned', which is log σ²")
    if clipping is None:
        limit = f" with limit={options.limit}" if options.clip == "dynamic" else ""
        lacking.append(f"clip={options.clip!r}{limit}")
    if spacing not in _SPACINGS:
        lacking.append(f"timestep_spacing={spacing!r}")
    if options.get("end", -1) != -1:
        lacking.append(f"timestep spacing with end={options.end}")
    if lacking:
        raise UserError(f"diffusers' pipelines have no {', no '.join(lacking)}")
    linear = betas[0] < betas[-1] and np.allclose(
        betas, np.linspace(betas[0], betas[-1], len(betas)), rtol=1e-12, atol=0
    )
    return {
        "num_train_timesteps": run.schedule.num_timesteps,
        "beta_start": float(betas[0]),
        "beta_end": float(betas[-1]),
        "beta_schedule": "linear",
        "trained_betas": None if linear else betas.tolist(),
        "variance_type": task.variance or options.get("variance") or run.preferred.get("variance", "fixed_small"),
        **clipping,
        "prediction_type": next(name for name, target in _TARGETS.items() if target == task.objective.target),
        "timestep_spacing": spacing,
        "steps_offset": options.get("offset", 0),
        "set_alpha_to_one": options.get("stride_end", run.preferred.get("stride_end", -1)) != 0,
    }


def _written_clip(run: Run) -> dict[str, Any] | None:
    """Returns the fields of a scheduler's config that describe the clipping of a run; None if there are none."""
    clip, options = run.clip, run.config.sample
    if not callable(clip):
        return {"clip_sample": clip is not None, "clip_sample_range": 1.0 if clip is None else clip}
    if options.clip != "dynamic" or options.limit != 1.0:
        return None
    return {
        "clip_sample": False,
        "thresholding": True,
        "dynamic_thresholding_ratio": options.percentile,
        "sample_max_value": _LARGEST_FLOAT if options.largest is None else options.largest,
    }
