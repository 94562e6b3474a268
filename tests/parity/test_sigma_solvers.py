"""The solvers in x̄ and σ̄ give, number for number, what diffusers and k-diffusion give in float64, on whole runs."""

import dataclasses
import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")

import diffjax as dj  # noqa: E402
from diffjax import parameterization, samplers, sampling, schedules, timesteps  # noqa: E402
from diffjax.noise import sample_noise  # noqa: E402
from torch_reference import k_diffusion  # noqa: E402 (it needs PyTorch)

pytestmark = pytest.mark.usefixtures("x64")

SCHEDULE = schedules.linear()
SHAPE = (2, 3, 4)


def network(x, t, sin=jnp.sin):
    return 0.6 * sin(2 * x) + 0.3 * x + t / 2000


@jax.tree_util.Partial
def predict(x, t):
    return network(x, t[0].astype(x.dtype))


def torch_network(x, t):
    return network(x, t, torch.sin)


def start():
    """Returns (keys, x at the first level)."""
    keys = dj.sample_keys(0, 0, SHAPE[0])
    return keys, dj.initial_noise(keys, SHAPE[1:], jnp.float64)


def noise(keys, row):
    """Returns the z of a row, as a tensor."""
    return torch.from_numpy(np.array(sample_noise(keys, row, SHAPE[1:], jnp.float64)))


def relative_error(ours, theirs):
    theirs = theirs.double().numpy()
    return np.linalg.norm(np.asarray(ours) - theirs) / np.linalg.norm(theirs)


def scale_of(grid, schedule=SCHEDULE):
    """Returns √ᾱ of the first and the last level of a grid."""
    return np.sqrt(schedule.alpha_bar_at(np.asarray(grid)[[0, -1]]))


def run_diffusers(name, num_steps, x_bar, draws=None, *, network=torch_network, **config):
    """Returns x̄ at the end by a scheduler of diffusers in float64; `draws` is {number of the call: z}."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")
    if name == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde", reason="torchsde is not installed (extra: parity)")
    from pinned_loops import Draws, drawing, in_precision

    kind = getattr(diffusers, name)
    module = importlib.import_module(kind.__module__)
    given = Draws(given={call: z.numpy() for call, z in (draws or {}).items()})
    with in_precision(module, "float64"), drawing(module, given), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated ways to hand arrays over
        scheduler = kind(**{"trained_betas": SCHEDULE.betas.tolist(), **config})
        scheduler.set_timesteps(num_steps)
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x_bar, t)
            x_bar = scheduler.step(network(scaled, t.double()), t, x_bar).prev_sample
            given.call += 1
    return x_bar


def grids(num_steps):
    """Returns {diffusers' options: the grid of the same times}."""
    karras = timesteps.karras(SCHEDULE, num_steps)
    return {
        "trailing": ({"timestep_spacing": "trailing"}, timesteps.trailing(1000, num_steps).astype(np.float64)),
        "exponential": (
            {"timestep_spacing": "linspace", "use_exponential_sigmas": True},
            timesteps.log_snr(SCHEDULE, num_steps),
        ),
        "karras": ({"timestep_spacing": "linspace", "use_karras_sigmas": True}, karras),
    }


DIFFUSERS = [
    ("LMSDiscreteScheduler", samplers.lms, ("trailing", "karras", "exponential")),
    ("KDPM2DiscreteScheduler", samplers.dpm2, ("trailing", "exponential")),
    ("KDPM2AncestralDiscreteScheduler", lambda s, g: samplers.dpm2(s, g, eta=1.0), ("trailing", "exponential")),
    ("DPMSolverSDEScheduler", samplers.dpm_solver_pp_sde, ("trailing", "karras")),
    ("HeunDiscreteScheduler", samplers.heun, ("trailing",)),
    ("EulerDiscreteScheduler", samplers.euler, ("trailing",)),
]


@pytest.mark.parametrize("num_steps", [10, 25])
@pytest.mark.parametrize(
    ("name", "make", "spacing"), [(name, make, one) for name, make, spacings in DIFFUSERS for one in spacings]
)
def test_diffusers(name, make, spacing, num_steps):
    config, grid = grids(num_steps)[spacing]
    table = make(SCHEDULE, grid)
    keys, x = start()
    first, last = scale_of(grid)
    draws = {}
    for row in range(table.num_rows):
        if name == "KDPM2AncestralDiscreteScheduler" and row % 2:
            draws[row] = noise(keys, row)
        elif name == "DPMSolverSDEScheduler" and row + 1 < table.num_rows:
            draws[row] = noise(keys, row) if row % 2 == 0 else brownian(table, keys, row)
    theirs = run_diffusers(name, num_steps, torch.from_numpy(np.array(x / first)), draws, **config)
    ours = sampling.sample(table, predict, x, keys) / last
    assert relative_error(ours, theirs) <= 1e-9


def brownian(table, keys, row):
    """Returns the increment of a whole step, divided by its standard deviation, of which row `row` is the second."""
    levels = [table.noise[row - 1] / table.signal[row - 1], table.noise[row] / table.signal[row]]
    levels.append(table.noise_to[row] / table.signal_to[row])
    part = (levels[0] - levels[1]) / (levels[0] - levels[2])
    return np.sqrt(part) * noise(keys, row - 1) + np.sqrt(1 - part) * noise(keys, row)


def run_k_diffusion(name, table, grid, x, **options):
    """Returns x̄ at the end."""
    if not k_diffusion.is_installed():
        pytest.skip("k-diffusion is not installed (pip install --no-deps k-diffusion)")
    solver = getattr(k_diffusion.load(), f"sample_{name}")
    sigmas = torch.from_numpy(np.sqrt(1 / SCHEDULE.alpha_bar_at(grid) - 1))
    return solver(k_diffusion.denoiser(torch_network, SCHEDULE.alpha_bars), x, sigmas, disable=True, **options)


K_DIFFUSION = {
    "lms": (samplers.lms, {}),
    "lms order 2": (lambda s, g: samplers.lms(s, g, order=2), {"order": 2}),
    "euler": (samplers.euler, {}),
    "euler_ancestral": (lambda s, g: samplers.ddim(s, g, eta=0.7), {"eta": 0.7}),
    "heun": (samplers.heun, {}),
    "dpm_2": (samplers.dpm2, {}),
    "dpm_2_ancestral": (lambda s, g: samplers.dpm2(s, g, eta=0.7), {"eta": 0.7}),
    "dpmpp_2s_ancestral": (lambda s, g: samplers.dpm_solver_pp_2s_ancestral(s, g, eta=0.7), {"eta": 0.7}),
    "dpmpp_sde": (lambda s, g: samplers.dpm_solver_pp_sde(s, g, eta=0.7), {"eta": 0.7}),
    "dpmpp_2m": (samplers.dpm_solver_pp, {}),
}


@pytest.mark.parametrize("num_steps", [10, 25])
@pytest.mark.parametrize("spacing", ["karras", "to index 0"])
@pytest.mark.parametrize("name", K_DIFFUSION)
def test_k_diffusion(name, spacing, num_steps):
    make, options = K_DIFFUSION[name]
    grid = timesteps.karras(SCHEDULE, num_steps, end=-1 if spacing == "karras" else 0)
    table = make(SCHEDULE, grid)
    keys, x = start()
    first, last = scale_of(grid)
    if name == "dpmpp_sde":
        z = [noise(keys, row) if row % 2 == 0 else brownian(table, keys, row) for row in range(table.num_rows)]
        options = options | {"noise_sampler": k_diffusion.one_by_one(z)}
    elif options.get("eta"):
        options = options | {
            "noise_sampler": k_diffusion.one_by_one([noise(keys, row) for row in np.flatnonzero(table.lands)])
        }
    theirs = run_k_diffusion(name.split()[0], table, grid, torch.from_numpy(np.array(x / first)), **options)
    ours = sampling.sample(table, predict, x, keys) / last
    assert relative_error(ours, theirs) <= 1e-9


@pytest.mark.parametrize("num_steps", [10, 25])
@pytest.mark.parametrize(("name", "make"), [("euler", samplers.euler), ("heun", samplers.heun)])
def test_k_diffusion_with_churn(name, make, num_steps, monkeypatch):
    grid = timesteps.karras(SCHEDULE, num_steps, sigma_max=80.0)
    table = make(SCHEDULE, grid, churn=4.0, churn_sigma_min=0.05, churn_sigma_max=30.0, churn_noise=1.003)
    keys, x = start()
    first, _ = scale_of(grid)
    assert table.signal[0] == first  # σ_max is above the range of the churn
    rows = iter([0, *np.flatnonzero(table.lands)])  # the first is not used
    monkeypatch.setattr(torch, "randn_like", lambda _: noise(keys, next(rows)))
    options = {"s_churn": 4.0, "s_tmin": 0.05, "s_tmax": 30.0, "s_noise": 1.003}
    theirs = run_k_diffusion(name, table, grid, torch.from_numpy(np.array(x / first)), **options)
    assert relative_error(sampling.sample(table, predict, x, keys), theirs) <= 1e-9
    assert np.sum(table.d > 0) >= num_steps / 3


def test_k_diffusion_with_churn_from_the_first_step(monkeypatch):
    grid = timesteps.karras(SCHEDULE, 10, sigma_max=80.0)
    table = samplers.euler(SCHEDULE, grid, churn=3.0)
    keys, x = start()
    z = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_bar = torch.from_numpy(np.array(x)) * 80.0
    rows = iter([None, *range(9)])
    monkeypatch.setattr(torch, "randn_like", lambda _: z if (row := next(rows)) is None else noise(keys, row))
    theirs = run_k_diffusion("euler", table, grid, x_bar, s_churn=3.0)
    raised = 80.0 * 1.3
    assert table.noise[0] / table.signal[0] == pytest.approx(raised, rel=1e-12)
    x_hat = (x_bar + z * np.sqrt(raised**2 - 80.0**2)) * table.signal[0]
    assert relative_error(sampling.sample(table, predict, jnp.asarray(x_hat.numpy()), keys), theirs) <= 1e-9


@pytest.mark.parametrize("set_alpha_to_one", [True, False])
@pytest.mark.parametrize("num_steps", [10, 25])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_pndm(prediction, num_steps, set_alpha_to_one):
    grid = timesteps.leading(1000, num_steps, end=-1)
    if not set_alpha_to_one:
        grid = grid[:-1]  # their last step leads from index 0 to index 0
    config = {"prediction_type": prediction, "set_alpha_to_one": set_alpha_to_one}
    is_v = prediction == "v_prediction"
    table = samplers.pndm(SCHEDULE, grid, average="v" if is_v else "eps")
    _, x = start()
    theirs = run_diffusers("PNDMScheduler", num_steps, torch.from_numpy(np.array(x)), **config)
    ours = sampling.sample(table, parameterization.from_v(predict, SCHEDULE) if is_v else predict, x)
    assert relative_error(ours, theirs) <= 1e-9


@pytest.mark.parametrize("num_steps", [10, 25])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_ddim_inverse(prediction, num_steps):
    grid = np.append(-1, timesteps.leading(1000, num_steps)[-2::-1])
    table = samplers.probability_flow(SCHEDULE, grid, network_at="destination")
    _, x = start()
    model = parameterization.from_v(predict) if prediction == "v_prediction" else predict
    config = {"prediction_type": prediction, "clip_sample": False}
    theirs = run_diffusers("DDIMInverseScheduler", num_steps, torch.from_numpy(np.array(x)), **config)
    assert relative_error(sampling.sample(table, model, x), theirs) <= 1e-9


def test_pinned_ddim_inverse_with_v():
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")
    from pinned_loops import numbered_sample
    from pinned_values import RECORDS

    record = next(record for record in RECORDS if record.test == "ddim_inverse::full_loop_with_v_prediction")
    grid = np.append(-1, timesteps.leading(1000, 10)[-2::-1])
    table = samplers.probability_flow(SCHEDULE, grid, network_at="destination")
    table = dataclasses.replace(table, rederive_eps=False)  # theirs keeps ε̂ after clipping
    x = jnp.asarray(numbered_sample(record.shape))
    total = np.sum(np.abs(sampling.sample(table, parameterization.from_v(pinned_network), x, clip=1.0)))
    assert total == pytest.approx(record.float64_sum, rel=1e-9)
    assert total == pytest.approx(record.sum, abs=record.sum_atol)


def test_pinned_pndm_with_v():
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")
    from pinned_loops import numbered_sample
    from pinned_values import RECORDS

    record = next(record for record in RECORDS if record.test == "pndm::full_loop_with_v_prediction")
    predict = parameterization.from_v(pinned_network, SCHEDULE)
    table = samplers.pndm(SCHEDULE, timesteps.leading(1000, 10)[:-1], average="v")
    total = np.sum(np.abs(sampling.sample(table, predict, jnp.asarray(numbered_sample(record.shape)))))
    assert total == pytest.approx(record.float64_sum, rel=1e-9)
    assert total == pytest.approx(record.sum, abs=record.sum_atol)


@jax.tree_util.Partial
def pinned_network(x, t):
    return x * t[0] / (t[0] + 1)


def ipndm(num_steps):
    """Returns (schedule, table) of diffusers' `IPNDMScheduler`: √(1-ᾱ) = sin²(πt/2) at t = 1/S, 2/S, …, 1.

    It divides by √ᾱ or at least 1e-8, so that x̂0 is 0 on the first step, where ε̂ is x.
    """
    t = np.arange(1, num_steps + 1) / num_steps
    schedule = schedules.from_alpha_bars(np.append(1 - np.sin(np.pi * t[:-1] / 2) ** 4, 0.0))
    table = samplers.plms(schedule, timesteps.full(num_steps))
    b = np.where(np.arange(num_steps) == 0, 0.0, table.b)
    t_net = np.arctan2(table.noise, table.signal) / np.pi * 2
    return dataclasses.replace(table, b=b, t_net=t_net)


@pytest.mark.parametrize("num_steps", [10, 25])
def test_ipndm(num_steps):
    _, x = start()
    theirs = run_diffusers("IPNDMScheduler", num_steps, torch.from_numpy(np.array(x)), trained_betas=None)
    ours = sampling.sample(ipndm(num_steps), parameterization.from_v(predict), x)
    assert relative_error(ours, theirs) <= 1e-9


def test_pinned_ipndm():
    """Its test runs twice over the timesteps, and the second time the history is that of the first.

    There, x - ε̂' is no longer 0 at t = 1, and divided by 1e-8.
    """
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")
    from pinned_loops import numbered_sample
    from pinned_values import RECORDS

    record = next(record for record in RECORDS if record.test == "ipndm::full_loop_no_noise")
    once = ipndm(10)
    a = np.array(once.a)
    a[0] = once.signal_to[0] / 1e-8
    slope = np.append(once.noise_to[0] - a[0], once.noise_to[1:] - a[1:] * once.noise[1:])
    again = dataclasses.replace(once, a=a, c=slope * 55 / 24, eps_history=slope[:, None] * [-59 / 24, 37 / 24, -9 / 24])
    table = jax.tree.map(lambda *parts: np.concatenate(parts), once, again)
    x = jnp.asarray(numbered_sample(record.shape))
    total = np.sum(np.abs(sampling.sample(table, parameterization.from_v(pinned_network), x)))
    assert total == pytest.approx(record.float64_sum, rel=1e-7)
