import numpy as np
import pytest
from scipy.spatial.distance import cdist

from diffjax import metrics


def normal(seed, count, shift=0.0, dim=6):
    return shift + np.random.default_rng(seed).normal(size=(count, dim))


def test_the_same_set_and_sets_far_apart():
    points = normal(0, 50)
    assert metrics.precision_recall(points, points) == (1, 1)
    assert metrics.precision_recall(points, normal(1, 40, shift=100)) == (0, 0)


def test_a_lost_mode_costs_recall_and_an_invented_one_precision():
    two_modes = np.concatenate([normal(0, 60), normal(1, 60, shift=100)])
    one_mode = normal(0, 60)
    assert metrics.precision_recall(one_mode, two_modes) == (1, 0.5)
    assert metrics.precision_recall(two_modes, one_mode) == (0.5, 1)


def test_by_hand_on_a_line():
    real, samples = np.array([[0.0], [1.0], [3.0]]), np.array([[-1.0], [4.5], [6.0], [100.0]])
    # k = 1: the real ones reach 1, 1 and 2; the samples 5.5, 1.5, 1.5 and 94.
    assert metrics.precision_recall(samples, real, k=1) == (2 / 4, 3 / 3)
    # Without the two outer samples the others reach 1.5 both, and lie at 4.5 and 6.
    assert metrics.precision_recall(samples[1:3], real, k=1) == (1 / 2, 1 / 3)


def test_against_all_distances_at_once_whatever_the_block():
    samples, real = normal(0, 70, shift=0.7) + 1e3, normal(1, 50) + 1e3

    def covered(points, centres):
        radii = np.sort(cdist(centres, centres), axis=1)[:, 3]
        return (cdist(points, centres) <= radii).any(axis=1).mean()

    expected = (covered(samples, real), covered(real, samples))
    assert all(0.1 < share < 0.95 for share in expected)
    for block in (7, 50, 1024):
        assert metrics.precision_recall(samples, real, block=block) == expected


def test_bad_features():
    points = normal(0, 4)
    with pytest.raises(ValueError, match=r"\[N, D\] and \[M, D\]"):
        metrics.precision_recall(points, normal(0, 4, dim=5))
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"k={k} must"):
            metrics.precision_recall(points, points, k=k)
