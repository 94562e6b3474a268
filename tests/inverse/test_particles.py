"""The twisted sampler's particles against exact posteriors, moments, evidence and weights of modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import inverse, samplers, schedules
from diffjax.inverse import operators

SCHEDULE = schedules.linear(40, beta_start=1e-3, beta_end=0.25)
GRID = np.arange(39, -2, -1)
STD = 0.5

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(scope="module")
def of_normal():
    """Particles for data N(0, I), from which `ddpm(fixed_large)` samples exactly, of two measurements."""
    with jax.enable_x64(True):
        data = inverse.GaussianMixture.of([1.0], np.zeros((1, 2)), np.eye(2)[None])
        operator = operators.matrix([[1.0, 0.5]], (2,))
        sampler = samplers.ddpm(SCHEDULE, GRID, variance="fixed_large")
        y = jnp.array([[0.8], [-2.0]])
        found = inverse.twisted(
            sampler, data.predict(SCHEDULE), operator, y, jax.random.key(0), noise_std=STD, num_particles=4000
        )
        return data, operator, y, found


def test_moments(of_normal):
    data, operator, y, found = of_normal
    np.testing.assert_allclose(jnp.sum(found.weights, axis=1), 1.0, rtol=1e-12)
    for x, weights, one in zip(found.x, found.weights, y, strict=True):
        exact = data.posterior(operator, one, STD)
        mean = weights @ x
        np.testing.assert_allclose(mean, exact.mean(), atol=0.06)
        np.testing.assert_allclose((x - mean).T * weights @ (x - mean), exact.covariance(), atol=0.08)


def test_evidence_and_effective_number(of_normal):
    _, operator, y, found = of_normal
    matrix = operators.as_matrix(operator)
    variance = (matrix @ matrix.T)[0, 0] + STD**2
    expected = -0.5 * (y[:, 0] ** 2 / variance + np.log(2 * np.pi * variance))
    np.testing.assert_allclose(found.log_evidence, expected, atol=0.06)
    assert found.effective.shape == (2, 41)
    assert np.all((found.effective > 400) & (found.effective < 4000.1))


def test_a_drawn_particle(of_normal):
    data, operator, y, found = of_normal
    drawn = jax.vmap(found.draw)(jax.random.split(jax.random.key(1), 1500))
    assert drawn.shape == (1500, 2, 2)
    for n in range(2):
        np.testing.assert_allclose(drawn[:, n].mean(0), data.posterior(operator, y[n], STD).mean(), atol=0.12)


def test_modes_have_their_weights():
    means = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    data = inverse.GaussianMixture.of([0.4, 0.3, 0.2, 0.1], means, np.stack([0.04 * np.eye(2)] * 4))
    operator, y = operators.matrix([[1.0, 0.2]], (2,)), np.array([0.4])
    exact = data.posterior(operator, y, STD)
    errors = []
    for count in (8, 3000):
        found = inverse.twisted(
            samplers.ddpm(SCHEDULE, GRID), data.predict(SCHEDULE), operator, y[None], jax.random.key(0),
            noise_std=STD, num_particles=count,
        )  # fmt: skip
        shares = found.weights[0] @ data.shares(found.x[0], 1e-4)
        errors.append(np.abs(shares - exact.weights).max())
    assert errors[1] < 0.05 < errors[0]


def test_wrong_arguments():
    data = inverse.GaussianMixture.of([1.0], np.zeros((1, 2)), np.eye(2)[None])
    network, operator, y = data.predict(SCHEDULE), operators.matrix([[1.0, 0.5]], (2,)), np.zeros((1, 1))
    ddpm = samplers.ddpm(SCHEDULE, GRID)

    def run(sampler=ddpm, operator=operator, **options):
        return inverse.twisted(
            sampler, network, operator, y, jax.random.key(0), **{"noise_std": 1.0, "num_particles": 2} | options
        )

    for call, words in (
        (lambda: run(samplers.ddim(SCHEDULE, GRID)), "needs a sampler that adds noise and ends at clean data"),
        (lambda: run(ddpm[:5]), "ends at clean data"),
        (lambda: run(samplers.dpm_solver_pp(SCHEDULE, GRID)), "without histories"),
        (lambda: run(operator=jnp.sin), "operator must be an inverse.Operator"),
        (lambda: run(noise_std=0.0), "noise_std=0.0 must be > 0"),
        (lambda: run(num_particles=1), "num_particles=1 must be ≥ 2"),
        (lambda: run(resample_below=1.5), r"resample_below=1.5 within \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
