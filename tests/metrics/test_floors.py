import numpy as np
import pytest

from diffjax import metrics


def test_the_floor_is_the_cost_of_sampling_noise():
    # Of one-dimensional Gaussians: E(Δμ)² = 1/n + 1/m, and E(Δσ)² is half of it.
    real = np.random.default_rng(0).normal(size=(4000, 1))
    mean, std = metrics.floor(real, 500, metrics.feature_distance, splits=300)
    assert mean == pytest.approx(1.5 * (1 / 500 + 1 / 3500), rel=0.2)
    assert 0 < std < 2 * mean


def test_the_floor_compares_with_other_features_than_it_chooses():
    real, chosen = np.arange(10.0)[:, None], []

    def distance(a, b):
        chosen.append((a, b))
        return float(len(np.intersect1d(a, b)))

    assert metrics.floor(real, 4, distance, splits=3) == (0, 0)
    assert all((len(a), len(b)) == (4, 6) for a, b in chosen)
    assert len({tuple(a.ravel()) for a, _ in chosen}) == 3
    assert metrics.floor(real, 10, distance, reference=real, splits=3) == (10, 0)
    for num, reference in ((0, None), (10, None), (11, real)):
        with pytest.raises(ValueError, match=f"num={num} must be within .* for 10 real features"):
            metrics.floor(real, num, distance, reference=reference)
