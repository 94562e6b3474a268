import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy import integrate, special, stats

from diffjax import likelihood, parameterization, process, sampling, schedules
from diffjax.noise import sample_keys, sample_noise

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


def bound_gap(variance, make, num_timesteps):
    """By how much the bound exceeds the code length of Gaussian data itself: mean and standard error, bits/dim."""
    x0, log_prob = eight_bit((100, 100))
    schedule = schedules.respace(schedules.linear(1000), np.linspace(0, 999, num_timesteps).astype(int))
    bound = likelihood.bound(schedule, make(schedule, 0.1, 0.25), x0, jax.random.key(0), variance=variance)
    return likelihood.mean_and_error(bound.total + np.mean(log_prob, axis=1))


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_bound_exceeds_the_entropy_by_less_the_longer_the_chain(x64, variance):
    (coarse, _), (middle, _), (fine, error) = (bound_gap(variance, gaussian, count) for count in (10, 40, 160))
    assert coarse > 3 * middle > 9 * fine > 27 * error


def test_bound_is_the_entropy_where_the_variance_is_right_too(x64):
    gap, error = bound_gap("learned_range", gaussian_with_variance, 20)
    assert abs(gap) < 3 * error
    assert error < 0.015


@pytest.mark.parametrize("variance", likelihood.VARIANCES)
def test_bound_is_the_sum_of_its_terms(x64, variance):
    x0, _ = eight_bit((3, 2, 2))
    predict, keys = gaussian_with_variance(SCHEDULE, 0.0, 0.3), sample_keys(0, 0, 3)
    bound = likelihood.bound(SCHEDULE, predict, x0, keys, variance=variance, clip=0.4)
    small, large = SCHEDULE.posterior_log_variance, np.log(SCHEDULE.betas)
    for t in range(10):
        noise = sample_noise(keys, t, (2, 2), x0.dtype)
        ts = np.full(3, t)
        x_t = process.q_sample(SCHEDULE, x0, ts, noise)
        start, eps, frac = predict(x_t, ts)
        clipped = jnp.clip(start, -0.4, 0.4)
        mean, _, _ = process.q_posterior(SCHEDULE, clipped, x_t, ts)
        log_var = {
            "fixed_small": small[t],
            "fixed_large": large[t] if t else small[1],
            "learned": frac,
            "learned_range": small[t] + frac * (large[t] - small[t]),
        }[variance]
        expected = likelihood.bound_term(SCHEDULE, x0, x_t, ts, mean, jnp.broadcast_to(log_var, x0.shape))
        np.testing.assert_allclose(bound.terms[t], expected, rtol=1e-9)
        np.testing.assert_allclose(bound.eps_mse[t], np.mean((eps - noise) ** 2, axis=(1, 2)))
        np.testing.assert_allclose(bound.x0_mse[t], np.mean((clipped - x0) ** 2, axis=(1, 2)))
    # KL(N(√ᾱ·x0, 1-ᾱ) ‖ N(0, 1)), written out.
    ab = SCHEDULE.alpha_bars[-1]
    prior = np.mean(ab * x0**2 - ab - np.log1p(-ab), axis=(1, 2)) / (2 * np.log(2))
    np.testing.assert_allclose(bound.prior, prior, rtol=1e-9)
    np.testing.assert_allclose(bound.total, prior + np.sum(bound.terms, axis=0), rtol=1e-9)


def test_bound_of_a_network_that_knows_the_image():
    x0, _ = eight_bit((2, 5))
    schedule = schedules.zero_terminal_snr(schedules.linear(50))
    predict = parameterization.from_x0(Partial(lambda x0, x, t: x0, x0), schedule)
    bound = likelihood.bound(schedule, predict, x0, jax.random.key(0))
    np.testing.assert_allclose(bound.terms[1:], 0, atol=1e-5)
    np.testing.assert_allclose(bound.prior, 0, atol=1e-7)
    std = np.sqrt(schedule.posterior_variance[1])
    inner = -np.log2(special.ndtr(1 / 255 / std) - special.ndtr(-1 / 255 / std))
    np.testing.assert_allclose(bound.total, inner, rtol=1e-4)  # none of these pixels is 0 or 255


def test_an_image_has_its_bound_in_any_batch():
    x0, _ = eight_bit((7, 4))
    keys = sample_keys(3, 0, 7)

    predict = gaussian(SCHEDULE, 0.1, 0.3)
    together = likelihood.bound(SCHEDULE, predict, x0, keys)
    for n in (0, 6):
        alone = likelihood.bound(SCHEDULE, predict, x0[n : n + 1], keys[n : n + 1])
        for got, wanted in zip(alone, together, strict=True):
            np.testing.assert_allclose(got[..., 0], wanted[..., n], rtol=2e-5)


def test_new_parameters_compile_nothing(count_compilations):
    x0, _ = eight_bit((3, 4))
    keys = sample_keys(3, 0, 3)
    first = gaussian(SCHEDULE, 0.1, 0.3)
    other = Partial(first.func, (jnp.asarray(0.3), jnp.asarray(0.2)), *first.args[1:])
    for run in (likelihood.bound, likelihood.exact):
        before = run(SCHEDULE, first, x0, keys)
        assert count_compilations() > 0
        after = run(SCHEDULE, other, x0, keys)
        assert count_compilations() == 0
        assert not np.array_equal(before[0], after[0])


@pytest.mark.parametrize(
    ("schedule", "predict", "options", "words"),
    [
        (SCHEDULE, gaussian(SCHEDULE, 0, 1), {"variance": "small"}, "variance='small' is not one of 'fixed_small'"),
        (SCHEDULE, gaussian(SCHEDULE, 0, 1), {"variance": "learned_range"}, "that returns a Prediction with log_var"),
        (schedules.jsd(5), gaussian(SCHEDULE, 0, 1), {}, "alpha_bar ends at 0"),
        (SCHEDULE, gaussian(SCHEDULE, 0, 1), {"clip": 0}, "clip=0 must be > 0"),
    ],
)
def test_bad_input_of_the_bound(schedule, predict, options, words):
    with pytest.raises(ValueError, match=words):
        likelihood.bound(schedule, predict, jnp.ones((2, 3)), jax.random.key(0), **options)


def flow_log_prob(schedule, x0, mean, std):
    """log of the density that N(0, 1) at T-1 has at x0 by the flow of N(mean, std²), which is affine: float64."""
    ab = schedule.alpha_bars[[0, -1]]
    first, last = np.sqrt(ab * std**2 + 1 - ab)
    latent = np.sqrt(ab[1]) * mean + (np.asarray(x0, np.float64) - mean) * np.sqrt(ab[0]) * last / first
    return np.sum(stats.norm.logpdf(latent) + np.log(np.sqrt(ab[0]) * last / first), axis=1)


@pytest.mark.parametrize("make", [schedules.linear, schedules.cosine])
@pytest.mark.parametrize(("double", "tolerance", "within"), [(False, 1e-6, 1e-4), (True, 1e-10, 1e-8)])
def test_exact_likelihood_of_gaussian_data(make, double, tolerance, within):
    schedule = make(1000)
    with jax.enable_x64(double):
        x0 = 0.1 + 0.3 * jax.random.normal(jax.random.key(1), (4, 6))
        result = likelihood.exact(
            schedule, gaussian(schedule, 0.1, 0.3), x0, probes=None, dequantize=False, rtol=tolerance, atol=tolerance
        )
        np.testing.assert_allclose(
            result.log_prob / (6 * np.log(2)), flow_log_prob(schedule, x0, 0.1, 0.3) / (6 * np.log(2)), atol=within
        )
        np.testing.assert_allclose(result.bits_per_dim, -result.log_prob / (6 * np.log(2)) + np.log2(127.5), rtol=1e-5)
    assert result.start == pytest.approx(np.sqrt(1 / schedule.alpha_bars[0] - 1))


@pytest.mark.parametrize(("double", "within"), [(False, 1e-4), (True, 1e-8)])
def test_exact_likelihood_is_that_of_the_data_with_the_first_noise(double, within):
    # At the last level this schedule holds so little signal that N(0, 1) is right to 1e-9.
    schedule = schedules.linear(4000)
    tolerance = 1e-10 if double else 1e-6
    with jax.enable_x64(double):
        x0 = 0.1 + 0.3 * jax.random.normal(jax.random.key(1), (4, 6))
        result = likelihood.exact(
            schedule, gaussian(schedule, 0.1, 0.3), x0, probes=None, dequantize=False, rtol=tolerance, atol=tolerance
        )
    std = np.hypot(0.3, result.start)
    wanted = np.sum(stats.norm(0.1, std).logpdf(np.asarray(x0, np.float64)), axis=1)
    np.testing.assert_allclose(np.asarray(result.log_prob) / (6 * np.log(2)), wanted / (6 * np.log(2)), atol=within)


def correlated(schedule, root):
    """The best ε̂ for N(0, root·rootᵀ)."""
    values, vectors = np.linalg.eigh(root @ root.T)

    def predict(values, vectors, scales, x, t):
        signal, noise = process.scales_at(scales, x, t)
        return (x @ vectors) * noise / (signal**2 * values + noise**2) @ vectors.T

    return Partial(predict, values, vectors, process.Scales.of(schedule))


def test_probes_are_exact_for_a_diagonal_and_unbiased_elsewhere(x64):
    schedule = schedules.linear(100, per_thousand=True)
    root = np.array([[0.5, 0.3, 0.0], [0.0, 0.2, -0.3], [0.2, 0.0, 0.6]])
    x0 = jnp.tile(jnp.array([[0.3, -0.2, 0.1]]), (200, 1))
    options = {"dequantize": False}
    predict = gaussian(schedule, 0.1, jnp.array([0.3, 0.5, 0.1]))
    one, trace = (
        likelihood.exact(schedule, predict, x0[:2], jax.random.key(2), probes=probes, **options) for probes in (1, None)
    )
    np.testing.assert_allclose(one.log_prob, trace.log_prob, atol=1e-5)
    predict = correlated(schedule, root)
    trace = likelihood.exact(schedule, predict, x0[:1], probes=None, **options)
    # The density itself, with the first noise; what N(0, I) is off by at T-1 stays under 1e-4.
    data = stats.multivariate_normal(cov=root @ root.T + trace.start**2 * np.eye(3))
    np.testing.assert_allclose(trace.log_prob[0], data.logpdf(x0[0]), atol=1e-3)
    spreads = []
    for distribution, probes in (("rademacher", 1), ("gaussian", 1), ("gaussian", 4)):
        result = likelihood.exact(
            schedule, predict, x0, jax.random.key(2), probes=probes, distribution=distribution, **options
        )
        mean, error = likelihood.mean_and_error(result.log_prob)
        assert abs(mean - trace.log_prob[0]) < 3 * error
        spreads.append(error)
    assert 0 < spreads[0] < spreads[1]  # Rademacher probes see no error on the diagonal
    assert spreads[2] == pytest.approx(spreads[1] / 2, rel=0.2)


def test_dequantized_likelihood_nears_the_entropy(x64):
    x0, log_prob = eight_bit((200, 50))
    schedule = schedules.linear(2000, beta_start=1e-6)
    result = likelihood.exact(schedule, gaussian(schedule, 0.1, 0.25), x0, jax.random.key(0))
    mean, error = likelihood.mean_and_error(np.asarray(result.bits_per_dim) + np.mean(log_prob, axis=1))
    assert abs(mean) < 3 * error < 2e-3


def test_noise_is_per_sample_and_results_agree_between_batches():
    x0, _ = eight_bit((5, 4))
    keys = sample_keys(1, 0, 5)
    schedule = schedules.linear(100, per_thousand=True)
    predict = correlated(schedule, np.eye(4) + 0.1)
    together = likelihood.exact(schedule, predict, x0, keys, probes=2)
    alone = likelihood.exact(schedule, predict, x0[3:4], keys[3:4], probes=2)
    np.testing.assert_allclose(alone.bits_per_dim, together.bits_per_dim[3:4], atol=1e-5)


@pytest.mark.parametrize("target", ["x0", "v"])
def test_exact_likelihood_of_networks_with_another_target(target):
    schedule = schedules.linear(1000)
    eps = gaussian(schedule, 0.1, 0.3)

    def network(eps, scales, x, t):
        return process.convert(scales, x, t, eps(x, t), given="eps", wanted=target)

    predict = parameterization.from_target(Partial(network, eps, process.Scales.of(schedule)), schedule, target)
    x0, _ = eight_bit((3, 4))
    wanted, got = (
        likelihood.exact(schedule, p, x0, probes=None, dequantize=False).bits_per_dim for p in (eps, predict)
    )
    np.testing.assert_allclose(got, wanted, atol=2e-5)


@pytest.mark.parametrize(
    ("schedule", "options", "words"),
    [
        (schedules.jsd(5), {}, "alpha_bar > 0 at the last"),
        (SCHEDULE, {"probes": 0}, "probes=0 must be ≥ 1"),
        (SCHEDULE, {"distribution": "uniform"}, "distribution='uniform' is not one of 'rademacher', 'gaussian'"),
        (SCHEDULE, {"key": None}, "pass key"),
        (SCHEDULE, {"max_steps": 3}, "max_steps=3 is too small to reach the last timestep"),
    ],
)
def test_bad_input_of_the_exact_likelihood(schedule, options, words):
    options = {"key": jax.random.key(0), **options}
    with pytest.raises(ValueError, match=words):
        likelihood.exact(schedule, gaussian(SCHEDULE, 0.0, 1.0), jnp.ones((2, 3)), **options)


def test_missing_diffrax_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(ImportError, match=r"needs diffrax: pip install '.\[likelihood\]'"):
        likelihood.exact(SCHEDULE, gaussian(SCHEDULE, 0.0, 1.0), jnp.ones((2, 3)), jax.random.key(0))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (lambda pixels: pixels / 255.0, r"within 0 … 1, not all of them multiples of 1/127.5"),
        (lambda pixels: 1.0 * pixels, r"within 0 … 255$"),
        (lambda pixels: pixels / 255.0 - 0.5, r"within -0.5 … 0.5, not all"),
        (lambda pixels: pixels / 100.0 - 1.0, r"within -1 … 1.55$"),
    ],
)
def test_images_of_another_range_would_give_plausible_wrong_numbers(images, words):
    x0 = images(jnp.arange(256).reshape(4, 64))
    words = r"x0 must be 8-bit images in \[-1, 1\], made by pixels / 127.5 - 1; these have values " + words
    predict = gaussian(SCHEDULE, 0.0, 1.0)
    with pytest.raises(ValueError, match=words):
        likelihood.bound(SCHEDULE, predict, x0, jax.random.key(0))
    with pytest.raises(ValueError, match=words):
        likelihood.exact(SCHEDULE, predict, x0, jax.random.key(0))
