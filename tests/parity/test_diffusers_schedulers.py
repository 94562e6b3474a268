"""Whole runs against diffusers' schedulers, in float64, with the same ε̂ and the same noise.

diffusers keeps its schedule in float32: its tables are overwritten in float64 here, and its noise is handed to it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax import samplers, schedules, timesteps

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")

SCHEDULE = schedules.linear()
SHAPE = (3, 4, 4, 2)

pytestmark = pytest.mark.usefixtures("x64")

grids = pytest.mark.parametrize(
    ("spacing", "grid"),
    [
        ("leading", timesteps.leading(1000, 10)),
        ("leading", timesteps.leading(1000, 50)),
        ("trailing", timesteps.trailing(1000, 50)),
        ("leading", timesteps.full(1000)),
    ],
    ids=["leading-10", "leading-50", "trailing-50", "full"],
)
clips = pytest.mark.parametrize("clip", [None, 1.0], ids=["raw", "clipped"])


def eps_hat(sin, x, t):
    """A stand-in network, the same in both: large enough that clipping bites."""
    return 0.6 * sin(2 * x) + 0.3 * x + t / 2000


@jax.tree_util.Partial
def predict(x, t):
    return eps_hat(jnp.sin, x, t[0].astype(x.dtype))


def lifted(kind, spacing, **options):
    """A diffusers scheduler whose tables are this schedule's, in float64."""
    scheduler = kind(timestep_spacing=spacing, prediction_type="epsilon", steps_offset=0, **options)
    for name in ("betas", "alphas"):
        setattr(scheduler, name, torch.from_numpy(getattr(SCHEDULE, name).copy()))
    scheduler.alphas_cumprod = torch.from_numpy(SCHEDULE.alpha_bars.copy())
    for name in ("one", "final_alpha_cumprod"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, torch.tensor(1.0, dtype=torch.float64))
    return scheduler


def noise_of(keys, row):
    z = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, row), SHAPE[1:]))(keys)
    return torch.from_numpy(np.array(z))


def run_diffusers(scheduler, grid, keys, step):
    x = torch.from_numpy(np.array(dj.initial_noise(keys, SHAPE[1:], jnp.float64)))
    scheduler.set_timesteps(len(grid) - 1)
    assert scheduler.timesteps.tolist() == grid[:-1].tolist()
    clipped = False
    for row, t in enumerate(scheduler.timesteps):
        out = step(scheduler, eps_hat(torch.sin, x, float(t)), t, x, noise_of(keys, row))
        clipped |= bool((out.pred_original_sample.abs() == 1).any())
        x = out.prev_sample
    assert clipped == scheduler.config.clip_sample  # a fixture that never clips would prove nothing
    return x.numpy()


def assert_close(ours, theirs):
    assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) <= 1e-6
    assert np.linalg.norm(theirs) > 1


@grids
@clips
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("rederive", [True, False], ids=["rederived", "raw_eps"])
def test_ddim(spacing, grid, clip, eta, rederive):
    scheduler = lifted(diffusers.DDIMScheduler, spacing, clip_sample=clip is not None, set_alpha_to_one=True)
    keys = dj.sample_keys(0, 0, SHAPE[0])

    def step(scheduler, eps, t, x, noise):
        return scheduler.step(eps, t, x, eta=eta, variance_noise=noise, use_clipped_model_output=rederive)

    theirs = run_diffusers(scheduler, grid, keys, step)
    steps = samplers.ddim(SCHEDULE, grid, eta=eta, rederive_eps=rederive)
    x = dj.initial_noise(keys, SHAPE[1:], jnp.float64)
    assert_close(dj.sample(steps, predict, x, keys, clip=clip), theirs)


@grids
@clips
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ddpm(spacing, grid, clip, variance, monkeypatch):
    if variance == "fixed_large" and spacing == "trailing":
        pytest.skip("diffusers adds fixed_large noise on the step to clean data where that step starts above t = 0")
    scheduler = lifted(diffusers.DDPMScheduler, spacing, clip_sample=clip is not None, variance_type=variance)
    keys = dj.sample_keys(0, 0, SHAPE[0])

    def step(scheduler, eps, t, x, noise):
        monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: noise)
        return scheduler.step(eps, t, x)

    theirs = run_diffusers(scheduler, grid, keys, step)
    x = dj.initial_noise(keys, SHAPE[1:], jnp.float64)
    ours = dj.sample(samplers.ddpm(SCHEDULE, grid, variance=variance), predict, x, keys, clip=clip)
    assert_close(ours, theirs)


def test_tables_of_the_usual_gaussian_diffusion_class():
    """The formulas of the usual PyTorch class, in float64."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alphas = 1 - betas
    alphas_cumprod = torch.cumprod(alphas, 0)
    prev = torch.nn.functional.pad(alphas_cumprod[:-1], (1, 0), value=1.0)
    variance = betas * (1 - prev) / (1 - alphas_cumprod)
    expected = {
        "betas": betas,
        "alphas": alphas,
        "alpha_bars": alphas_cumprod,
        "alpha_bars_prev": prev,
        "sqrt_alpha_bars": alphas_cumprod.sqrt(),
        "sqrt_one_minus_alpha_bars": (1 - alphas_cumprod).sqrt(),
        "log_one_minus_alpha_bars": (1 - alphas_cumprod).log(),
        "sqrt_recip_alpha_bars": (1 / alphas_cumprod).sqrt(),
        "sqrt_recipm1_alpha_bars": (1 / alphas_cumprod - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_mean_coef_x0": betas * prev.sqrt() / (1 - alphas_cumprod),
        "posterior_mean_coef_xt": (1 - prev) * alphas.sqrt() / (1 - alphas_cumprod),
    }
    for name, table in expected.items():
        np.testing.assert_allclose(getattr(SCHEDULE, name), table.numpy(), rtol=1e-11, err_msg=name)
    # At t = 0 the usual class clamps at log 1e-20; here the next step stands in.
    np.testing.assert_allclose(SCHEDULE.posterior_log_variance[1:], variance[1:].log().numpy(), rtol=1e-12)
