"""Two-dimensional data sets for first experiments: float32 `[num, 2]`, each coordinate of mean 0 and variance 1."""

import numpy as np


def two_moons(num: int, *, seed: int = 0, noise: float = 0.05) -> np.ndarray:
    """Samples two interleaved half circles (scikit-learn's `make_moons`).

    Args:
      num: the number of points, ≥ 2.
      seed: the seed of the points.
      noise: the standard deviation of the points around the curves, in units of the circles' radius.

    Returns:
      float32 `[num, 2]`.

    Examples:
      >>> two_moons(1000).shape
      (1000, 2)
    """
    from sklearn.datasets import make_moons

    return _standardised(make_moons(num, noise=noise, random_state=seed)[0])


def swiss_roll(num: int, *, seed: int = 0, noise: float = 0.5) -> np.ndarray:
    """Samples a spiral (two coordinates of scikit-learn's `make_swiss_roll`).

    Args:
      num: the number of points, ≥ 2.
      seed: the seed of the points.
      noise: the standard deviation of the points around the curve, whose radius grows to 14.

    Returns:
      float32 `[num, 2]`.
    """
    from sklearn.datasets import make_swiss_roll

    return _standardised(make_swiss_roll(num, noise=noise, random_state=seed)[0][:, [0, 2]])


def eight_gaussians(num: int, *, seed: int = 0, noise: float = 0.1) -> np.ndarray:
    """Samples eight normal distributions whose means are evenly spaced on the unit circle.

    Args:
      num: the number of points, ≥ 2.
      seed: the seed of the points.
      noise: the standard deviation of each of them.

    Returns:
      float32 `[num, 2]`.
    """
    rng = np.random.default_rng(seed)
    angles = rng.integers(8, size=num) * (np.pi / 4)
    return _standardised(np.stack([np.cos(angles), np.sin(angles)], axis=1) + noise * rng.standard_normal((num, 2)))


def checkerboard(num: int, *, seed: int = 0) -> np.ndarray:
    """Samples the uniform distribution on the black squares of a board of 4×4.

    Args:
      num: the number of points, ≥ 2.
      seed: the seed of the points.

    Returns:
      float32 `[num, 2]`.
    """
    rng = np.random.default_rng(seed)
    column, half = rng.integers(4, size=num), rng.integers(2, size=num)
    corner = np.stack([column, 2 * half + column % 2], axis=1)
    return _standardised(corner + rng.random((num, 2)))


def _standardised(points: np.ndarray) -> np.ndarray:
    return ((points - points.mean(axis=0)) / points.std(axis=0)).astype(np.float32)
