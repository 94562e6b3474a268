import numpy as np
import pytest

from diffjax import metrics


def double_sums(x, y):
    def k(a, b):
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    within_x = np.mean([k(x[i], x[j]) for i in range(n) for j in range(n) if i != j])
    within_y = np.mean([k(y[i], y[j]) for i in range(m) for j in range(m) if i != j])
    return within_x + within_y - 2 * np.mean([k(a, b) for a in x for b in y])


def test_against_double_sums():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(13, 5)), rng.normal(1.0, 2.0, size=(8, 5))
    for block in (3, 1024):
        assert metrics.kernel_distance(x, y, block=block) == pytest.approx(double_sums(x, y), rel=1e-12)
    assert metrics.kernel_distance(y, x) == pytest.approx(double_sums(x, y), rel=1e-12)


def test_between_two_points():
    x, y = np.tile([1.0, 3.0], (5, 1)), np.tile([2.0, 0.0], (4, 1))
    # x·x/2 + 1 = 6, y·y/2 + 1 = 3, x·y/2 + 1 = 2
    assert metrics.kernel_distance(x, y) == pytest.approx(6**3 + 3**3 - 2 * 2**3, rel=1e-12)


def test_expectation_is_0_for_the_same_distribution():
    rng = np.random.default_rng(0)
    values = [metrics.kernel_distance(*rng.normal(size=(2, 10, 4))) for _ in range(2000)]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error
    # The biased estimate, with i = j in it, would be off by many times that.
    assert error < 0.1 * (1 + 1) ** 3 / 10


def test_subsets():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)), rng.normal(0.5, 1.0, size=(60, 5))
    everything = metrics.kernel_distance(x, y)
    mean, std = metrics.subset_kernel_distance(x, y, subsets=3, subset_size=60)
    assert mean == pytest.approx(everything, rel=1e-12)
    assert std == pytest.approx(0, abs=1e-12)
    mean, std = metrics.subset_kernel_distance(x, y, subsets=400, subset_size=20)
    assert std > 0
    assert abs(mean - everything) < 4 * std / np.sqrt(400)
    assert (mean, std) != metrics.subset_kernel_distance(x, y, subsets=400, subset_size=20, seed=1)
    with pytest.raises(ValueError, match="subset_size=61 must be ≤ N=60 and M=60"):
        metrics.subset_kernel_distance(x, y, subset_size=61)


def test_bad_features():
    good = np.zeros((3, 2))
    for bad in (np.zeros((1, 2)), np.zeros((3, 1)), np.zeros(3)):
        with pytest.raises(ValueError, match="N, M ≥ 2"):
            metrics.kernel_distance(good, bad)
