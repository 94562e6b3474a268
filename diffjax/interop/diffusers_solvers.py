"""Converts the JSON configs of diffusers' solvers (DPMSolverMultistep, UniPC, Euler, …) to a way of sampling.

Each scheduler class is one entry of `SOLVERS`: its fields with diffusers' defaults, and the sampler that is the same
solver. Fields that no table can express must have their default; the message names them.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from diffjax.interop import diffusers_grids

Config = Mapping[str, Any]

_BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
}
_THRESHOLDS = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
_SPACED = {"timestep_spacing": "linspace", "steps_offset": 0}
_LEVELS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_FLOW = {"use_flow_sigmas": False, "flow_shift": 1.0}
_SHIFTED = {"use_dynamic_shifting": False, "time_shift_type": "exponential"}
_MULTISTEP = _BETAS | _THRESHOLDS | _LEVELS | _FLOW | {"lower_order_final": True}
_SIGMAS = _BETAS | _SPACED
_LATENT_BETAS = {"beta_start": 8.5e-4, "beta_end": 0.012}

CHOICES = {
    "timestep_spacing": ("linspace", "leading", "trailing"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "algorithm_type": ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"),
}
"""Allowed values, where an entry of `SOLVERS` has no others."""

_DEFAULT_ONLY = (
    "use_flow_sigmas",
    "use_dynamic_shifting",
    "variance_type",
    "solver_p",
    "tau_func",
    "shift_terminal",
    "interpolation_type",
    "timestep_type",
    # diffusers then replaces the last ᾱ, 0, by 2⁻²⁴, which is larger than the one before it.
    "rescale_betas_zero_snr",
)
"""Fields that must have their default."""


class Solver(NamedTuple):
    """A scheduler class of diffusers."""

    fields: Mapping[str, Any]
    """The fields of its config, with diffusers' defaults."""
    sampler: Callable[[Config], tuple[str, dict[str, Any]]]
    """Returns the name and the options of the sampler."""
    choices: Mapping[str, tuple[Any, ...]] = {}
    """Allowed values of fields."""
    surplus: int = 0
    """As in `diffusers_grids.grid`: 1 for multistep solvers."""
    whole: bool = True
    """As in `diffusers_grids.grid`."""
    final: str | None = None
    """What the last step leads to, if no field says so: the first timestep, or after other levels the last again."""


def _dpm(singlestep: bool) -> Callable[[Config], tuple[str, dict[str, Any]]]:
    def sampler(config):
        kind = config["algorithm_type"]
        name = "dpm_solver_pp" if kind.endswith("++") else "dpm_solver"
        options = {
            "order": config["solver_order"],
            "solver_type": config["solver_type"],
            "eta": float(kind.startswith("sde-")),
            "lower_order_final": config["lower_order_final"],
        }
        if singlestep:
            # diffusers sets it itself where the last step leads to clean data.
            return f"{name}_singlestep", options | {
                "lower_order_final": config["lower_order_final"] or config["final_sigmas_type"] == "zero"
            }
        return name, options | {"euler_at_final": config["euler_at_final"]}

    return sampler


def _unipc(config: Config) -> tuple[str, dict[str, Any]]:
    return "unipc", {
        "order": config["solver_order"],
        "solver_type": config["solver_type"],
        "predict_x0": config["predict_x0"],
        "lower_order_final": config["lower_order_final"],
        "disable_corrector": tuple(config["disable_corrector"]),
    }


def _deis(config: Config) -> tuple[str, dict[str, Any]]:
    return "deis", {"order": config["solver_order"], "lower_order_final": config["lower_order_final"]}


def _sa(config: Config) -> tuple[str, dict[str, Any]]:
    names = ("predictor_order", "corrector_order", "lower_order_final")
    # The default of tau_func: τ is 1 at these times and 0 at others.
    return "sa_solver", {name: config[name] for name in names} | {"tau": 1.0, "tau_interval": (200.0, 800.0)}


def _pndm(config: Config) -> tuple[str, dict[str, Any]]:
    if config["skip_prk_steps"]:
        return "plms", {"first_step": "heun"}
    return "pndm", {"average": "v" if config["prediction_type"] == "v_prediction" else "eps"}


def _named(name: str, **options: Any) -> Callable[[Config], tuple[str, dict[str, Any]]]:
    return lambda config: (name, options)


_ORDER = {"solver_order": (1, 2, 3)}
_OF_DPM = (
    _MULTISTEP
    | _SHIFTED
    | {
        "solver_order": 2,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "final_sigmas_type": "zero",
        "lambda_min_clipped": -math.inf,
        "variance_type": None,
    }
)
_OF_KDPM2 = _SIGMAS | _LEVELS | _LATENT_BETAS
# Its step knows no other.
_NOT_SAMPLE = {"prediction_type": ("epsilon", "v_prediction")}

SOLVERS = {
    "DPMSolverMultistepScheduler": Solver(
        _OF_DPM | _SPACED | {"euler_at_final": False, "use_lu_lambdas": False, "rescale_betas_zero_snr": False},
        _dpm(singlestep=False),
        _ORDER | {"solver_type": ("midpoint", "heun")},
        surplus=1,
    ),
    "DPMSolverSinglestepScheduler": Solver(
        _OF_DPM | {"lower_order_final": False},
        _dpm(singlestep=True),
        _ORDER | {"solver_type": ("midpoint", "heun")},
        surplus=1,
    ),
    "UniPCMultistepScheduler": Solver(
        _MULTISTEP
        | _SHIFTED
        | _SPACED
        | {
            "solver_order": 2,
            "predict_x0": True,
            "solver_type": "bh2",
            "disable_corrector": [],
            "solver_p": None,
            "final_sigmas_type": "zero",
            "rescale_betas_zero_snr": False,
            "sigma_min": None,
            "sigma_max": None,
            "shift_terminal": None,
        },
        _unipc,
        _ORDER | {"solver_type": ("bh1", "bh2")},
        surplus=1,
    ),
    "DEISMultistepScheduler": Solver(
        _MULTISTEP | _SHIFTED | _SPACED | {"solver_order": 2, "algorithm_type": "deis", "solver_type": "logrho"},
        _deis,
        _ORDER | {"algorithm_type": ("deis",), "solver_type": ("logrho",)},
        surplus=1,
        final="first",
    ),
    "SASolverScheduler": Solver(
        _MULTISTEP
        | _SPACED
        | {
            "predictor_order": 2,
            "corrector_order": 2,
            "tau_func": None,
            "algorithm_type": "data_prediction",
            "lambda_min_clipped": -math.inf,
            "variance_type": None,
        },
        _sa,
        {
            "algorithm_type": ("data_prediction",),
            "predictor_order": (1, 2, 3),
            "corrector_order": (1, 2, 3),
        },
        surplus=1,
        final="first",
    ),
    "PNDMScheduler": Solver(
        _BETAS | {"skip_prk_steps": False, "set_alpha_to_one": False, "timestep_spacing": "leading", "steps_offset": 0},
        _pndm,
        # Its steps end ⌊T/S⌋ below their starts, which is the next time in this spacing alone.
        {"timestep_spacing": ("leading",)} | _NOT_SAMPLE,
    ),
    "EulerDiscreteScheduler": Solver(
        _SIGMAS
        | _LEVELS
        | {
            "interpolation_type": "linear",
            "sigma_min": None,
            "sigma_max": None,
            "timestep_type": "discrete",
            "rescale_betas_zero_snr": False,
            "final_sigmas_type": "zero",
        },
        _named("ddim", eta=0.0),
    ),
    "EulerAncestralDiscreteScheduler": Solver(
        _SIGMAS | {"rescale_betas_zero_snr": False}, _named("ddim", eta=1.0), _NOT_SAMPLE
    ),
    "HeunDiscreteScheduler": Solver(
        _SIGMAS | _LEVELS | _LATENT_BETAS | {"clip_sample": False, "clip_sample_range": 1.0},
        _named("heun"),
        {"beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2", "exp")} | _NOT_SAMPLE,
    ),
    "LMSDiscreteScheduler": Solver(_SIGMAS | _LEVELS, _named("lms")),
    "KDPM2DiscreteScheduler": Solver(_OF_KDPM2, _named("dpm2", eta=0.0), _NOT_SAMPLE, whole=False),
    "KDPM2AncestralDiscreteScheduler": Solver(_OF_KDPM2, _named("dpm2", eta=1.0), _NOT_SAMPLE, whole=False),
    # Its noise_sampler_seed is a seed of the noise, which is this library's own.
    "DPMSolverSDEScheduler": Solver(
        _OF_KDPM2 | {"noise_sampler_seed": None}, _named("dpm_solver_pp_sde", eta=1.0), _NOT_SAMPLE, whole=False
    ),
}
"""The schedulers of diffusers that are solvers, by class."""


def check(kind: str, config: Config) -> None:
    """Checks the values of a solver's config.

    Raises:
      ValueError: a value that is of another type, invalid, or not supported.
    """
    solver = SOLVERS[kind]
    choices = CHOICES | dict(solver.choices)
    for field, default in solver.fields.items():
        value = config[field]
        allowed = choices.get(field)
        if field in _DEFAULT_ONLY:
            allowed = (default,)
        if allowed is not None and not any(value == one and type(value) is type(one) for one in allowed):
            raise ValueError(f"{field}={value!r} is not one of {', '.join(map(repr, allowed))}")
        if isinstance(default, bool) and type(value) is not bool:
            raise ValueError(f"{field}={value!r} must be true or false")
    chosen = [name for name in (*_LEVELS, "use_lu_lambdas") if config.get(name)]
    if len(chosen) > 1:
        raise ValueError(f"{chosen[0]}=True and {chosen[1]}=True exclude each other")
    for field in ("sigma_min", "sigma_max", "lambda_min_clipped"):
        value = config.get(field)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value)):
            raise ValueError(f"{field}={value!r} must be a number")
    disabled = config.get("disable_corrector", [])
    if not isinstance(disabled, list) or not all(type(step) is int and step >= 0 for step in disabled):
        raise ValueError(f"disable_corrector={disabled!r} must be a list of whole numbers ≥ 0")
    algorithm = config.get("algorithm_type", "")
    if algorithm in ("dpmsolver", "sde-dpmsolver") and config["final_sigmas_type"] == "zero":
        raise ValueError(f"final_sigmas_type='zero' needs algorithm_type 'dpmsolver++', not {algorithm!r}")
    if config.get("skip_prk_steps") and config["prediction_type"] == "v_prediction":
        raise ValueError("skip_prk_steps=True with prediction_type='v_prediction' is not supported")
    if kind == "DPMSolverSinglestepScheduler" and algorithm == "sde-dpmsolver":
        raise ValueError("algorithm_type='sde-dpmsolver' is not one of 'dpmsolver', 'dpmsolver++', 'sde-dpmsolver++'")


def sample_fields(kind: str, config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the fields of `config.sample` of a solver, but for the clipping, and the options of its sampler.

    Args:
      kind: the class of the scheduler, one of `SOLVERS`.
      config: its fields, checked.
    """
    solver = SOLVERS[kind]
    name, options = solver.sampler(config)
    chosen = {"use_karras_sigmas": "karras", "use_beta_sigmas": "beta"}
    other = [name for name in (*_LEVELS, "use_lu_lambdas") if config.get(name)]
    levels = chosen.get(other[0], "log_snr") if other else "none"
    lowest = config.get("lambda_min_clipped")
    grid = {
        "rule": config.get("timestep_spacing", "linspace"),
        "offset": config.get("steps_offset", 0) if config.get("timestep_spacing") == "leading" else 0,
        "surplus": solver.surplus,
        "whole": solver.whole,
        "levels": levels,
        "sigma_min": config.get("sigma_min"),
        "sigma_max": config.get("sigma_max"),
        "all_levels": solver.surplus == 1,
        "lowest_half_log_snr": None if lowest is None or not np.isfinite(lowest) else float(lowest),
        "final": _final(solver, config, levels),
    }
    sample = {"sampler": name, "timestep_spacing": diffusers_grids.PATH, "network_times": _times(kind, config, levels)}
    return sample | grid, options


def _final(solver: Solver, config: Config, levels: str) -> str:
    if "set_alpha_to_one" in config:
        return "clean" if config["set_alpha_to_one"] else "first"
    if solver.final is not None:
        return solver.final if levels == "none" else "repeat"
    if config.get("final_sigmas_type", "zero") == "zero":
        return "clean"
    return "repeat" if solver.fields is SOLVERS["UniPCMultistepScheduler"].fields and levels != "none" else "first"


def _times(kind: str, config: Config, levels: str) -> str:
    """Returns the `network_times` of a solver."""
    if kind.startswith("KDPM2") and levels == "karras":
        return "nearest_at_starts"  # its timesteps are rounded, those of its midpoints are not
    if SOLVERS[kind].surplus == 0:
        linear = "linear_sigma" if SOLVERS[kind].whole else "linear_sigma_at_starts"
        return linear if levels == "none" else "exact"
    rounded = levels == "karras" or config.get("use_lu_lambdas")
    if kind == "DPMSolverMultistepScheduler" and config["beta_schedule"] == "squaredcos_cap_v2":
        rounded = False
    return "nearest" if rounded else "floor"


def exp_betas(total: int, largest: float = 0.999) -> np.ndarray:
    """Returns diffusers' beta_schedule "exp": β = 1 - ᾱ(t + 1/T)/ᾱ(t), ᾱ(t) = e^{-12t}."""
    return np.full(total, min(1.0 - math.exp(-12.0 / total), largest))


def laplace_betas(total: int, largest: float = 0.999) -> np.ndarray:
    """Returns diffusers' beta_schedule "laplace": the β of √sigmoid(λ(t)) as ᾱ, λ = ∓½·log(1 - 2|½ - t|)."""
    t = np.linspace(0.0, 1.0, total + 1)
    log_snr = -0.5 * np.copysign(1.0, 0.5 - t) * np.log(1.0 - 2.0 * np.abs(0.5 - t) + 1e-6)
    alpha_bar = np.sqrt(1.0 / (1.0 + np.exp(-log_snr)))
    return np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], largest)
