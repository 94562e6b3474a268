"""Rectified flow and EDM: their networks on any schedule, on Gaussian data where the answers are known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax import losses, parameterization, process, samplers, schedules, timesteps

pytestmark = pytest.mark.usefixtures("x64")

MEAN, STD, SIGMA_DATA = 0.3, 0.6, 0.7
X = np.linspace(-2, 2, 5)[:, None]
SCHEDULES = {"flow": schedules.flow(), "edm": schedules.edm(), "linear": schedules.linear()}
WIDE = schedules.edm(sigma_max=1e5)
"""A schedule that begins at pure noise, as far as float64 can tell beside the errors of solvers."""


@jax.tree_util.Partial
def velocity(x, u):
    """E[ε - x_0 | x_u] at x_u = (1-u)·x_0 + u·ε."""
    u = u[:, None]
    return (u - (1 - u) * STD**2) / ((1 - u) ** 2 * STD**2 + u**2) * (x - (1 - u) * MEAN) - MEAN


@jax.tree_util.Partial
def edm_network(x, c_noise):
    """F of Karras et al. 2022, Eq. 7, for the exact denoiser D."""
    sigma = jnp.exp(4 * c_noise)[:, None]
    x_bar = x * jnp.sqrt(sigma**2 + SIGMA_DATA**2)
    denoised = MEAN + STD**2 / (STD**2 + sigma**2) * (x_bar - MEAN)
    c_skip = SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)
    c_out = sigma * SIGMA_DATA / jnp.sqrt(sigma**2 + SIGMA_DATA**2)
    return (denoised - c_skip * x_bar) / c_out


def flow_predict(schedule):
    return parameterization.from_flow(parameterization.with_noise_level(velocity, schedule, "flow"), schedule)


def edm_predict(schedule):
    network = parameterization.with_noise_level(edm_network, schedule, "edm")
    return parameterization.from_edm(network, schedule, sigma_data=SIGMA_DATA)


PREDICTS = {"flow": flow_predict, "edm": edm_predict}


def optimal(schedule, x, t):
    ab = schedule.alpha_bar_at(t)[:, None]
    residual = (x - np.sqrt(ab) * MEAN) / (ab * STD**2 + 1 - ab)
    return MEAN + np.sqrt(ab) * STD**2 * residual, np.sqrt(1 - ab) * residual


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", PREDICTS)
def test_both_networks_predict_what_they_must_at_any_time_of_any_schedule(kind, name):
    schedule = SCHEDULES[name]
    for t in (np.array([0, 1, 400, 998, 998]), np.array([0.0, 0.25, 400.5, 997.9, 998.5])):
        found = jax.jit(lambda predict, x, t: predict(x, t))(PREDICTS[kind](schedule), X, t)
        x0, eps = optimal(schedule, X, t)
        np.testing.assert_allclose(found.x0, x0, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(found.eps, eps, rtol=1e-9, atol=1e-10)


def test_a_velocity_where_no_signal_is_left():
    found = flow_predict(SCHEDULES["flow"])(X, np.full(5, 999))
    np.testing.assert_allclose(found.x0, np.full((5, 1), MEAN), rtol=1e-12)
    np.testing.assert_allclose(found.eps, X, rtol=1e-12)


@pytest.mark.parametrize("kind", PREDICTS)
@pytest.mark.parametrize(
    ("make", "num_steps", "tolerance"),
    [
        (samplers.ddim, 2000, 4e-3),
        (samplers.heun, 200, 1e-3),
        (samplers.dpm_solver_pp, 200, 1e-3),
        (samplers.probability_flow, 2000, 4e-3),
    ],
)
def test_samples_from_pure_noise_meet_the_data(kind, make, num_steps, tolerance):
    schedule = SCHEDULES["flow"] if kind == "flow" else WIDE
    grid = timesteps.flow(schedule, num_steps, shift=2.0 if kind == "flow" else 1.0)
    table = make(schedule, grid)
    result = dj.sample(table, PREDICTS[kind](schedule), X)
    # The flow keeps (x - mean)/std, which is x itself at the start.
    np.testing.assert_allclose(result, MEAN + STD * X, atol=tolerance)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_stochastic_samples_have_the_moments_of_the_data(eta):
    schedule, keys = SCHEDULES["flow"], dj.sample_keys(0, 0, 20_000)
    table = samplers.ddim(schedule, timesteps.flow(schedule, 100), eta=eta)
    result = dj.sample(table, flow_predict(schedule), dj.initial_noise(keys, (1,), jnp.float64), keys)
    assert float(jnp.mean(result)) == pytest.approx(MEAN, abs=5 * STD / np.sqrt(20_000))
    assert float(jnp.std(result)) == pytest.approx(STD, abs=0.02)


@pytest.mark.parametrize("name", ["dpm2", "pndm"])
def test_other_samplers_refuse_pure_noise_in_one_line(name):
    schedule = SCHEDULES["flow"]
    with pytest.raises(ValueError, match="divides by alpha_bar, which is 0 on this grid: start the grid lower"):
        getattr(samplers, name)(schedule, timesteps.flow(schedule, 10))


@pytest.mark.parametrize("kind", PREDICTS)
@pytest.mark.parametrize("make", [samplers.ddim, samplers.heun, samplers.dpm_solver_pp])
def test_a_network_samples_the_same_on_any_schedule_that_has_the_levels(kind, make):
    sigmas = np.append(np.geomspace(70.0, 0.011, 12), 0.0)
    results = [
        dj.sample(make(schedule, timesteps.from_sigmas(schedule, sigmas)), PREDICTS[kind](schedule), X)
        for schedule in SCHEDULES.values()
    ]
    np.testing.assert_allclose(results[1:], [results[0]] * 2, rtol=1e-10)


def test_euler_on_the_linear_path_is_ddim():
    # Any network, also one whose velocity is far from the data's.
    net = jax.tree_util.Partial(lambda x, u: 0.6 * jnp.sin(2 * x) + u[:, None])
    schedule = SCHEDULES["flow"]
    predict = parameterization.from_flow(parameterization.with_noise_level(net, schedule, "flow"), schedule)
    for shift in (1.0, 3.0):
        u = np.linspace(1, 0, 8)
        u = shift * u / (1 + (shift - 1) * u)
        x = jnp.asarray(X)
        for here, there in itertools.pairwise(u):
            x = x + (there - here) * net(x, jnp.full(5, here))
        table = samplers.ddim(schedule, timesteps.flow(schedule, 7, shift=shift))
        np.testing.assert_allclose(dj.sample(table, predict, X), x, rtol=1e-11)


@pytest.mark.parametrize("t", [np.array([0, 1, 500, 998, 998]), np.array([0.5, 3.25, 500.75, 990.0, 998.4])])
@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(process.PARAMETERIZATIONS, 2)))
def test_parameterizations_round_trip(one, other, t):
    schedule = schedules.flow(1000, shift=2.0)
    value = np.cos(3 * X)
    there = process.convert(schedule, X, t, value, given=one, wanted=other, sigma_data=SIGMA_DATA)
    back = process.convert(schedule, X, t, there, given=other, wanted=one, sigma_data=SIGMA_DATA)
    # ε and the score lose x_0 near pure noise, and x_0 loses ε near clean data, by the level there.
    ratio = schedule.sigma_bars[np.floor(t).astype(int)]
    np.testing.assert_allclose(back, value, atol=1e-12 * max(ratio.max(), 1 / ratio.min()) ** ("x0" in (one, other)))


def test_edm_with_unit_data_is_minus_v():
    t = np.array([0.5, 3.0, 500.0, 990.0, 999.0])
    x0, eps = np.sin(X), np.cos(3 * X)
    schedule = SCHEDULES["flow"]
    f = process.predict_edm(schedule, x0, t, eps, sigma_data=1.0)
    np.testing.assert_allclose(f, -process.predict_v(schedule, x0, t, eps), rtol=1e-12)


# Schedules and spacings.


def test_edm_is_linear_in_log_snr_between_its_timesteps_too():
    schedule = schedules.edm(50)
    np.testing.assert_allclose(schedule.sigma_bars[[0, -1]], [0.002, 80.0], rtol=1e-9)
    t = np.linspace(0, 49, 333)
    ab = schedule.alpha_bar_at(t)
    expected = np.log(0.002) + t / 49 * np.log(80.0 / 0.002)
    np.testing.assert_allclose(0.5 * (np.log1p(-ab) - np.log(ab)), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_flow_has_the_levels_of_the_linear_path(shift):
    schedule = schedules.flow(40, shift=shift)
    u = np.arange(1, 41) / 40
    u = shift * u / (1 + (shift - 1) * u)
    signal, noise = schedule.sqrt_alpha_bars, schedule.sqrt_one_minus_alpha_bars
    np.testing.assert_allclose(noise / (signal + noise), u, rtol=1e-12)
    assert schedule.alpha_bars[-1] == 0.0


@pytest.mark.parametrize(
    ("options", "sigmas"),
    [
        ({}, [np.inf, 3, 1, 1 / 3, 0]),
        ({"shift": 3.0}, [np.inf, 9, 3, 1, 0]),
        ({"sigma_max": 9.0, "sigma_min": 1.0}, [9, 0.9 * 13 / 15 / (1 - 0.9 * 13 / 15), 0, 1, 0]),
    ],
)
def test_flow_spacing(options, sigmas):
    schedule = SCHEDULES["flow"]
    grid = timesteps.flow(schedule, 4, **options)
    assert (grid.dtype, grid[0] == 999, grid[-1]) == (np.float64, "sigma_max" not in options, -1.0)
    ab = schedule.alpha_bar_at(grid)
    u = np.sqrt(1 - ab) / (np.sqrt(ab) + np.sqrt(1 - ab))
    if "sigma_max" in options:
        np.testing.assert_allclose(u[:-1], np.linspace(0.9, 0.5, 4), rtol=1e-11)
    else:
        np.testing.assert_allclose(1 - u, 1 / (1 + np.array(sigmas)), rtol=1e-10, atol=1e-14)
    last = timesteps.flow(schedule, 4, end=0)
    assert (last[-1], len(last)) == (pytest.approx(0.0, abs=1e-9), 5)
    assert timesteps.flow(schedule, 4, rounded=True).tolist() == [999, 749, 499, 249, -1]


def test_flow_spacing_of_a_ddpm_schedule_begins_at_its_last_timestep():
    assert timesteps.flow(SCHEDULES["linear"], 5, shift=3.0)[0] == pytest.approx(999.0, abs=1e-9)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: schedules.flow(10, shift=0.0), "shift=0.0 must be > 0"),
        (lambda: schedules.edm(1), "num_timesteps=1 must be ≥ 2"),
        (lambda: schedules.edm(sigma_min=2.0, sigma_max=1.0), "sigma_min=2.0, sigma_max=1.0 must satisfy"),
        (lambda: schedules.edm(sigma_max=np.inf), "sigma_max=inf must satisfy"),
        (lambda: timesteps.flow(SCHEDULES["flow"], 10, shift=-1.0), "shift=-1.0 must be > 0"),
        (lambda: timesteps.flow(SCHEDULES["flow"], 0), "num_steps=0 must be a whole number ≥ 1"),
        (lambda: timesteps.flow(SCHEDULES["flow"], 10, sigma_min=-1.0), "sigma_min=-1.0, sigma_max=inf must satisfy"),
        (lambda: timesteps.flow(SCHEDULES["edm"], 10, sigma_max=90.0), "must be within 0 … 80"),
        (lambda: timesteps.flow(SCHEDULES["edm"], 10, end=1), "end=1 is not one of"),
        (lambda: parameterization.from_edm(velocity, WIDE, sigma_data=0.0), "sigma_data=0.0 must be > 0"),
        (lambda: parameterization.from_target(velocity, WIDE, "velocity"), "target='velocity' is not one of 'eps'"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# Training.


def hand_edm(schedule, scale, x0, t, noise):
    """λ(σ)·|D - x_0|² (Karras et al. 2022, Eq. 2 and Table 1) of the network F = scale·sin(x)·(1 + t/1000)."""
    sigma = np.sqrt(1 / schedule.alpha_bar_at(t) - 1)[:, None]
    total = np.sqrt(sigma**2 + SIGMA_DATA**2)
    y = x0 + sigma * noise
    denoised = (SIGMA_DATA / total) ** 2 * y + sigma * SIGMA_DATA / total * scale * np.sin(y / total) * (
        1 + t[:, None] / 1000
    )
    weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
    return np.mean(weight * (denoised - x0) ** 2, axis=1)


def hand_flow(schedule, scale, x0, t, noise):
    """|v̂ - (ε - x_0)|² at (1-u)·x_0 + u·ε."""
    sigma = np.sqrt(1 / schedule.alpha_bar_at(t) - 1)[:, None]
    u = sigma / (1 + sigma)
    output = scale * np.sin((1 - u) * x0 + u * noise) * (1 + t[:, None] / 1000)
    return np.mean((output - (noise - x0)) ** 2, axis=1)


@pytest.mark.parametrize("t", [np.array([0, 3, 500, 700, 998]), np.array([0.5, 3.25, 500.75, 700.0, 998.0])])
@pytest.mark.parametrize(("target", "hand"), [("edm", hand_edm), ("flow", hand_flow)])
@pytest.mark.parametrize("name", ["edm", "linear"])
def test_losses_and_gradients_are_the_papers(name, target, hand, t):
    schedule = SCHEDULES[name]
    x0, noise = np.sin(np.arange(15.0)).reshape(5, 3), np.cos(3 * np.arange(15.0)).reshape(5, 3)
    weights = losses.weights(schedule, "simple", target=target, sigma_data=SIGMA_DATA)

    def loss(scale):
        return losses.denoising(
            schedule,
            lambda x, t: scale * jnp.sin(x) * (1 + t[:, None] / 1000),
            x0,
            t,
            noise,
            target=target,
            weights=weights,
            sigma_data=SIGMA_DATA,
        )

    np.testing.assert_allclose(loss(0.7), hand(schedule, 0.7, x0, t, noise), rtol=1e-8)
    # The loss is a square in the scale, so central differences are exact.
    slope = (hand(schedule, 1.7, x0, t, noise) - hand(schedule, -0.3, x0, t, noise)) / 2
    np.testing.assert_allclose(jax.jacobian(loss)(0.7), slope, rtol=1e-7)


def test_a_weight_between_timesteps_lies_between_theirs():
    schedule, t = SCHEDULES["linear"], np.array([10.0, 10.25])
    weights = losses.weights(schedule, "min_snr", target="x0")
    found = losses.denoising(
        schedule, lambda x, t: x * 0, jnp.ones((2, 3)), t, jnp.zeros((2, 3)), target="x0", weights=weights
    )
    np.testing.assert_allclose(found, [weights[10], 0.75 * weights[10] + 0.25 * weights[11]], rtol=1e-12)


@pytest.mark.parametrize("target", ["flow", "edm"])
def test_these_targets_have_no_learned_variance(target):
    with pytest.raises(ValueError, match=f"vlb_weight=0.1 must be 0 for target='{target}'"):
        losses.denoising(SCHEDULES["edm"], lambda x, t: x, X, np.zeros(5, int), X, target=target, vlb_weight=0.1)
    with pytest.raises(ValueError, match=f"given='{target}' is not one of 'eps', 'x0', 'v'"):
        parameterization.from_target(velocity, WIDE, target, variance="learned_range")
