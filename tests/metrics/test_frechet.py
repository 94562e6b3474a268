import numpy as np
import pytest
import scipy.linalg

from diffjax import data, metrics
from diffjax.errors import UserError


def gaussian(seed, shift=0.0, scale=1.0, count=500, dim=6):
    rng = np.random.default_rng(seed)
    return shift + scale * rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim))


def test_frechet_distance_of_known_gaussians():
    def one(mean, variance):
        return metrics.GaussianStatistics(np.full(3, mean), variance * np.eye(3))

    # In one dimension: (μ - ν)² + (σ - τ)².
    assert metrics.frechet_distance(one(1.0, 4.0), one(3.0, 9.0)) == pytest.approx(3 * (4 + 1), rel=1e-12)
    assert metrics.frechet_distance(one(1.0, 0.0), one(1.0, 9.0)) == pytest.approx(27, rel=1e-12)


def test_frechet_distance_against_scipys_matrix_root():
    a, b = (metrics.statistics(gaussian(seed, shift)) for seed, shift in ((0, 0.0), (1, 0.5)))
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance)
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance - 2 * root.real)
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert metrics.frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_statistics():
    features = gaussian(0)
    mean, covariance, count = metrics.statistics(features)
    np.testing.assert_allclose(covariance, (features - mean).T @ (features - mean) / 499, rtol=1e-10)
    assert count == 500
    with pytest.raises(ValueError, match="count=1 must be ≥ 2 features"):
        metrics.statistics(np.zeros((1, 3)))
    for bad in (np.zeros(3), np.zeros((0, 3))):
        with pytest.raises(ValueError, match=r"\[N, D\] with N ≥ 1"):
            metrics.statistics(bad)
    with pytest.raises(ValueError, match="must be finite; 1 of 2 are not"):
        metrics.statistics(np.array([[0.0, np.nan], [1.0, 2.0]]))


@pytest.mark.parametrize("sizes", [(500,), (1, 499), (1, 1, 1, 97, 400), (250, 250), (33,) * 15 + (5,)])
def test_batches_add_up(sizes):
    # Sums of squares would be off by 1e-3 here.
    features = gaussian(0, shift=1e6)
    parts = [metrics.moments(part) for part in np.split(features, np.cumsum(sizes)[:-1])]
    mean, covariance, count = metrics.fit(metrics.merge(*parts))
    np.testing.assert_allclose(mean, features.mean(0), rtol=1e-14)
    np.testing.assert_allclose(covariance, np.cov(features, rowvar=False), rtol=1e-8, atol=1e-9)
    assert count == 500
    # … in any grouping: processes add up their own batches first.
    nested = metrics.merge(metrics.merge(*parts[::2]), metrics.merge(*parts[1::2])) if parts[1:] else parts[0]
    np.testing.assert_allclose(metrics.fit(nested).covariance, covariance, rtol=1e-8, atol=1e-9)


def test_too_few_features_for_their_dimension():
    enough, few = metrics.statistics(gaussian(0, count=7)), metrics.statistics(gaussian(1, count=6))
    metrics.frechet_distance(enough, enough)
    for pair in ((enough, few), (few, enough)):
        with pytest.raises(
            ValueError, match="count=6 must be at least 7 for a Fréchet distance of 6-dimensional features"
        ):
            metrics.frechet_distance(*pair)
    with pytest.raises(ValueError, match="count=2000 must be at least 2049"):
        metrics.check_count(2000, 2048)
    with pytest.raises(ValueError, match="of 6 and 5 dimensions"):
        metrics.frechet_distance(enough, metrics.statistics(gaussian(0, dim=5)))


def test_saved_statistics(tmp_path):
    fitted, protocol = metrics.statistics(gaussian(0)), {"extractor": "pixels", "reference": "half"}
    metrics.save_statistics(tmp_path / "ours", fitted, protocol)
    loaded, facts = metrics.load_statistics(tmp_path / "ours")
    assert facts == protocol
    assert loaded.count == 500
    np.testing.assert_array_equal(loaded.covariance, fitted.covariance)
    np.testing.assert_array_equal(loaded.mean, fitted.mean)

    np.savez(tmp_path / "theirs.npz", mu=fitted.mean, sigma=fitted.covariance)
    loaded, facts = metrics.load_statistics(tmp_path / "theirs.npz")
    assert (loaded.count, facts) == (None, {})
    assert metrics.frechet_distance(loaded, fitted) == pytest.approx(0, abs=1e-9)


def test_files_without_statistics(tmp_path):
    np.savez(tmp_path / "images.npz", arr_0=np.zeros((2, 3)))
    np.savez(tmp_path / "odd.npz", mu=np.zeros(3), sigma=np.zeros((2, 2)))
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "words.npz", mu=np.array(["a"]), sigma=np.array([["b"]]))
    (tmp_path / "text").write_text("text")
    for name, complaint in [
        ("none", "does not exist"),
        ("images.npz", r"must hold mu and sigma; it holds \['arr_0'\]"),
        ("odd.npz", r"mu must be \[D\]"),
        ("words.npz", "mu and sigma must be numbers, not <U1 and <U1"),
        ("array.npy", "is not an npz"),
        ("text", "is not an npz"),
    ]:
        with pytest.raises(UserError, match=complaint):
            metrics.load_statistics(tmp_path / name)


def test_half_splits_of_the_digits():
    pixels = data.digits().images.reshape(1797, -1) / 255
    assert metrics.half_split_distance(pixels) == pytest.approx(0.07, abs=0.01)
