"""Costs of steps in closed form: Gaussian data."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax import learn, schedules, timesteps

STD = 0.5
SCHEDULE = schedules.linear()
GRID = timesteps.log_snr(SCHEDULE, 30)

pytestmark = pytest.mark.usefixtures("x64")


@jax.tree_util.Partial
def exact(x, t):
    """ε̂ of data N(0, STD²)."""
    signal, noise = dj.process.scales_at(SCHEDULE, x, t)
    return noise * x / (signal**2 * STD**2 + noise**2)


def scales(grid):
    ab = SCHEDULE.alpha_bar_at(grid)
    return np.sqrt(ab), np.sqrt(1 - ab)


def test_deviation_from_a_trajectory():
    keys = dj.sample_keys(0, 0, 40)
    costs = learn.trajectory_costs(SCHEDULE, exact, keys, (5,), grid=GRID)
    signal, noise = scales(GRID)
    std = np.sqrt(signal**2 * STD**2 + noise**2)  # the flow scales x by it
    size = np.sqrt(np.mean(dj.initial_noise(keys, (5,)) ** 2)) / std[0]
    for t, s in ((0, 1), (0, 30), (3, 9), (28, 29)):
        x0, eps = signal[t] * STD**2 / std[t], noise[t] / std[t]  # of x = std[t]
        step = signal[s] * x0 + noise[s] * eps
        np.testing.assert_allclose(costs[30 - t, 30 - s], size * abs(step - std[s]), rtol=0.06, atol=1e-4)
    assert np.all(np.isinf(costs[np.triu_indices(31)]))
    found = learn.search(costs, 5, GRID)
    assert found.grid[0] == 999
    assert found.grid[-1] == -1
    assert set(found.grid) <= set(GRID)
    coarse = learn.search(costs, 4, GRID).cost
    assert found.cost < coarse


def test_kl_bound_of_the_reverse_sde():
    x0 = STD * jax.random.normal(jax.random.key(0), (4000, 5))
    costs = learn.kl_costs(SCHEDULE, exact, x0, jax.random.key(1), grid=GRID, batch_size=3000)
    sigma = np.divide(*scales(GRID[:-1])[::-1])
    shrink = STD**2 / (STD**2 + sigma**2)
    for t, s in ((0, 3), (2, 20), (10, 29)):
        square = STD**2 * (shrink[t : s + 1] - shrink[t])
        integral = np.sum(0.25 * (square[1:] + square[:-1]) * (sigma[t + 1 : s + 1] ** -2 - sigma[t:s] ** -2))
        np.testing.assert_allclose(costs[30 - t, 30 - s], integral / np.log(2), rtol=0.03)
    np.testing.assert_array_equal(costs[1:, 0], np.append(0.0, costs[2:, 1]))  # to clean data as to the last level
    assert np.all(np.isinf(costs[np.triu_indices(31)]))
    best = learn.search(costs, 6, GRID)
    trailing = GRID[[0, 5, 10, 15, 20, 25, 30]]
    places = 30 - np.searchsorted(-GRID, -trailing)
    assert best.cost < sum(costs[t, s] for t, s in itertools.pairwise(places))


def test_points_that_are_all_timesteps_are_the_default():
    costs = np.random.default_rng(0).uniform(size=(9, 9))
    for one, other in zip(learn.search_all(costs, 8), learn.search_all(costs, 8, np.arange(7, -2, -1)), strict=True):
        np.testing.assert_array_equal(one.grid, other.grid)


def test_wrong_values():
    with pytest.raises(ValueError, match=r"grid of shape \(3,\) must be 4 descending points"):
        learn.search(np.zeros((4, 4)), 2, [2, 1, 0])
    for grid, words in (([999, 500, 0], "must descend strictly to -1"), ([5, 5, -1], "must descend strictly")):
        with pytest.raises(ValueError, match=words):
            learn.trajectory_costs(SCHEDULE, exact, dj.sample_keys(0, 0, 2), (5,), grid=grid)
    zero = schedules.zero_terminal_snr(SCHEDULE)
    with pytest.raises(ValueError, match="alpha_bar = 0"):
        learn.kl_costs(zero, exact, jnp.zeros((2, 5)), jax.random.key(0), grid=[999, 500, -1])
