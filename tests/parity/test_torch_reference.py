"""The tutorial codes S0, S3 and S4 rewritten in PyTorch: right by default as diffjax is, and each fault what it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax import samplers, schedules, timesteps

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")

from torch_reference import s0, s3, s4, tables  # noqa: E402 (they need PyTorch)

SCHEDULE = schedules.linear()
BETAS = tables.linear_betas()
SHAPE = (3, 4, 4, 2)

pytestmark = pytest.mark.usefixtures("x64")


@jax.tree_util.Partial
def predict(x, t):
    return 0.6 * jnp.sin(2 * x) + 0.3 * x + t[0].astype(x.dtype) / 2000


def eps_model(x, t):
    return 0.6 * torch.sin(2 * x) + 0.3 * x + float(t[0]) / 2000


@jax.jit
def noise_of(keys, row):
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, row), SHAPE[1:], jnp.float64))(keys)


def inputs():
    """(keys, x_T of ours, x_T of theirs, their noise)."""
    keys = dj.sample_keys(0, 0, SHAPE[0])
    x = dj.initial_noise(keys, SHAPE[1:], jnp.float64)
    return keys, x, torch.from_numpy(np.array(x)), lambda row: torch.from_numpy(np.array(noise_of(keys, row)))


def ours(steps, **options):
    keys, x, _, _ = inputs()
    return np.asarray(dj.sample_trajectory(steps, predict, x, keys, **options).x)


def run(sampler, **options):
    _, _, x, noise = inputs()
    return sampler(BETAS, x, eps_model, noise, **options).numpy()


def error(a, b):
    """‖a - b‖/‖b‖ at the worst grid point."""
    assert a.shape == b.shape
    axes = tuple(range(1, a.ndim))
    return np.max(np.sqrt(np.sum((a - b) ** 2, axes) / np.sum(b**2, axes)))


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


# S0


def test_s0_grid_is_ours():
    for num_steps in range(1, 1001):
        grid = timesteps.trailing(1000, num_steps, rounding="floor")
        np.testing.assert_array_equal(grid, s0.grid(1000, num_steps))


def test_s0_float32_linspace_misses_for_63_counts():
    wrong = [n for n in range(1, 1001) if s0.grid(1000, n, float32_linspace=True) != s0.grid(1000, n)]
    assert len(wrong) == 63
    assert wrong[:4] == [30, 60, 90, 106]
    assert not [n for n in wrong if 1000 % n == 0]


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("simple_var", [True, False])
def test_s0_ddpm(simple_var, clip):
    steps = samplers.ddpm(SCHEDULE, timesteps.full(1000), variance="fixed_large" if simple_var else "fixed_small")
    assert error(ours(steps, clip=clip), run(s0.ddpm, simple_var=simple_var, clip=clip)) <= 1e-10


@pytest.mark.parametrize("eta", [0.04, 0.25, 0.5, 1.0])
def test_s0_eta_is_the_paper_s_squared(eta):
    theirs = run(s0.ddim, num_steps=20, eta=eta, eta_scales_variance=True)
    grid = timesteps.trailing(1000, 20)
    assert error(ours(samplers.ddim(SCHEDULE, grid, eta=np.sqrt(eta))), theirs) <= 1e-12
    assert error(run(s0.ddim, num_steps=20, eta=np.sqrt(eta)), theirs) <= 1e-12
    if eta < 1:
        assert error(ours(samplers.ddim(SCHEDULE, grid, eta=eta)), theirs) > 1e-2


@pytest.mark.parametrize(("num_steps", "std"), [(10, 0.321), (20, 0.170), (50, 0.076), (100, 0.044), (1000, 0.010)])
def test_s0_simple_var_is_sigma_hat_and_leaves_noise_in_the_end(num_steps, std):
    grid = timesteps.trailing(1000, num_steps)
    quiet = samplers.ddim(SCHEDULE, grid, sigma_hat=True)
    noisy = samplers.ddim(SCHEDULE, grid, sigma_hat=True, final_noise=True)
    assert quiet.d[-1] == 0
    assert noisy.d[-1] == pytest.approx(std, abs=6e-4)
    without = run(s0.ddim, num_steps=num_steps, simple_var=True)
    with_noise = run(s0.ddim, num_steps=num_steps, simple_var=True, final_noise=True)
    assert error(ours(quiet), without) <= 1e-10
    assert error(ours(noisy), with_noise) <= 1e-10
    np.testing.assert_array_equal(with_noise[:-1], without[:-1])
    _, _, _, noise = inputs()
    np.testing.assert_allclose(with_noise[-1] - without[-1], noisy.d[-1] * noise(num_steps - 1), atol=1e-12)


@pytest.mark.parametrize("sampler", ["s0", "s3", "s4"])
def test_a_float32_schedule_shows(sampler):
    """1 - ᾱ is wrong by 1.7e-4 at t = 0; of a whole run less remains, but all of float64's agreement is gone."""
    betas = tables.linear_betas(float32_schedule=True)
    exact, rounded = (1 - tables.AlphaBars(BETAS)[0]), (1 - tables.AlphaBars(betas, float32_schedule=True)[0])
    assert abs(rounded / exact - 1) == pytest.approx(1.7e-4, abs=1e-5)
    _, _, x, noise = inputs()

    def final(betas, **fault):
        if sampler == "s0":
            return s0.ddim(betas, x, eps_model, noise, num_steps=100, eta=1.0, **fault)[-1]
        if sampler == "s3":
            return s3.ddim(betas, x, eps_model, noise, tau=10, eta=1.0, **fault)[-1]
        return s4.GaussianDiffusion(betas, **fault).p_sample_loop(eps_model, x, noise)[-1]

    assert 5e-8 < relative(final(betas, float32_schedule=True), final(BETAS)) < 1e-3


# S3


@pytest.mark.parametrize(
    ("tau", "largest"),
    [(1, None), (2, None), (3, 0.951), (5, 0.802), (10, 0.622), (20, 0.467), (50, 0.308), (100, 0.221)],
)
def test_s3_sigma_from_consecutive_indices_is_nan_beyond_a_small_eta(tau, largest):
    fault = {"sigma_from_consecutive": True, "historical_list": True, "end": "alpha_bar_0", "tau": tau}
    levels = s3.grid(1000, tau, end="alpha_bar_0", historical_list=True)
    room = np.sqrt(1 - SCHEDULE.alpha_bar_at(levels[1:]))
    sigma = s3.sigmas(BETAS, levels, sigma_from_consecutive=True).numpy()
    if largest is None:
        assert np.all(np.isfinite(run(s3.ddim, eta=1.0, **fault)))
        return
    assert np.min(room / sigma) == pytest.approx(largest, abs=5e-4)
    theirs = run(s3.ddim, eta=1.0, **fault)
    assert np.all(np.isfinite(theirs[:-1]))
    assert np.all(np.isnan(theirs[-1]))
    with pytest.raises(ValueError, match="sigma"):
        samplers.ddim(SCHEDULE, levels, sigma=sigma)
    # Below that η the fault can be had on purpose.
    eta = 0.99 * largest
    assert error(ours(samplers.ddim(SCHEDULE, levels, sigma=eta * sigma)), run(s3.ddim, eta=eta, **fault)) <= 1e-10
    assert np.all(np.isfinite(run(s3.ddim, eta=1.0, tau=tau)))


@pytest.mark.parametrize(("tau", "is_nan"), [(5, True), (10, True), (20, False), (30, True), (50, False), (100, False)])
def test_s3_sigma_from_consecutive_indices_in_its_quadratic_list(tau, is_nan):
    fault = {"sigma_from_consecutive": True, "historical_list": True, "end": "alpha_bar_0"}
    theirs = run(s3.ddim, eta=1.0, tau=tau, scheduling="exp", **fault)
    assert np.any(np.isnan(theirs)) == is_nan


@pytest.mark.parametrize("tau", [1, 3, 10, 20, 100])
def test_s3_at_eta_0_on_its_own_grid(tau):
    grid = timesteps.uniform(1000, stride=tau, last=True, end=0)
    assert grid.tolist() == s3.grid(1000, tau, end="alpha_bar_0")
    theirs = run(s3.ddim, tau=tau, end="alpha_bar_0")
    assert error(ours(samplers.ddim(SCHEDULE, grid)), theirs) <= 1e-12
    np.testing.assert_array_equal(run(s3.ddim, tau=tau, end="alpha_bar_0", sigma_from_consecutive=True), theirs)
    clean = run(s3.ddim, tau=tau, end="one")
    np.testing.assert_array_equal(clean[:-1], theirs)
    assert relative(theirs[-1], clean[-1]) > 1e-4


@pytest.mark.parametrize("tau", [1, 3, 9, 27, 37, 111, 333, 999])
def test_s3_uniform_repeats_the_last_index_where_tau_divides_it(tau):
    historical = s3.indices(1000, tau, historical_list=True)
    assert historical[-2:] == [999, 999]
    assert s3.indices(1000, tau) == historical[:-1]
    assert s3.indices(1000, tau + 1, historical_list=True)[-2:] != [999, 999]
    # At η = 0 the repeated step changes nothing.
    assert relative(run(s3.ddim, tau=tau, historical_list=True)[-1], run(s3.ddim, tau=tau)[-1]) <= 1e-10


@pytest.mark.parametrize("tau", [10, 50])
def test_s3_exp_is_quadratic(tau):
    historical = s3.grid(1000, tau, "exp", end="alpha_bar_0", historical_list=True)
    grid = timesteps.quadratic(1000, tau, last=True, allow_repeats=True, end=0)
    assert grid.tolist() == historical
    assert (len(set(historical)) < len(historical)) == (tau >= 30)
    theirs = run(s3.ddim, tau=tau, scheduling="exp", end="alpha_bar_0", historical_list=True)
    assert error(ours(samplers.ddim(SCHEDULE, grid)), theirs) <= 1e-12


def test_s3_names_must_be_known():
    with pytest.raises(ValueError, match="neither"):
        s3.indices(1000, 10, "geometric")
    with pytest.raises(ValueError, match="neither"):
        s3.grid(1000, 10, end="zero")


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_s3_with_sigma_between_its_own_neighbours(eta):
    grid = timesteps.uniform(1000, stride=20, last=True)
    assert error(ours(samplers.ddim(SCHEDULE, grid, eta=eta)), run(s3.ddim, tau=20, eta=eta)) <= 1e-12


@pytest.mark.parametrize("tau", [1, 10, 100])
def test_s3_probability_flow_both_ways(tau):
    _, _, x, _ = inputs()
    grid = timesteps.uniform(1000, stride=tau, last=True, end=0)
    for reverse, levels in ((True, grid), (False, grid[::-1])):
        theirs = s3.probability_flow(BETAS, x, eps_model, tau=tau, reverse=reverse).numpy()
        assert error(ours(samplers.probability_flow(SCHEDULE, levels, form="eq15")), theirs) <= 1e-12
        if tau > 1:
            other = ours(samplers.probability_flow(SCHEDULE, levels, form="eq13"))
            assert error(other, theirs) > 1e-3


# S4


@pytest.mark.parametrize("clip", [None, 1.0])
def test_s4_p_sample_loop(clip):
    _, _, x, noise = inputs()
    theirs = s4.GaussianDiffusion(BETAS).p_sample_loop(eps_model, x, noise, clip=clip).numpy()
    steps = samplers.ddpm(SCHEDULE, timesteps.full(1000), variance="fixed_small")
    assert error(ours(steps, clip=clip)[1:], theirs) <= 1e-10


def test_s4_log_clamp_changes_likelihoods_and_no_sample():
    right, clamped = s4.GaussianDiffusion(BETAS), s4.GaussianDiffusion(BETAS, clamp_log=True)
    ours_log = SCHEDULE.posterior_log_variance
    np.testing.assert_allclose(right.posterior_log_variance_clipped, ours_log, rtol=1e-10)
    assert right.posterior_log_variance_clipped[0].item() == pytest.approx(-9.82, abs=5e-3)
    assert clamped.posterior_log_variance_clipped[0].item() == pytest.approx(-46.05, abs=5e-3)
    np.testing.assert_array_equal(clamped.posterior_log_variance_clipped[1:], right.posterior_log_variance_clipped[1:])
    _, _, x, noise = inputs()
    np.testing.assert_array_equal(clamped.p_sample_loop(eps_model, x, noise), right.p_sample_loop(eps_model, x, noise))


def test_s4_pictures_and_their_levels():
    """Picture k is at level T-2-k, as `sample_trajectory` says; naming it T-1-k spoils its x̂0."""
    process = s4.GaussianDiffusion(BETAS)
    keys, x, x_torch, noise = inputs()
    frames = dj.sample_trajectory(samplers.ddpm(SCHEDULE, timesteps.full(1000)), predict, x, keys)
    pictures = process.p_sample_loop(eps_model, x_torch, noise, clip=None)
    assert process.picture_levels() == frames.t[1:].tolist()
    assert process.picture_levels(level_off_by_one=True) == (frames.t[1:] + 1).tolist()
    assert error(process.x0_pictures(eps_model, pictures).numpy(), np.asarray(frames.x0[1:-1])) <= 1e-9
    spoilt = process.x0_pictures(eps_model, pictures, level_off_by_one=True).numpy()
    assert relative(spoilt, np.asarray(frames.x0[1:-1])) > 1e-3


def test_s4_loop_over_another_number_of_timesteps_is_another_sampler():
    process = s4.GaussianDiffusion(BETAS)
    _, _, x, noise = inputs()
    pictures = process.p_sample_loop(eps_model, x, noise, timesteps=500)
    assert len(pictures) == 500
    steps = samplers.ddpm(SCHEDULE, np.arange(499, -2, -1))
    assert error(ours(steps, clip=1.0)[1:], pictures.numpy()) <= 1e-10
    assert relative(pictures[-1].numpy(), process.p_sample_loop(eps_model, x, noise)[-1].numpy()) > 1e-2


def test_s4_q_sample_and_posterior():
    process = s4.GaussianDiffusion(BETAS)
    _, _, x_torch, noise = inputs()
    t = np.array([0, 1, 999])
    x0, z = torch.tanh(x_torch), noise(0)
    x_t = process.q_sample(x0, torch.from_numpy(t), z)
    np.testing.assert_allclose(dj.process.q_sample(SCHEDULE, x0.numpy(), t, z.numpy()), x_t, rtol=1e-12)
    mean, variance, log_variance = process.q_posterior_mean_variance(x0, x_t, torch.from_numpy(t))
    posterior = dj.process.q_posterior(SCHEDULE, x0.numpy(), x_t.numpy(), t)
    np.testing.assert_allclose(posterior[0], mean, rtol=1e-9)
    np.testing.assert_allclose(np.broadcast_to(posterior[1], variance.shape), variance, rtol=1e-9)
    np.testing.assert_allclose(np.broadcast_to(posterior[2], variance.shape), log_variance, rtol=1e-9)
    again = process.predict_start_from_noise(x_t, torch.from_numpy(t), z)
    np.testing.assert_allclose(dj.process.predict_x0(SCHEDULE, x_t.numpy(), t, z.numpy()), again, atol=1e-10)
    np.testing.assert_allclose(again, x0, atol=1e-10)
    assert process.q_mean_variance(x0, torch.from_numpy(t))[2].flatten()[0] == np.log(1 - SCHEDULE.alpha_bars[0])


def test_s4_weight_of_the_bound():
    """KL of two Gaussians of variance β̃ is ‖Δμ‖²/(2β̃): the fault divides by β̃ once more."""
    process = s4.GaussianDiffusion(BETAS)
    variance = SCHEDULE.posterior_variance[1:]
    np.testing.assert_allclose(process.bound_weight(), 1 / (2 * variance), rtol=1e-9)
    np.testing.assert_allclose(
        process.bound_weight(variance_squared=True) / process.bound_weight(), 1 / variance, rtol=1e-9
    )
    p = torch.distributions.Normal(0.3, float(variance[500]) ** 0.5)
    q = torch.distributions.Normal(0.1, float(variance[500]) ** 0.5)
    kl = torch.distributions.kl_divergence(p, q)
    assert float(kl) == pytest.approx(0.04 * float(process.bound_weight()[500]), rel=1e-5)


def test_s4_tables():
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
