"""Whole runs of diffusers' flow-matching and EDM schedulers, in float64, by tables."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax import loop, parameterization, samplers, schedules, timesteps

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")

from pinned_loops import in_precision  # noqa: E402

pytestmark = pytest.mark.usefixtures("x64")

X = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
FLOW, EDM = schedules.flow(), schedules.edm()
SHIFTED = schedules.flow(shift=3.0)


def network(sin, x, t):
    return 0.6 * sin(2 * x) + 0.3 * x + 0.2 * t


def run_diffusers(name, config, *, num_steps, x, **options):
    """x at the end of a run by diffusers, float64 `[B, C, …]`, whose noise is all 0.5."""
    kind = getattr(diffusers, name)
    module = inspect.getmodule(kind)
    with pytest.MonkeyPatch.context() as patch, in_precision(module, "float64"):
        if hasattr(module, "randn_tensor"):
            patch.setattr(module, "randn_tensor", lambda shape, **_: torch.full(tuple(shape), 0.5))
        scheduler = kind(**config)
        scheduler.set_timesteps(num_steps, **options)
        x = torch.tensor(x)
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            scale = 1000.0 if "Flow" in name else 1.0
            x = scheduler.step(network(torch.sin, scaled, t / scale), t, x).prev_sample
    return x.numpy()


@jax.tree_util.Partial
def predicted(x, t):
    return network(jnp.sin, x, t[:, None, None, None])


def flow_predict(schedule):
    network = parameterization.scale_timesteps(jax.tree_util.Partial(lambda x, t: predicted(x, t / 1000)), 1000.0)
    return parameterization.from_flow(parameterization.with_noise_level(network, schedule, "flow"), schedule)


def sigma_min(schedule):
    return float(schedule.sigma_bars[0])


def error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("num_steps", [10, 25])
@pytest.mark.parametrize(
    ("config", "options", "schedule", "spacing"),
    [
        ({}, {}, FLOW, {"sigma_min": sigma_min(FLOW)}),
        # The scheduler shifts both the range of its levels and the levels.
        ({"shift": 3.0}, {}, SHIFTED, {"shift": 3.0, "sigma_min": sigma_min(SHIFTED), "sigma_max": np.inf}),
        ({"use_dynamic_shifting": True}, {"mu": 0.8}, FLOW, {"shift": np.exp(0.8), "sigma_min": sigma_min(FLOW)}),
        (
            {"use_dynamic_shifting": True, "time_shift_type": "linear"},
            {"mu": 2.0},
            FLOW,
            {"shift": 2.0, "sigma_min": sigma_min(FLOW)},
        ),
        # Flux gives the levels 1, 1 - 1/S, …, 1/S.
        ({"shift": 3.0}, {"sigmas": True}, FLOW, {"shift": 3.0}),
    ],
    ids=["plain", "shift", "exponential", "linear", "flux"],
)
def test_flow_match_euler_is_ddim_on_a_flow_grid(config, options, schedule, spacing, num_steps):
    if "sigmas" in options:
        options = {"sigmas": np.linspace(1.0, 1.0 / num_steps, num_steps)}
    expected = run_diffusers("FlowMatchEulerDiscreteScheduler", config, num_steps=num_steps, x=X, **options)
    table = samplers.ddim(schedule, timesteps.flow(schedule, num_steps, **spacing))
    assert error(dj.sample(table, flow_predict(schedule), X), expected) < 1e-9


@pytest.mark.parametrize("num_steps", [10, 25])
def test_flow_match_euler_on_a_ddpm_schedule(num_steps):
    # The change of path: from the largest level of the linear schedule on.
    schedule = schedules.linear()
    u = np.linspace(0.99, 1 / num_steps, num_steps)
    expected = run_diffusers("FlowMatchEulerDiscreteScheduler", {}, num_steps=num_steps, x=X, sigmas=u)
    grid = timesteps.from_sigmas(schedule, np.append(u / (1 - u), 0.0))
    scale = np.sqrt(schedule.alpha_bar_at(grid[0])) + np.sqrt(1 - schedule.alpha_bar_at(grid[0]))
    assert error(dj.sample(samplers.ddim(schedule, grid), flow_predict(schedule), X * scale), expected) < 1e-9


@pytest.mark.parametrize("num_steps", [10, 25])
def test_stochastic_flow_match_euler_is_ddim_with_fresh_noise(monkeypatch, num_steps):
    config = {"stochastic_sampling": True}
    expected = run_diffusers("FlowMatchEulerDiscreteScheduler", config, num_steps=num_steps, x=X)
    grid = timesteps.flow(FLOW, num_steps, sigma_min=sigma_min(FLOW))
    table = samplers.ddim(FLOW, grid, sigma=np.sqrt(1.0 - FLOW.alpha_bar_at(grid[1:])))
    monkeypatch.setattr(loop, "sample_noise", lambda keys, shape, dtype, row: jnp.full(X.shape, 0.5), raising=True)
    result = dj.sample(table, flow_predict(FLOW), X, dj.sample_keys(0, 0, 2))
    assert error(result, expected) < 1e-8  # √(1-ᾱ_s-σ²) is the root of a rounding error, not 0


@pytest.mark.parametrize("num_steps", [10, 25])
@pytest.mark.parametrize(
    ("name", "make", "config", "spacing"),
    [
        ("EDMEulerScheduler", samplers.ddim, {}, timesteps.karras),
        ("EDMEulerScheduler", samplers.ddim, {"sigma_schedule": "exponential", "sigma_data": 1.0}, timesteps.log_snr),
        ("EDMEulerScheduler", samplers.ddim, {"final_sigmas_type": "sigma_min"}, None),
        ("EDMDPMSolverMultistepScheduler", samplers.dpm_solver_pp, {"euler_at_final": True}, timesteps.karras),
        ("EDMDPMSolverMultistepScheduler", samplers.dpm_solver_pp, {"final_sigmas_type": "sigma_min"}, None),
        (
            "EDMDPMSolverMultistepScheduler",
            lambda schedule, grid: samplers.dpm_solver_pp(schedule, grid, order=1),
            {"solver_order": 1, "sigma_schedule": "exponential"},
            timesteps.log_snr,
        ),
    ],
)
def test_edm_schedulers(name, make, config, spacing, num_steps):
    if config == {"final_sigmas_type": "sigma_min"} and "DPM" in name:
        config = config | {"lower_order_final": False}
    start = 80.0 * X
    expected = run_diffusers(name, config, num_steps=num_steps, x=start)
    # With final_sigmas_type="sigma_min" their last step stays there.
    grid = timesteps.karras(EDM, num_steps)[:-1] if spacing is None else spacing(EDM, num_steps)
    inner = parameterization.with_noise_level(predicted, EDM, "edm")
    predict = parameterization.from_edm(inner, EDM, sigma_data=config.get("sigma_data", 0.5))
    signal = np.sqrt(EDM.alpha_bar_at(grid))
    result = dj.sample(make(EDM, grid), predict, start * signal[0]) / signal[-1]
    assert error(result, expected) < 1e-9
