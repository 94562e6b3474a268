import numpy as np
import pytest

from diffjax import data, metrics


def gaussian(seed, shift=0.0, scale=1.0, count=500, dim=6):
    rng = np.random.default_rng(seed)
    return shift + scale * rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim))


def test_the_judge_is_unsure_of_a_grey_square_and_knows_the_classes():
    source = data.digits()
    pixels = source.images.reshape(1797, -1) / 255
    fitted_on = pixels[:1000], source.labels[:1000]
    sure, shares = metrics.class_confidence(pixels[1000:], *fitted_on)
    unsure, _ = metrics.class_confidence(np.full((100, 64), 0.5), *fitted_on)
    assert sure > unsure + 0.1
    assert shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(shares, 0.1, atol=0.03)
    _, shares = metrics.class_confidence(pixels[1000:][source.labels[1000:] == 6], *fitted_on)
    assert shares[6] > 0.95
    given = pixels[1000:], source.labels[1000:]
    assert metrics.class_accuracy(*given, *fitted_on) > 0.95
    assert metrics.class_accuracy(given[0], (given[1] + 1) % 10, *fitted_on) < 0.02
