import numpy as np
import pytest
import scipy.linalg

from diffjax import data, evaluation
from diffjax.errors import UserError


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
    mean, covariance, count = evaluation.statistics(features)
    np.testing.assert_allclose(covariance, (features - mean).T @ (features - mean) / 499, rtol=1e-10)
    assert count == 500
    with pytest.raises(ValueError, match="N ≥ 2 features; here are 1"):
        evaluation.statistics(np.zeros((1, 3)))
    for bad in (np.zeros(3), np.zeros((0, 3))):
        with pytest.raises(ValueError, match=r"\[N, D\] with N ≥ 1"):
            evaluation.statistics(bad)
    with pytest.raises(ValueError, match="1 of 2 features are not finite"):
        evaluation.statistics(np.array([[0.0, np.nan], [1.0, 2.0]]))


@pytest.mark.parametrize("sizes", [(500,), (1, 499), (1, 1, 1, 97, 400), (250, 250), (33,) * 15 + (5,)])
def test_batches_add_up(sizes):
    # Sums of squares would be off by 1e-3 here.
    features = gaussian(0, shift=1e6)
    parts = [evaluation.moments(part) for part in np.split(features, np.cumsum(sizes)[:-1])]
    mean, covariance, count = evaluation.fit(evaluation.merge(*parts))
    np.testing.assert_allclose(mean, features.mean(0), rtol=1e-14)
    np.testing.assert_allclose(covariance, np.cov(features, rowvar=False), rtol=1e-8, atol=1e-9)
    assert count == 500
    # … in any grouping: processes add up their own batches first.
    nested = evaluation.merge(evaluation.merge(*parts[::2]), evaluation.merge(*parts[1::2])) if parts[1:] else parts[0]
    np.testing.assert_allclose(evaluation.fit(nested).covariance, covariance, rtol=1e-8, atol=1e-9)


def test_too_few_features_for_their_dimension():
    enough, few = evaluation.statistics(gaussian(0, count=7)), evaluation.statistics(gaussian(1, count=6))
    evaluation.frechet_distance(enough, enough)
    for pair in ((enough, few), (few, enough)):
        with pytest.raises(ValueError, match="6 features: .* 6-dimensional features needs at least 7"):
            evaluation.frechet_distance(*pair)
    with pytest.raises(ValueError, match="2000 samples: .* at least 2049"):
        evaluation.check_count(2000, 2048)
    with pytest.raises(ValueError, match="of 6 and of 5 dimensions"):
        evaluation.frechet_distance(enough, evaluation.statistics(gaussian(0, dim=5)))


def test_saved_statistics(tmp_path):
    fitted, protocol = evaluation.statistics(gaussian(0)), {"extractor": "pixels", "reference": "half"}
    evaluation.save_statistics(tmp_path / "ours", fitted, protocol)
    loaded, facts = evaluation.load_statistics(tmp_path / "ours")
    assert facts == protocol
    assert loaded.count == 500
    np.testing.assert_array_equal(loaded.covariance, fitted.covariance)
    np.testing.assert_array_equal(loaded.mean, fitted.mean)

    np.savez(tmp_path / "theirs.npz", mu=fitted.mean, sigma=fitted.covariance)
    loaded, facts = evaluation.load_statistics(tmp_path / "theirs.npz")
    assert (loaded.count, facts) == (None, {})
    assert evaluation.frechet_distance(loaded, fitted) == pytest.approx(0, abs=1e-9)


def test_what_holds_no_statistics(tmp_path):
    np.savez(tmp_path / "images.npz", arr_0=np.zeros((2, 3)))
    np.savez(tmp_path / "odd.npz", mu=np.zeros(3), sigma=np.zeros((2, 2)))
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text").write_text("text")
    for name, complaint in [
        ("none", "is not there"),
        ("images.npz", r"holds \['arr_0'\], no mu and no sigma"),
        ("odd.npz", r"mu must be \[D\]"),
        ("array.npy", "no npz"),
        ("text", "no npz"),
    ]:
        with pytest.raises(UserError, match=complaint):
            evaluation.load_statistics(tmp_path / name)


def test_the_floor_is_what_sampling_noise_costs():
    # Of one-dimensional Gaussians: E(Δμ)² = 1/n + 1/m, and E(Δσ)² is half of it.
    real = np.random.default_rng(0).normal(size=(4000, 1))
    mean, std = evaluation.floor(real, 500, splits=300)
    assert mean == pytest.approx(1.5 * (1 / 500 + 1 / 3500), rel=0.2)
    assert 0 < std < 2 * mean


def test_the_floor_draws_others_than_it_compares_with():
    real, drawn = np.arange(10.0)[:, None], []

    def distance(a, b):
        drawn.append((a, b))
        return float(len(np.intersect1d(a, b)))

    assert evaluation.floor(real, 4, distance=distance, splits=3) == (0, 0)
    assert all((len(a), len(b)) == (4, 6) for a, b in drawn)
    assert len({tuple(a.ravel()) for a, _ in drawn}) == 3
    assert evaluation.floor(real, 10, reference=real, distance=distance, splits=3) == (10, 0)
    for num, reference in ((0, None), (10, None), (11, real)):
        with pytest.raises(ValueError, match=f"num={num} of 10"):
            evaluation.floor(real, num, reference=reference, distance=distance)


def test_the_floor_for_the_digits():
    pixels = data.digits().images.reshape(1797, -1) / 255
    assert evaluation.half_split_distance(pixels) == pytest.approx(0.07, abs=0.01)
