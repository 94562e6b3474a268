import numpy as np
import pytest

from diffjax.metrics import calibration

RNG = np.random.default_rng(0)
K, N = 7, 40_000


def gaussian(scale):
    """Truths and samples of N(m, 1) with another mean for each, the samples' deviations times `scale`."""
    mean = RNG.normal(size=N)
    return mean + RNG.normal(size=N), mean + scale * RNG.normal(size=(K, N))


def test_an_exact_posterior_is_calibrated():
    truth, samples = gaussian(1.0)
    assert calibration.rank_deviation(truth, samples) < 0.01
    assert calibration.spread_over_error(truth, samples) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_wrong_spread_is_seen(scale):
    """The mean of K samples of variance s² has the squared error 1 + s²/K."""
    truth, samples = gaussian(scale)
    expected = np.sqrt((K + 1) / K * scale**2 / (1 + scale**2 / K))
    assert calibration.spread_over_error(truth, samples) == pytest.approx(expected, rel=0.02)
    shares = np.bincount(calibration.ranks(truth, samples), minlength=K + 1) / N
    ends = shares[0] + shares[-1]
    assert (ends > 0.4) if scale < 1 else (ends < 0.12)
    assert calibration.rank_deviation(truth, samples) > 0.1


def test_a_shifted_mean_is_seen():
    truth, samples = gaussian(1.0)
    shares = np.bincount(calibration.ranks(truth, samples + 1.0), minlength=K + 1) / N
    assert shares[0] > 0.3
    assert calibration.rank_deviation(truth, samples + 1.0) > 0.2


def test_ties_are_broken_evenly():
    truth, samples = np.zeros(N), np.zeros((K, N))
    assert calibration.rank_deviation(truth, samples) < 0.01
    assert calibration.spread_over_error(truth, samples) == np.inf


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"samples of shape \(3,\) must be \[K, \*\(3,\)\]"):
        calibration.ranks(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="1 sample of each image has no spread"):
        calibration.spread_over_error(np.zeros(3), np.zeros((1, 3)))
