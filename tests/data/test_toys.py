import numpy as np
import pytest

from diffjax.data import toys

SETS = (toys.two_moons, toys.swiss_roll, toys.eight_gaussians, toys.checkerboard)


@pytest.mark.parametrize("sample", SETS)
def test_standardised_and_reproducible(sample):
    points = sample(1000, seed=3)
    assert points.shape == (1000, 2)
    assert points.dtype == np.float32
    np.testing.assert_allclose(points.mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(points.std(axis=0), 1.0, atol=1e-6)
    np.testing.assert_array_equal(points, sample(1000, seed=3))
    assert not np.array_equal(points, sample(1000, seed=4))


def test_eight_gaussians_are_eight():
    points = toys.eight_gaussians(4000, noise=0.01)
    angles = np.arctan2(points[:, 1], points[:, 0])
    counts = np.bincount(np.round(angles / (np.pi / 4)).astype(int) % 8, minlength=8)
    assert counts.min() > 400
    np.testing.assert_allclose(np.abs(angles / (np.pi / 4) - np.round(angles / (np.pi / 4))), 0.0, atol=0.15)


def test_checkerboard_has_only_black_squares():
    points = toys.checkerboard(4000)
    low, high = points.min(axis=0), points.max(axis=0)
    squares = np.minimum((points - low) / (high - low) * 4, 3.999).astype(int)
    assert np.mean(squares.sum(axis=1) % 2) < 0.01
    assert np.sum(np.unique(squares, axis=0, return_counts=True)[1] > 400) == 8
