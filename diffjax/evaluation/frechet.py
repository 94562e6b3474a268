"""The Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017)."""

from typing import NamedTuple

import numpy as np


class GaussianStatistics(NamedTuple):
    """Mean `[D]` and covariance `[D, D]` of features, float64."""

    mean: np.ndarray
    covariance: np.ndarray


def statistics(features: np.ndarray) -> GaussianStatistics:
    """Mean and covariance (divisor N - 1) of features `[N, D]`.

    Raises:
      ValueError: fewer than two features, or not a matrix.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features must be [N, D] with N ≥ 2; these have shape {features.shape}")
    return GaussianStatistics(features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False)))


def frechet_distance(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """‖μ_a - μ_b‖² + tr(Σ_a + Σ_b - 2·(Σ_a Σ_b)^½).

    The trace of the root is the sum of the roots of the eigenvalues of Σ_a^½ Σ_b Σ_a^½, which is symmetric, so that
    singular covariances do no harm.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    product = np.linalg.eigvalsh(root @ b.covariance @ root)
    trace_root = np.sum(np.sqrt(np.clip(product, 0.0, None)))
    shift = np.sum((a.mean - b.mean) ** 2)
    return float(shift + np.trace(a.covariance) + np.trace(b.covariance) - 2.0 * trace_root)


def half_split_distance(features: np.ndarray, *, splits: int = 10, seed: int = 0) -> float:
    """The floor: the mean Fréchet distance between two random halves of the same features `[N, D]`."""
    rng = np.random.default_rng(seed)
    halves = [np.array_split(features[rng.permutation(len(features))], 2) for _ in range(splits)]
    return float(np.mean([frechet_distance(*map(statistics, pair)) for pair in halves]))
