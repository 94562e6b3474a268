"""Optimal variances: Gaussian data, whose reverse chain they make exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax import learn, samplers, schedules, timesteps

STD = 0.5
SCHEDULE = schedules.linear()

pytestmark = pytest.mark.usefixtures("x64")


def eps_square(schedule):
    """E‖ε̂‖²/d of the exact network on N(0, STD²) data."""
    ab = schedule.alpha_bars
    return (1 - ab) / (ab * STD**2 + 1 - ab)


@jax.tree_util.Partial
def exact(x, t):
    ab = jnp.asarray(SCHEDULE.alpha_bars)[t].reshape(-1, *[1] * (x.ndim - 1))
    return jnp.sqrt(1 - ab) * x / (ab * STD**2 + 1 - ab)


def std_at_end(table):
    """The standard deviation of the result, by the recursion of the linear steps from N(0, 1) at ᾱ_{T-1}."""
    ab = np.append(SCHEDULE.alpha_bars, 1.0)[table.grid[0]]
    variance = ab * STD**2 + 1 - ab
    for row in range(table.num_rows):
        signal, noise = table.signal[row], table.noise[row]
        eps = noise / (signal**2 * STD**2 + noise**2)
        x0 = (1 - noise * eps) / signal
        variance = (table.a[row] + table.b[row] * x0 + table.c[row] * eps) ** 2 * variance + table.d[row] ** 2
    return np.sqrt(variance)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [3, 5, 20])
def test_gaussian_data_come_out_exactly_before_the_last_step(eta, steps):
    grid = timesteps.trailing(1000, steps, end=0)
    table = samplers.ddim(SCHEDULE, grid, eta=eta)
    variances = learn.analytic_variances(SCHEDULE, grid, eps_square(SCHEDULE), eta=eta, largest=None)
    ab = SCHEDULE.alpha_bars[0]
    expected = np.sqrt(ab * STD**2 + 1 - ab)
    np.testing.assert_allclose(std_at_end(learn.with_variances(table, variances)), expected, rtol=1e-12)
    if eta:  # DDIM's own noise is too small in few steps
        assert std_at_end(table) < 0.999 * expected


def test_the_last_step_leads_to_the_mean():
    grid = timesteps.trailing(1000, 5)
    variances = learn.analytic_variances(SCHEDULE, grid, eps_square(SCHEDULE))
    assert variances[-1] == 0
    assert np.all(variances[:-1] > samplers.ddpm(SCHEDULE, grid).d[:-1] ** 2)
    assert np.all(variances[:-1] < samplers.ddpm(SCHEDULE, grid, variance="fixed_large").d[:-1] ** 2)


def test_bounds_of_the_variance():
    grid = timesteps.trailing(1000, 5)
    small = samplers.ddpm(SCHEDULE, grid).d ** 2
    np.testing.assert_allclose(
        learn.analytic_variances(SCHEDULE, grid, np.full(1000, 1.5))[:-1], small[:-1], rtol=1e-12
    )
    unbounded, bounded = (
        learn.analytic_variances(SCHEDULE, grid, np.zeros(1000), largest=largest) for largest in (None, 0.1)
    )
    assert np.all(bounded[:-1] < unbounded[:-1])
    coefficient = samplers.ddpm(SCHEDULE, grid).b[:-1]
    np.testing.assert_allclose(bounded[:-1], small[:-1] + 0.01 * coefficient**2, rtol=1e-9)


def test_estimated_moments():
    x0 = STD * jax.random.normal(jax.random.key(0), (400, 25), jnp.float64)
    found = learn.moments(SCHEDULE, exact, x0, jax.random.key(1), batch_size=150)
    assert found.num == 400
    error = (found.eps_square - eps_square(SCHEDULE)) / found.error
    assert np.max(np.abs(error)) < 6
    assert 0.5 < np.sqrt(np.mean(error**2)) < 2
    again = learn.moments(SCHEDULE, exact, x0, jax.random.key(1), batch_size=400)
    np.testing.assert_allclose(again.eps_square, found.eps_square, rtol=1e-12)


def test_samples_have_the_standard_deviation_of_the_data():
    grid = timesteps.trailing(1000, 5, end=0)
    variances = learn.analytic_variances(SCHEDULE, grid, eps_square(SCHEDULE), largest=None)
    table = learn.with_variances(samplers.ddpm(SCHEDULE, grid), variances)
    keys = dj.sample_keys(0, 0, 4000)
    x = dj.sample(table, exact, dj.initial_noise(keys, (25,), jnp.float64), keys)
    ab = SCHEDULE.alpha_bars[0]
    np.testing.assert_allclose(np.std(x), np.sqrt(ab * STD**2 + 1 - ab), rtol=0.01)


def test_wrong_values():
    grid = timesteps.trailing(1000, 5)
    with pytest.raises(ValueError, match=r"eps_square of shape \(10,\) must be \[1000\]"):
        learn.analytic_variances(SCHEDULE, grid, np.ones(10))
    with pytest.raises(ValueError, match="eta=2"):
        learn.analytic_variances(SCHEDULE, grid, np.ones(1000), eta=2)
    with pytest.raises(ValueError, match="must be 5 numbers ≥ 0"):
        learn.with_variances(samplers.ddim(SCHEDULE, grid), -np.ones(5))
    with pytest.raises(ValueError, match="1 examples"):
        learn.moments(SCHEDULE, exact, np.zeros((1, 3)), jax.random.key(0))
