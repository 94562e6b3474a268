import numpy as np
import pytest
import scipy.linalg

from diffjax import data, evaluation


def gaussian(seed, shift=0.0, scale=1.0, count=500, dim=6):
    rng = np.random.default_rng(seed)
    return shift + scale * rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim))


def test_frechet_distance_of_known_gaussians():
    def one(mean, variance):
        return evaluation.GaussianStatistics(np.full(3, mean), variance * np.eye(3))

    # In one dimension: (μ - ν)² + (σ - τ)².
    assert evaluation.frechet_distance(one(1.0, 4.0), one(3.0, 9.0)) == pytest.approx(3 * (4 + 1), rel=1e-12)
    assert evaluation.frechet_distance(one(1.0, 0.0), one(1.0, 9.0)) == pytest.approx(27, rel=1e-12)


def test_frechet_distance_against_scipys_matrix_root():
    a, b = (evaluation.statistics(gaussian(seed, shift)) for seed, shift in ((0, 0.0), (1, 0.5)))
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance)
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance - 2 * root.real)
    assert evaluation.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert evaluation.frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)
    assert evaluation.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_statistics():
    features = gaussian(0)
    mean, covariance = evaluation.statistics(features)
    np.testing.assert_allclose(covariance, (features - mean).T @ (features - mean) / 499, rtol=1e-10)
    for bad in (np.zeros((1, 3)), np.zeros(3)):
        with pytest.raises(ValueError, match="N ≥ 2"):
            evaluation.statistics(bad)


def test_nearest_distances():
    queries, references = gaussian(0, count=300), gaussian(1, count=70)
    expected = [min(np.linalg.norm(q - r) for r in references) for q in queries]
    np.testing.assert_allclose(evaluation.nearest_distances(queries, references), expected, rtol=1e-9)
    np.testing.assert_allclose(evaluation.nearest_distances(queries, references, block=7), expected, rtol=1e-9)


def test_the_floor_for_the_digits():
    pixels = data.digits().images.reshape(1797, -1) / 255
    assert evaluation.half_split_distance(pixels) == pytest.approx(0.07, abs=0.01)


def test_the_judge_is_unsure_of_a_grey_square_and_knows_the_classes():
    source = data.digits()
    pixels = source.images.reshape(1797, -1) / 255
    fitted_on = pixels[:1000], source.labels[:1000]
    sure, shares = evaluation.class_confidence(pixels[1000:], *fitted_on)
    unsure, _ = evaluation.class_confidence(np.full((100, 64), 0.5), *fitted_on)
    assert sure > unsure + 0.1
    assert shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(shares, 0.1, atol=0.03)
    _, shares = evaluation.class_confidence(pixels[1000:][source.labels[1000:] == 6], *fitted_on)
    assert shares[6] > 0.95
