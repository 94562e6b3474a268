import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffjax import editing, process, samplers, schedules, timesteps

SCHEDULE = schedules.linear(50, beta_start=1e-3, beta_end=0.3)
TABLE = samplers.ddim(SCHEDULE, timesteps.trailing(50, 5))
ZERO_SNR = schedules.from_betas([0.1, 0.5, 1.0])
T = np.array([0, 1, 20, 49])
KINDS = ["eps", "x0", "v", "score"]


def draw(seed, dtype=jnp.float64):
    return jax.random.normal(jax.random.key(seed), (4, 3, 3, 2), dtype)


@pytest.mark.usefixtures("x64")
def test_q_sample_is_the_chain_of_single_noisings():
    # x_{t} = √α_t x_{t-1} + √β_t ε_t, step by step, has the mean scale and the variance that q_sample uses.
    scale, variance = 1.0, 0.0
    for t, beta in enumerate(SCHEDULE.betas):
        scale, variance = np.sqrt(1 - beta) * scale, (1 - beta) * variance + beta
        x_t = process.q_sample(SCHEDULE, jnp.ones((1, 2)), t, jnp.array([[0.0, 1.0]]))
        np.testing.assert_allclose(x_t[0], [scale, scale + np.sqrt(variance)], rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_q_mean_variance():
    x0 = draw(0)
    mean, variance, log_variance = process.q_mean_variance(SCHEDULE, x0, T)
    np.testing.assert_allclose(mean, process.q_sample(SCHEDULE, x0, T, jnp.zeros_like(x0)), rtol=1e-15)
    np.testing.assert_allclose(variance[:, 0, 0, 0], 1 - SCHEDULE.alpha_bars[T], rtol=1e-15)
    np.testing.assert_allclose(np.exp(log_variance), variance, rtol=1e-13)


@pytest.mark.usefixtures("x64")
def test_q_posterior_is_bayes_rule():
    x0, x_t = draw(0), draw(1)
    mean, variance, log_variance = process.q_posterior(SCHEDULE, x0, x_t, T)
    for n, t in enumerate(T):
        if t == 0:
            np.testing.assert_allclose(mean[n], x0[n], rtol=1e-12)
            assert variance[n].item() == 0
            continue
        alpha, beta, ab_prev = SCHEDULE.alphas[t], SCHEDULE.betas[t], SCHEDULE.alpha_bars[t - 1]
        # q(x_{t-1} | x_0) · q(x_t | x_{t-1}), both Gaussian in x_{t-1}.
        precision = 1 / (1 - ab_prev) + alpha / beta
        expected = (np.sqrt(ab_prev) * x0[n] / (1 - ab_prev) + np.sqrt(alpha) * x_t[n] / beta) / precision
        np.testing.assert_allclose(variance[n].item(), 1 / precision, rtol=1e-12)
        np.testing.assert_allclose(mean[n], expected, rtol=1e-12)
        np.testing.assert_allclose(np.exp(log_variance[n].item()), 1 / precision, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_x0_and_eps_are_inverse_to_each_other():
    x0, eps = draw(0), draw(1)
    x_t = process.q_sample(SCHEDULE, x0, T, eps)
    np.testing.assert_allclose(process.predict_x0(SCHEDULE, x_t, T, eps), x0, rtol=1e-11)
    np.testing.assert_allclose(process.predict_eps(SCHEDULE, x_t, T, x0), eps, rtol=1e-11)


def test_clean_data_is_index_minus_one():
    x0, eps = draw(0, jnp.float32), draw(1, jnp.float32)
    np.testing.assert_array_equal(process.q_sample(SCHEDULE, x0, -1, eps), x0)
    np.testing.assert_array_equal(process.predict_x0(SCHEDULE, x0, -1, eps), x0)
    mean, variance, _ = process.q_mean_variance(SCHEDULE, x0, -1)
    np.testing.assert_array_equal(mean, x0)
    assert variance.item() == 0


def test_tables_keep_float64_accuracy_in_float32():
    # In float32 arithmetic, √(1-ᾱ_0) of DDPM's schedule would be wrong by 8e-5.
    schedule = schedules.linear()
    x_t = process.q_sample(schedule, jnp.zeros((1, 1)), 0, jnp.ones((1, 1)))
    assert x_t.dtype == jnp.float32
    np.testing.assert_allclose(x_t.item(), 0.01, rtol=1e-7)


def test_a_timestep_that_jit_closes_over_is_known():
    x, t = jnp.ones((2, 1)), jnp.array([3, 49])
    found = jax.jit(lambda x: process.q_sample(SCHEDULE, x, t, x))(x)
    np.testing.assert_allclose(found, process.q_sample(SCHEDULE, x, t, x), rtol=1e-6)
    beyond = t + 1
    with pytest.raises(ValueError, match="timestep 4 … 50 is out of range"):
        jax.jit(lambda x: process.q_sample(SCHEDULE, x, beyond, x))(x)


@pytest.mark.usefixtures("x64")
def test_between_timesteps_the_log_snr_is_linear():
    x = jnp.zeros((3, 1, 1))
    signal, noise = process.scales_at(SCHEDULE, x, np.array([0.0, 3.25, 49.0]))
    log_snr = SCHEDULE.log_snr[[0, 3, 49]] + [0, 0.25 * (SCHEDULE.log_snr[4] - SCHEDULE.log_snr[3]), 0]
    assert signal.shape == noise.shape == x.shape
    np.testing.assert_allclose(2 * np.log(signal / noise).ravel(), log_snr, rtol=1e-11)
    np.testing.assert_allclose(signal**2 + noise**2, 1, rtol=1e-14)
    end = process.scales_at(schedules.jsd(5), x, jnp.array([4.0, 3.0, 3.5]))
    np.testing.assert_allclose(
        np.ravel(end), [0, np.sqrt(0.2), np.sqrt(1 / 17), 1, np.sqrt(0.8), np.sqrt(16 / 17)], atol=1e-12
    )
    for t in (-1.5, 49.5):
        with pytest.raises(ValueError, match="out of range"):
            process.scales_at(SCHEDULE, x, t)
        assert np.all(np.isnan(jax.jit(lambda t: process.scales_at(SCHEDULE, x, t))(t)))
    with pytest.raises(ValueError, match="whole timesteps only"):
        process.q_posterior(SCHEDULE, x, x, 0.5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("schedule", [SCHEDULE, schedules.jsd(50)], ids=["linear", "ends at 0"])
def test_real_times_are_the_same_on_host_and_device(schedule):
    t = np.append(np.linspace(-1, 49, 173), [-0.5, 48.25])
    alpha_bar = schedule.alpha_bar_at(t)
    signal, noise = process.scales_at(schedule, jnp.zeros((len(t), 1)), t)
    np.testing.assert_allclose(signal[:, 0] ** 2, alpha_bar, rtol=1e-12)
    np.testing.assert_allclose(noise[:, 0] ** 2, 1 - alpha_bar, rtol=1e-9, atol=1e-15)
    assert np.all(np.diff(alpha_bar[:173]) < 0)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(schedule.timestep_at(np.sqrt((1 - alpha_bar) / alpha_bar)), t, rtol=1e-9, atol=1e-9)
    whole = np.arange(-1, 50)
    np.testing.assert_array_equal(schedule.alpha_bar_at(whole.astype(float)), schedule.alpha_bar_at(whole))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("given", "wanted"), list(itertools.permutations(KINDS, 2)))
def test_conversions_at_whole_timesteps_given_as_floats(given, wanted):
    x_t, value = draw(0), draw(1)
    whole, floats = (
        process.convert(SCHEDULE, x_t, t, value, given=given, wanted=wanted) for t in (T, T.astype(np.float64))
    )
    np.testing.assert_allclose(floats, whole, rtol=1e-9)


def test_under_jit_with_a_traced_timestep():
    x0, eps = draw(0, jnp.float32), draw(1, jnp.float32)
    jitted = jax.jit(lambda t: process.q_sample(SCHEDULE, x0, t, eps))(jnp.asarray(T))
    np.testing.assert_allclose(jitted, process.q_sample(SCHEDULE, x0, T, eps), rtol=1e-6)


def all_kinds(schedule, x0, t, eps):
    """One belief about x_t in every parameterisation, written here from the definitions."""
    ab = schedule.alpha_bar_at(t).reshape(-1, *[1] * (x0.ndim - 1))
    v = np.sqrt(ab) * eps - np.sqrt(1 - ab) * x0
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"eps": eps, "x0": x0, "v": v, "score": -eps / np.sqrt(1 - ab)}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("given", "wanted"), list(itertools.product(KINDS, KINDS)))
def test_every_conversion_is_what_the_definitions_say(given, wanted):
    x0, eps = draw(0), draw(1)
    kinds = all_kinds(SCHEDULE, x0, T, eps)
    x_t = process.q_sample(SCHEDULE, x0, T, eps)
    converted = process.convert(SCHEDULE, x_t, T, kinds[given], given=given, wanted=wanted)
    np.testing.assert_allclose(converted, kinds[wanted], rtol=1e-11, atol=1e-11)


@given(
    pair=st.sampled_from(list(itertools.permutations(KINDS, 2))),
    t=st.integers(0, 49),
    x_t=st.floats(-10, 10),
    value=st.floats(-10, 10),
)
def test_there_and_back(pair, t, x_t, value):
    # For any value, also one that no x_0 and ε of unit size led to.
    given, wanted = pair
    with jax.enable_x64(True):
        x_t, value = jnp.full((1, 1), x_t), jnp.full((1, 1), value)
        there = process.convert(SCHEDULE, x_t, t, value, given=given, wanted=wanted)
        back = process.convert(SCHEDULE, x_t, t, there, given=wanted, wanted=given)
        np.testing.assert_allclose(back, value, rtol=1e-11, atol=1e-11)


@pytest.mark.usefixtures("x64")
def test_v_is_predict_v():
    x0, eps = draw(0), draw(1)
    np.testing.assert_allclose(
        process.predict_v(SCHEDULE, x0, T, eps), all_kinds(SCHEDULE, x0, T, eps)["v"], rtol=1e-12
    )
    # d x_t/dφ for the angle φ with cos φ = √ᾱ (Salimans & Ho 2022, App. D).
    angle = np.arccos(SCHEDULE.sqrt_alpha_bars[20])
    _, tangent = jax.jvp(lambda phi: jnp.cos(phi) * x0 + jnp.sin(phi) * eps, (angle,), (1.0,))
    np.testing.assert_allclose(process.predict_v(SCHEDULE, x0, 20, eps), tangent, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("given", "wanted"), [*itertools.product(["v", "x0"], KINDS), ("eps", "score"), ("score", "eps")]
)
def test_conversions_that_hold_where_alpha_bar_is_zero(given, wanted):
    x0, eps = draw(0)[:1], draw(1)[:1]  # there x_t = ε
    kinds = all_kinds(ZERO_SNR, x0, np.array([2]), eps)
    if given == "x0" and wanted == "v":
        np.testing.assert_array_equal(kinds["v"], -x0)
    converted = process.convert(ZERO_SNR, eps, 2, kinds[given], given=given, wanted=wanted)
    np.testing.assert_allclose(converted, kinds[wanted], rtol=1e-15)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("given", "wanted"), [("eps", "x0"), ("v", "x0"), ("v", "eps"), ("eps", "v"), ("score", "x0")])
def test_conversions_that_hold_at_clean_data(given, wanted):
    x0, eps = draw(0), draw(1)
    kinds = all_kinds(SCHEDULE, x0, np.array([-1]), eps) | {"score": draw(2)}
    converted = process.convert(SCHEDULE, x0, -1, kinds[given], given=given, wanted=wanted)
    np.testing.assert_array_equal(converted, kinds[wanted])


@pytest.mark.parametrize(("given", "wanted"), [("x0", "eps"), ("x0", "v"), ("eps", "score"), ("v", "score")])
def test_conversions_that_mean_nothing_at_clean_data(given, wanted):
    x = jnp.zeros((4, 2))
    with pytest.raises(ValueError, match="allowed is 0 … 49"):
        process.convert(SCHEDULE, x, -1, x, given=given, wanted=wanted)


def test_kinds_that_are_none():
    x = jnp.zeros((4, 2))
    with pytest.raises(ValueError, match="given='epsilon' is not one of 'eps', 'x0', 'v', 'score'"):
        process.convert(SCHEDULE, x, 0, x, given="epsilon", wanted="x0")
    with pytest.raises(ValueError, match="wanted='x_0' is not one of"):
        process.convert(SCHEDULE, x, 0, x, given="eps", wanted="x_0")


def test_scales_stand_for_a_schedule_in_jit():
    x0, eps = draw(0, jnp.float32), draw(1, jnp.float32)
    convert = jax.jit(process.convert, static_argnames=("given", "wanted"))
    x_t = process.q_sample(SCHEDULE, x0, T, eps)
    converted = convert(process.Scales.of(SCHEDULE), x_t, jnp.asarray(T), eps, given="eps", wanted="v")
    assert converted.dtype == jnp.float32
    np.testing.assert_allclose(converted, process.predict_v(SCHEDULE, x0, T, eps), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("t", [-2, 50, np.array([0, 1, 2, 50])])
def test_timestep_out_of_range(t):
    with pytest.raises(ValueError, match="allowed is -1 … 49"):
        process.q_sample(SCHEDULE, jnp.zeros((4, 2)), t, jnp.zeros((4, 2)))


def test_a_traced_timestep_out_of_range_gives_nan():
    # It cannot be refused, and must not quietly be another timestep.
    x = jnp.ones((5, 2))
    t = jnp.array([-2, -1, 49, 50, 51])
    finite = jnp.isfinite(jax.jit(process.q_sample, static_argnums=0)(SCHEDULE, x, t, x))
    np.testing.assert_array_equal(finite[:, 0], [False, True, True, False, False])
    finite = jnp.isfinite(jax.jit(process.predict_eps, static_argnums=0)(SCHEDULE, x, t, x))
    np.testing.assert_array_equal(finite[:, 0], [False, False, True, False, False])


def test_what_has_no_value_at_clean_data():
    x = jnp.zeros((4, 2))
    with pytest.raises(ValueError, match="allowed is 0 … 49"):
        process.q_posterior(SCHEDULE, x, x, -1)
    with pytest.raises(ValueError, match="allowed is 0 … 49"):
        process.predict_eps(SCHEDULE, x, -1, x)


def test_timesteps_of_another_batch():
    with pytest.raises(ValueError, match=r"t of shape \(3,\) against x of shape \(4, 2\)"):
        process.q_sample(SCHEDULE, jnp.zeros((4, 2)), np.zeros(3, int), jnp.zeros((4, 2)))


@pytest.mark.parametrize(
    "call",
    [
        lambda image: process.q_sample(SCHEDULE, image, jnp.zeros(2, int), jnp.zeros((2, 3))),
        lambda image: editing.image_to_image(SCHEDULE, TABLE, lambda x, t: x, image, jax.random.key(0)),
        lambda image: editing.inpaint(SCHEDULE, TABLE, lambda x, t: x, image, True, jax.random.key(0)),
    ],
)
def test_pixels_are_no_images_in_floats(call):
    with pytest.raises(ValueError, match="must be a float array, not uint8; pixels 0 … 255 become .* / 127.5 - 1"):
        call(jnp.zeros((2, 3), jnp.uint8))
