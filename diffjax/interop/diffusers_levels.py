"""Converts the JSON configs of diffusers' schedulers that have noise levels and no β: EDM's and rectified flow's."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from diffjax.interop import diffusers_grids

Config = Mapping[str, Any]

_EDM = {
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rho": 7.0,
    "final_sigmas_type": "zero",
}

FIELDS: dict[str, dict[str, Any]] = {
    "EDMEulerScheduler": _EDM,
    "EDMDPMSolverMultistepScheduler": _EDM
    | {
        "solver_order": 2,
        "thresholding": False,
        "dynamic_thresholding_ratio": 0.995,
        "sample_max_value": 1.0,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "lower_order_final": True,
        "euler_at_final": False,
    },
    "FlowMatchEulerDiscreteScheduler": {
        "num_train_timesteps": 1000,
        "shift": 1.0,
        "use_dynamic_shifting": False,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
        "invert_sigmas": False,
        "shift_terminal": None,
        "use_karras_sigmas": False,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
        "time_shift_type": "exponential",
        "stochastic_sampling": False,
    },
}
"""The schedulers, by class, and the fields of their configs with diffusers' defaults."""

_CHOICES: dict[str, tuple[Any, ...]] = {
    "sigma_schedule": ("karras", "exponential"),
    # The sign of c_out is the other with "v_prediction".
    "prediction_type": ("epsilon",),
    "final_sigmas_type": ("zero", "sigma_min"),
    "solver_order": (1, 2, 3),
    "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),
    "solver_type": ("midpoint", "heun"),
    # μ comes from the size of the images there, from code outside the scheduler.
    "use_dynamic_shifting": (False,),
    "invert_sigmas": (False,),
    # x̂0 noised again to each level is no step of a solver with options that hold for all levels.
    "stochastic_sampling": (False,),
}
_RANGES = {
    "sigma_min": (1e-7, 1e7),
    "sigma_max": (1e-7, 1e7),
    "sigma_data": (1e-3, 1e3),
    "rho": (1e-3, 100.0),
    "shift": (1.0, 1e6),  # smaller ones lead below the schedule's first level, since diffusers shifts twice
    "num_train_timesteps": (2, 10**6),
}
_LEVELS = {"use_karras_sigmas": "karras", "use_exponential_sigmas": "exponential", "use_beta_sigmas": "beta"}


class Read(NamedTuple):
    """The values of a scheduler's config."""

    schedule_section: dict[str, Any]
    target: str
    sigma_data: float
    noise_conditioning: str
    timestep_scale: float
    sample: dict[str, Any]
    """The sampler, the spacing and its options, as fields of `config.sample`."""
    options: dict[str, Any]
    """The options of the sampler."""


def check(kind: str, config: Config) -> None:
    """Checks the values of a config.

    Raises:
      ValueError: a value that is of another type, invalid, or not supported.
    """
    for field, default in FIELDS[kind].items():
        value, allowed = config[field], _CHOICES.get(field)
        if isinstance(default, bool) and type(value) is not bool:
            raise ValueError(f"{field}={value!r} must be true or false")
        if allowed is not None and not any(value == one and type(value) is type(one) for one in allowed):
            raise ValueError(f"{field}={value!r} is not one of {', '.join(map(repr, allowed))}")
        if field in _RANGES:
            low, high = _RANGES[field]
            whole = type(low) is int
            if type(value) not in ((int,) if whole else (int, float)) or not low <= value <= high:
                raise ValueError(f"{field}={value!r} must be a {'whole ' * whole}number within {low} … {high}")
    if "shift_terminal" in config:
        last = config["shift_terminal"]
        if last is not None and (type(last) not in (int, float) or not 0 <= last < 1):
            raise ValueError(f"shift_terminal={last!r} must be null or a number within 0 … 1, without 1")
        chosen = [name for name in _LEVELS if config[name]]
        if len(chosen) > 1:
            raise ValueError(f"{chosen[0]}=True and {chosen[1]}=True exclude each other")
    elif not config["sigma_min"] < config["sigma_max"]:
        raise ValueError(f"sigma_min={config['sigma_min']} must be below sigma_max={config['sigma_max']}")
    if config.get("algorithm_type") == "sde-dpmsolver++" and config["solver_order"] == 3:
        raise ValueError("solver_order=3 with algorithm_type='sde-dpmsolver++' is not one of 1, 2")


def read(kind: str, config: Config) -> Read:
    """Returns the values of a config, checked.

    Args:
      kind: the class of the scheduler, one of `FIELDS`.
      config: its fields.
    """
    if kind == "FlowMatchEulerDiscreteScheduler":
        return _read_flow(config)
    karras = config["sigma_schedule"] == "karras"
    spacing = {
        "timestep_spacing": f"{diffusers_grids.__name__}:edm_grid",
        "levels": "karras" if karras else "log_snr",
        "rho": float(config["rho"]),
        "repeat_last": config["final_sigmas_type"] == "sigma_min",
    }
    levels = {name: float(config[name]) for name in ("sigma_min", "sigma_max")}
    sampler, options = "ddim", {"eta": 0.0}
    if kind == "EDMDPMSolverMultistepScheduler":
        sampler = "dpm_solver_pp"
        options = {
            "order": config["solver_order"],
            "solver_type": config["solver_type"],
            "eta": float(config["algorithm_type"] == "sde-dpmsolver++"),
            "lower_order_final": config["lower_order_final"],
            "euler_at_final": config["euler_at_final"],
        }
    return Read(
        schedule_section={"name": "edm", "num_timesteps": config["num_train_timesteps"], **levels},
        target="edm",
        sigma_data=float(config["sigma_data"]),
        noise_conditioning="edm",
        timestep_scale=1.0,
        sample={"sampler": sampler, **spacing},
        options=options,
    )


def _read_flow(config: Config) -> Read:
    chosen = [kind for name, kind in _LEVELS.items() if config[name]]
    shift = float(config["shift"])
    spacing = {
        "timestep_spacing": f"{diffusers_grids.__name__}:flow_grid",
        "shift": shift,
        "u_last": config["shift_terminal"] or None,
        "levels": chosen[0] if chosen else "none",
    }
    total = config["num_train_timesteps"]
    return Read(
        schedule_section={"name": "flow", "num_timesteps": total, "shift": shift},
        target="flow",
        sigma_data=0.5,
        noise_conditioning="flow",
        timestep_scale=float(total),
        sample={"sampler": "ddim", **spacing},
        options={"eta": 0.0},
    )
