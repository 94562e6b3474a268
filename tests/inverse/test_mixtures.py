"""Exact mixtures: samples, network, density and posterior agree with each other."""

import jax
import numpy as np
import pytest

from diffjax import schedules
from diffjax.inverse import GaussianMixture, operators

SCHEDULE = schedules.linear(20, beta_start=0.01, beta_end=0.4)

pytestmark = pytest.mark.usefixtures("x64")


def mixture(size=3, modes=2, image_shape=None):
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(modes, size, size))
    return GaussianMixture.of(
        rng.random(modes) + 0.5, rng.normal(size=(modes, size)), factors @ factors.swapaxes(1, 2) / size, image_shape
    )


def log_density(weights, means, covariances, x):
    parts = []
    for weight, mean, covariance in zip(weights, means, covariances, strict=True):
        offset = x - mean
        parts.append(
            np.log(weight) - 0.5 * offset @ np.linalg.solve(covariance, offset)
            - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
        )  # fmt: skip
    return np.logaddexp.reduce(parts)


def test_samples_have_its_moments():
    data = mixture()
    x = np.asarray(data.sample(jax.random.key(0), 20_000))
    np.testing.assert_allclose(x.mean(0), data.mean(), atol=0.03)
    np.testing.assert_allclose(np.cov(x.T), data.covariance(), atol=0.06)
    np.testing.assert_allclose(np.mean(data.shares(x), axis=0), data.weights, atol=0.02)


def test_the_network_is_the_score():
    data = mixture()
    t, x = 7, np.array([0.3, -0.4, 0.9])
    signal, noise = SCHEDULE.sqrt_alpha_bars[t], SCHEDULE.sqrt_one_minus_alpha_bars[t]
    prediction = jax.jit(data.predict(SCHEDULE))(x[None], np.full(1, t))
    marginal = signal**2 * data.covariances + noise**2 * np.eye(3)

    def density(x):
        return log_density(data.weights, signal * data.means, marginal, x)

    step = 1e-5
    score = [(density(x + step * e) - density(x - step * e)) / (2 * step) for e in np.eye(3)]
    np.testing.assert_allclose(prediction.eps[0], -noise * np.array(score), atol=1e-8)
    np.testing.assert_allclose(
        signal * np.asarray(prediction.x0) + noise * np.asarray(prediction.eps), x[None], atol=1e-12
    )


def test_posterior_is_proportional_to_prior_times_likelihood():
    data = mixture(size=4, image_shape=(2, 2, 1))
    operator, std = operators.matrix([[1.0, 0.5, 0.0, -1.0], [0.0, 1.0, 1.0, 0.0]], (2, 2, 1)), 0.3
    y = np.array([0.2, -0.5])
    posterior = data.posterior(operator, y, std)
    weights = operators.as_matrix(operator)
    differences = []
    for x in np.random.default_rng(1).normal(size=(5, 4)):
        joint = (
            log_density(data.weights, data.means, data.covariances, x) - 0.5 * np.sum((y - weights @ x) ** 2) / std**2
        )
        differences.append(joint - log_density(posterior.weights, posterior.means, posterior.covariances, x))
    np.testing.assert_allclose(differences, differences[0], atol=1e-10)
    assert posterior.image_shape == (2, 2, 1)


def test_wrong_arguments():
    data = mixture()
    for make, words in (
        (lambda: GaussianMixture.of([1.0], np.zeros((1, 2)), np.eye(2)), r"must be \[K\], \[K, N\], \[K, N, N\]"),
        (lambda: GaussianMixture.of([0.0], np.zeros((1, 2)), np.eye(2)[None]), r"weights=\[0.0\] must be > 0"),
        (lambda: GaussianMixture.of([1.0], np.zeros((1, 2)), -np.eye(2)[None]), "positive semidefinite"),
        (lambda: GaussianMixture.of([1.0], np.zeros((1, 2)), [[[1.0, 0.5], [0.0, 1.0]]]), "must be symmetric"),
        (lambda: data.posterior(operators.matrix(np.eye(3), (3,)), np.zeros(3), 0.0), "noise_std=0.0 must be > 0"),
        (lambda: data.posterior(operators.matrix(np.eye(3), (3,)), np.zeros(2), 1.0), "y of 2 numbers have 3"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
