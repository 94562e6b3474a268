"""The bound of a grid is the sum of the costs of its steps, in closed form and as `likelihood.bound` computes it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import learn, likelihood, parameterization, schedules
from diffjax.prediction import Prediction

STD = 0.25
SCHEDULE = schedules.linear(12, beta_start=0.01, beta_end=0.4)

pytestmark = pytest.mark.usefixtures("x64")


@jax.tree_util.Partial
def exact(x, t):
    """ε̂ of data N(0, STD²)."""
    ab = jnp.asarray(SCHEDULE.alpha_bars)[t].reshape(-1, 1)
    return jnp.sqrt(1 - ab) * x / (ab * STD**2 + 1 - ab)


@jax.tree_util.Partial
def blind(x, t):
    """A network whose x̂0 does not depend on x, so that no term depends on the noise."""
    x0 = jnp.broadcast_to(0.1 - 0.02 * t.astype(x.dtype)[:, None], x.shape)
    return Prediction(x0, x)


def images(count):
    """8-bit values of N(0, STD²) data, `[count, 8]`."""
    x0 = STD * np.random.default_rng(0).normal(size=(count, 8))
    return np.round((np.clip(x0, -1, 1) + 1) * 127.5) / 127.5 - 1


def sum_of_costs(costs, grid):
    return sum(costs[t + 1, s + 1] for t, s in itertools.pairwise(grid))


def bound_of(grid, predict, x0, decoder_variance, variance="fixed_small"):
    """The mean bound of a grid's chain without the prior's term."""
    indices = np.asarray(grid)[-2::-1]
    schedule = schedules.respace(SCHEDULE, indices)
    steps = {"fixed_small": schedule.posterior_variance, "fixed_large": schedule.betas}[variance]
    bound = likelihood.bound(
        schedule, parameterization.map_timesteps(predict, indices), x0, jax.random.key(1),
        variance=np.append(decoder_variance[indices[0]], steps[1:]),
    )  # fmt: skip
    return np.mean(bound.total - bound.prior)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_every_grid_of_a_network_that_ignores_the_noise(variance):
    x0 = images(40)
    terms = learn.decoder_terms(SCHEDULE, blind, x0, jax.random.key(0))
    costs = learn.bound_costs(SCHEDULE, *terms, variance=variance)
    for grid in ([11, 7, 3, 0, -1], [11, 9, 4, 2, -1]):
        expected = bound_of(grid, blind, x0, 1 - SCHEDULE.alpha_bars, variance)
        np.testing.assert_allclose(sum_of_costs(costs, grid), expected, rtol=1e-10)


def test_gaussian():
    x0 = images(2000)
    terms = learn.decoder_terms(SCHEDULE, exact, x0, jax.random.key(1), batch_size=1000)
    ab = SCHEDULE.alpha_bars
    error = STD**2 * (1 - ab) / (ab * STD**2 + 1 - ab)
    np.testing.assert_allclose(terms.x0_mse, error, rtol=0.06)
    # A decoder of the variance of the error codes with the entropy of N(0, error) in bins of 2/255.
    best = learn.decoder_terms(SCHEDULE, exact, x0, jax.random.key(1), decoder_variance=terms.x0_mse, batch_size=1000)
    np.testing.assert_allclose(best.decoder, 0.5 * np.log2(2 * np.pi * np.e * error) - np.log2(2 / 255), atol=0.05)
    assert np.all(best.decoder < terms.decoder)
    costs = learn.bound_costs(SCHEDULE, *best)
    full, grid = np.arange(11, -2, -1), learn.search(costs, 4).grid
    np.testing.assert_allclose(sum_of_costs(costs, full), bound_of(full, exact, x0, terms.x0_mse), rtol=1e-10)
    # In fewer steps `bound` samples other noise.
    np.testing.assert_allclose(sum_of_costs(costs, grid), bound_of(grid, exact, x0, terms.x0_mse), rtol=0.02)


def test_wrong_values():
    x0 = images(2)
    for options, words in (
        ({"decoder_variance": np.ones(3)}, r"decoder_variance of shape \(3,\) must be 12 finite numbers > 0"),
        ({"decoder_variance": np.zeros(12)}, "must be 12 finite numbers > 0"),
        ({"batch_size": 0}, "batch_size=0 must be ≥ 1"),
    ):
        with pytest.raises(ValueError, match=words):
            learn.decoder_terms(SCHEDULE, exact, x0, jax.random.key(0), **options)
    with pytest.raises(ValueError, match="x0 must be 8-bit images"):
        learn.decoder_terms(SCHEDULE, exact, x0 + 0.003, jax.random.key(0))
    with pytest.raises(ValueError, match=r"variance of shape \(2,\) must be 12 finite numbers > 0"):
        likelihood.bound(SCHEDULE, exact, x0, jax.random.key(0), variance=[1.0, 2.0])
