import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import process, schedules

SCHEDULE = schedules.linear(50, beta_start=1e-3, beta_end=0.3)
T = np.array([0, 1, 20, 49])


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


def test_under_jit_with_a_traced_timestep():
    x0, eps = draw(0, jnp.float32), draw(1, jnp.float32)
    jitted = jax.jit(lambda t: process.q_sample(SCHEDULE, x0, t, eps))(jnp.asarray(T))
    np.testing.assert_allclose(jitted, process.q_sample(SCHEDULE, x0, T, eps), rtol=1e-6)


@pytest.mark.parametrize("t", [-2, 50, np.array([0, 1, 2, 50])])
def test_timestep_out_of_range(t):
    with pytest.raises(ValueError, match="allowed is -1 … 49"):
        process.q_sample(SCHEDULE, jnp.zeros((4, 2)), t, jnp.zeros((4, 2)))


def test_what_has_no_value_at_clean_data():
    x = jnp.zeros((4, 2))
    with pytest.raises(ValueError, match="allowed is 0 … 49"):
        process.q_posterior(SCHEDULE, x, x, -1)
    with pytest.raises(ValueError, match="allowed is 0 … 49"):
        process.predict_eps(SCHEDULE, x, -1, x)


def test_timesteps_of_another_batch():
    with pytest.raises(ValueError, match=r"t of shape \(3,\) against x of shape \(4, 2\)"):
        process.q_sample(SCHEDULE, jnp.zeros((4, 2)), np.zeros(3, int), jnp.zeros((4, 2)))
