import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy import integrate, special, stats

from diffjax import guidance, likelihood, process, sampling, schedules

SCHEDULE = schedules.linear(10)
PIXELS = np.arange(256) / 127.5 - 1


@pytest.mark.parametrize(
    ("m1", "s1", "m2", "s2"), [(0.3, 0.5, -0.2, 0.7), (0.0, 1.0, 0.0, 1.0), (1.0, 0.02, 1.01, 0.01)]
)
def test_kl_is_the_integral(x64, m1, s1, m2, s2):
    p, q = stats.norm(m1, s1), stats.norm(m2, s2)
    edges = m1 - 12 * s1, m1 + 12 * s1
    expected, _ = integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), *edges, epsabs=1e-13, epsrel=1e-12)
    kl = likelihood.normal_kl(m1, 2 * jnp.log(s1), m2, 2 * jnp.log(s2))
    assert float(kl) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_kl_of_near_equals_keeps_its_digits_in_float32():
    ratio = np.array([1e-3, -2e-3, 0.05])
    exact = 0.5 * (np.expm1(ratio) - ratio)
    kl = likelihood.normal_kl(
        jnp.float32(2.0), jnp.asarray(ratio, jnp.float32) - 9, jnp.float32(2.0), jnp.float32(-9.0)
    )
    np.testing.assert_allclose(kl, exact, rtol=5e-3)  # -9 + 1e-3 itself is rounded


@pytest.mark.parametrize("log_var", [-12.0, -9.2, -4.0, 0.0, 3.0])
@pytest.mark.parametrize("mean", [-1.3, -1.0, 0.001, 0.8])
def test_256_bins_hold_a_mass_of_one(x64, mean, log_var):
    log_prob = likelihood.discretized_gaussian_log_prob(jnp.asarray(PIXELS), mean, log_var)
    assert float(jnp.sum(jnp.exp(log_prob))) == pytest.approx(1, abs=1e-12)
    # Each is the integral of the density over its bin.
    edges = np.concatenate([[-np.inf], PIXELS[1:] - 1 / 255, [np.inf]])
    mass = np.diff(special.ndtr((edges - mean) * np.exp(-log_var / 2)))
    np.testing.assert_allclose(np.exp(log_prob), mass, atol=1e-13)


@pytest.mark.parametrize("log_var", [-9.2, -4.0, 0.0])
def test_float32_keeps_the_tails_and_has_gradients_there(log_var):
    mean = np.float32(0.2)
    with jax.enable_x64(True):
        exact = likelihood.discretized_gaussian_log_prob(jnp.asarray(PIXELS), float(mean), log_var)
    single = jnp.asarray(PIXELS, jnp.float32)
    got = likelihood.discretized_gaussian_log_prob(single, mean, log_var)
    exact = np.asarray(exact)
    assert np.min(exact) < -1000 or log_var > -5  # far out
    np.testing.assert_allclose(got, exact, rtol=1e-4, atol=1e-4)
    gradient = jax.grad(lambda m, v: jnp.sum(likelihood.discretized_gaussian_log_prob(single, m, v)), (0, 1))
    assert np.all(np.isfinite(gradient(mean, jnp.float32(log_var))))


def test_bound_is_zero_for_the_posterior_itself_and_known_beside_it(x64):
    x0 = jnp.asarray(PIXELS[[3, 250, 100, 0]]).reshape(2, 2)
    t = np.array([1, 9])
    x_t = process.q_sample(SCHEDULE, x0, t, jax.random.normal(jax.random.key(0), x0.shape))
    mean, var, log_var = process.q_posterior(SCHEDULE, x0, x_t, t)
    log_var = jnp.broadcast_to(log_var, x0.shape)
    np.testing.assert_allclose(likelihood.bound_term(SCHEDULE, x0, x_t, t, mean, log_var), 0, atol=1e-12)
    off = likelihood.bound_term(SCHEDULE, x0, x_t, t, mean + 0.1, log_var)
    np.testing.assert_allclose(off, 0.1**2 / (2 * var[:, 0]) / np.log(2), rtol=1e-9)


def test_bound_at_0_is_the_decoder_in_bits(x64):
    x0 = jnp.asarray(PIXELS[[3, 250, 100, 0]]).reshape(1, 4)
    mean, log_var = x0 + 0.002, jnp.full((1, 4), -8.0)
    term = likelihood.bound_term(SCHEDULE, x0, x0, np.array([0]), mean, log_var)
    expected = -np.mean(likelihood.discretized_gaussian_log_prob(x0, mean, log_var)) / np.log(2)
    assert float(term[0]) == pytest.approx(expected)


def gaussian(schedule, mean, std):
    """The best ε̂ for data N(mean, std²), whole t or fractional; mean and std are scalars, or one an element."""

    def predict(parameters, scales, x, t):
        signal, noise = process.scales_at(scales, x, t)
        mean, std = parameters
        return noise * (x - signal * mean) / (signal**2 * std**2 + noise**2)

    return Partial(predict, (jnp.asarray(mean), jnp.asarray(std)), process.Scales.of(schedule))


def gaussian_with_variance(schedule, mean, std):
    """`gaussian` with the variance of its own p(x_{t-1} | x_t): β̃ and what x_0 is uncertain by."""
    posterior = 1 / (1 / std**2 + schedule.alpha_bars / (1 - schedule.alpha_bars))
    variance = schedule.posterior_variance + schedule.posterior_mean_coef_x0**2 * posterior
    low = schedule.posterior_log_variance
    frac = (np.log(variance) - low) / (np.log(schedule.betas) - low)

    def predict(eps, scales, frac, x, t):
        eps = eps(x, t)
        return sampling.Prediction(
            process.predict_x0(scales, x, t, eps), eps, jnp.broadcast_to(process.lookup(frac, t, x), x.shape)
        )

    return Partial(predict, gaussian(schedule, mean, std), process.Scales.of(schedule), frac)


def eight_bit(shape, mean=0.1, std=0.25):
    """Pixels of N(mean, std²) in 8 bits, and log2 of the probability of each value."""
    edges = np.concatenate([[-np.inf], PIXELS[1:] - 1 / 255, [np.inf]])
    mass = np.diff(stats.norm(mean, std).cdf(edges))
    values = np.random.default_rng(0).choice(256, shape, p=mass)
    return jnp.asarray(PIXELS[values]), np.log2(mass)[values]


def test_bound_exceeds_the_entropy_by_less_the_longer_the_chain(x64):
    x0, log_prob = eight_bit((100, 100))
    for variance in ("fixed_small", "fixed_large", "learned_range"):
        gaps = []
        for num_timesteps in (10, 40, 160):
            schedule = schedules.respace(schedules.linear(1000), np.linspace(0, 999, num_timesteps).astype(int))
            make = gaussian_with_variance if variance == "learned_range" else gaussian
            bound = likelihood.bound(schedule, make(schedule, 0.1, 0.25), x0, jax.random.key(0), variance=variance)
            # What the bound is too long by, image by image: their own code lengths vary more.
            gaps.append(likelihood.mean_and_error(bound.total + np.mean(log_prob, axis=1)))
        print(variance, gaps)
