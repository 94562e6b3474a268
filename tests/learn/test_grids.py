"""Grids of least cost: equal to the best of all grids, tried one by one."""

import itertools

import numpy as np
import pytest

from diffjax import learn, schedules


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_steps", [1, 2, 4, 7, 12])
def test_equal_to_brute_force(seed, num_steps):
    costs = np.random.default_rng(seed).uniform(size=(13, 13))
    found = learn.search(costs, num_steps)
    assert found.grid.dtype == np.int32
    assert found.grid[0] == 11
    assert found.grid[-1] == -1

    def cost(grid):
        return sum(costs[t + 1, s + 1] for t, s in itertools.pairwise(grid))

    grids = [(11, *inner[::-1], -1) for inner in itertools.combinations(range(11), num_steps - 1)]
    best = min(grids, key=cost)
    assert found.grid.tolist() == list(best)
    np.testing.assert_allclose(found.cost, cost(best), rtol=1e-12)
    again = learn.search_all(costs, 12)[num_steps - 1]
    assert again.grid.tolist() == found.grid.tolist()


def test_forbidden_steps():
    costs = np.full((5, 5), np.inf)
    for t in range(1, 5):
        costs[t, t - 1] = 1.0
    assert learn.search(costs, 4).grid.tolist() == [3, 2, 1, 0, -1]
    with pytest.raises(ValueError, match="num_steps=2: no grid has a finite cost"):
        learn.search(costs, 2)


def test_terms_of_the_bound_are_kl_divergences():
    """Each term by the definition, with a network that errs by a known amount."""
    schedule, rng = schedules.linear(20), np.random.default_rng(0)
    mse, decoder = rng.uniform(0.01, 0.5, 20), rng.uniform(1, 2, 20)
    small, large, optimal = (
        learn.bound_costs(schedule, mse, decoder, variance=name) for name in ("fixed_small", "fixed_large", "optimal")
    )
    ab = schedule.alpha_bars
    for t, s in ((19, 3), (7, 6), (1, 0)):
        beta = 1 - ab[t] / ab[s]
        true = (1 - ab[s]) / (1 - ab[t]) * beta
        error = (np.sqrt(ab[s]) * beta / (1 - ab[t])) ** 2 * mse[t]
        for costs, variance in ((small, true), (large, beta), (optimal, true + error)):
            kl = 0.5 * (np.log(variance / true) + (true + error) / variance - 1) / np.log(2)
            np.testing.assert_allclose(costs[t + 1, s + 1], kl, rtol=1e-10)
        assert optimal[t + 1, s + 1] <= min(small[t + 1, s + 1], large[t + 1, s + 1])
    np.testing.assert_array_equal(small[1:, 0], decoder)
    assert np.all(np.isinf(small[0]))
    assert np.isinf(small[4, 4])


def test_wrong_values():
    for costs, steps, words in (
        (np.zeros((3, 4)), 1, r"costs of shape \(3, 4\)"),
        (np.zeros((4, 4)), 4, "num_steps=4 is out of range: allowed is 1 … 3"),
        (np.full((4, 4), np.nan), 2, "costs has NaN"),
    ):
        with pytest.raises(ValueError, match=words):
            learn.search(costs, steps)
    with pytest.raises(ValueError, match="variance='learned'"):
        learn.bound_costs(schedules.linear(4), np.ones(4), np.ones(4), variance="learned")
