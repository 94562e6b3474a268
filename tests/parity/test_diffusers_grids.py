"""The grids of diffusers' solvers have the levels, and the network times, of `set_timesteps`."""

import numpy as np
import pytest

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")

from diffjax import samplers, schedules  # noqa: E402
from diffjax.interop import diffusers_grids  # noqa: E402

SCHEDULE = schedules.linear(1000)
MULTISTEP = {"surplus": 1}
CASES = [
    ("DPMSolverMultistep", {}, MULTISTEP, "exact"),
    ("DPMSolverMultistep", {"final_sigmas_type": "sigma_min"}, MULTISTEP | {"final": "first"}, "exact"),
    ("DPMSolverMultistep", {"use_karras_sigmas": True}, MULTISTEP | {"levels": "karras"}, "nearest"),
    ("DPMSolverMultistep", {"use_lu_lambdas": True}, MULTISTEP | {"levels": "log_snr"}, "nearest"),
    ("DPMSolverMultistep", {"use_beta_sigmas": True}, MULTISTEP | {"levels": "beta"}, "floor"),
    ("UniPCMultistep", {"use_exponential_sigmas": True}, MULTISTEP | {"levels": "log_snr"}, "floor"),
    (
        "DPMSolverMultistep",
        {"timestep_spacing": "leading", "steps_offset": 1, "lambda_min_clipped": -3.0},
        MULTISTEP | {"rule": "leading", "offset": 1, "lowest_half_log_snr": -3.0},
        "exact",
    ),
    ("DEISMultistep", {"use_karras_sigmas": True}, MULTISTEP | {"levels": "karras", "final": "repeat"}, "nearest"),
    ("SASolver", {}, MULTISTEP | {"final": "first"}, "exact"),
    ("EulerDiscrete", {}, {}, "linear_sigma"),
    ("EulerDiscrete", {"timestep_spacing": "trailing"}, {"rule": "trailing"}, "linear_sigma"),
    (
        "EulerDiscrete",
        {"timestep_spacing": "leading", "use_karras_sigmas": True},
        {"rule": "leading", "levels": "karras", "all_levels": False},
        "exact",
    ),
    (
        "EulerDiscrete",
        {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 20.0},
        {"levels": "karras", "sigma_min": 0.05, "sigma_max": 20.0},
        "exact",
    ),
    ("LMSDiscrete", {"use_beta_sigmas": True}, {"levels": "beta", "all_levels": False}, "exact"),
]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("num_steps", [7, 10, 25])
@pytest.mark.parametrize(("name", "config", "options", "rule"), CASES)
def test_levels_and_times(name, config, options, rule, num_steps):
    scheduler = getattr(diffusers, f"{name}Scheduler")(**config)
    scheduler.set_timesteps(num_steps)
    table = samplers.ddim(SCHEDULE, diffusers_grids.grid(SCHEDULE, num_steps, **options))
    table = samplers.with_network_times(table, SCHEDULE, rule)
    # diffusers rounds its tables of ᾱ to float32, which changes σ̄ near clean data by 1e-4.
    sigmas = np.append(table.noise, table.noise_to[-1]) / np.append(table.signal, table.signal_to[-1])
    np.testing.assert_allclose(sigmas, scheduler.sigmas.numpy(), rtol=1e-4, atol=2e-6)
    np.testing.assert_allclose(table.t_net, scheduler.timesteps.numpy(), rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": "none"}, "rule='none' is not one of 'linspace'"),
        ({"levels": "lu"}, "levels='lu' is not one of 'none'"),
        ({"final": "zero"}, "final='zero' is not one of 'clean'"),
        ({"surplus": 2}, "surplus=2"),
        ({"rule": "leading", "offset": 500}, "num_steps=10 gives times 1400"),
    ],
)
def test_wrong_values(options, words):
    with pytest.raises(ValueError, match=words):
        diffusers_grids.grid(SCHEDULE, 10, **options)
