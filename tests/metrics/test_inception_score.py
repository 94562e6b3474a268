import numpy as np
import pytest

from diffjax import metrics


def test_sure_and_uniform_over_the_classes():
    logits = np.where(np.eye(10), 0.0, -np.inf)[np.arange(1000) % 10]
    mean, std = metrics.inception_score(logits, splits=10, seed=None)
    assert mean == pytest.approx(10, rel=1e-12)
    assert std == pytest.approx(0, abs=1e-12)
    # Shuffled, a part of 100 has not ten of each class.
    mean, std = metrics.inception_score(logits, splits=10)
    assert 9 < mean < 10
    assert std > 0


def test_the_same_prediction_for_all_is_1():
    logits = np.tile(np.random.default_rng(0).normal(size=7), (50, 1))
    assert metrics.inception_score(logits, splits=5) == (pytest.approx(1, rel=1e-12), pytest.approx(0, abs=1e-12))


def test_two_classes_by_hand():
    # p = (a, 1 - a) or the reverse, in equal shares: KL = ln 2 - H(a).
    a = 0.8
    logits = np.log([[a, 1 - a], [1 - a, a]] * 6)
    expected = np.exp(np.log(2) + a * np.log(a) + (1 - a) * np.log(1 - a))
    assert metrics.inception_score(logits, splits=3, seed=None)[0] == pytest.approx(expected, rel=1e-12)
    # Logits are known up to a constant.
    assert metrics.inception_score(logits + 700, splits=3, seed=None)[0] == pytest.approx(expected, rel=1e-12)


def test_the_mean_and_spread_over_parts():
    # Parts of 3 and 4 of 7: one is sure of one class, the other of two.
    logits = np.where(np.eye(2), 0.0, -np.inf)[[0, 0, 0, 0, 1, 0, 1]]
    assert metrics.inception_score(logits, splits=2, seed=None) == (pytest.approx(1.5), pytest.approx(0.5))


def test_bad_logits():
    for bad, splits in ((np.zeros(5), 1), (np.zeros((9, 3)), 10), (np.zeros((9, 3)), 0)):
        with pytest.raises(ValueError, match=f"N ≥ splits={splits} ≥ 1"):
            metrics.inception_score(bad, splits=splits)
