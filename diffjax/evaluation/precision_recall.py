"""Precision and recall by nearest neighbours (Kynkäänniemi et al. 2019), in float64 and bounded memory."""

from typing import NamedTuple

import numpy as np


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]."""

    precision: float
    """Of the samples that lie on the real images' manifold."""
    recall: float
    """Of the real images that lie on the samples' manifold."""


def precision_recall(samples: np.ndarray, real: np.ndarray, *, k: int = 3, block: int = 1024) -> PrecisionRecall:
    """Of features `[N, D]` of samples and `[M, D]` of real images.

    The manifold of a set is the union of balls around its points, each reaching to the k-th nearest point of the set.
    Both figures grow with k and depend on N and M: compare only where all three are the same.

    Args:
      samples: features of samples.
      real: features of real images.
      k: 3 in the paper; less than N and M.
      block: points whose distances to all others are in memory at once.

    Raises:
      ValueError: not matrices, different D, or too few points for `k`.
    """
    samples, real = (np.asarray(points, np.float64) for points in (samples, real))
    if samples.ndim != 2 or real.ndim != 2 or samples.shape[1] != real.shape[1]:
        raise ValueError(f"features must be [N, D] and [M, D]; these are {samples.shape} and {real.shape}")
    if not 1 <= k < min(len(samples), len(real)):
        raise ValueError(f"k={k} must be at least 1 and less than the number of features ({len(samples)}, {len(real)})")
    # Distances do not change, and lose fewer digits.
    samples, real = samples - real.mean(axis=0), real - real.mean(axis=0)
    return PrecisionRecall(_covered(samples, real, k, block), _covered(real, samples, k, block))


def _covered(points: np.ndarray, centres: np.ndarray, k: int, block: int) -> float:
    """The share of `points` within the ball of any centre."""
    # A centre is its own nearest: the k-th neighbour has index k.
    radii = np.concatenate([np.partition(part, k, axis=1)[:, k] for part in _squared(centres, centres, block)])
    return float(np.concatenate([(part <= radii).any(axis=1) for part in _squared(points, centres, block)]).mean())


def _squared(a: np.ndarray, b: np.ndarray, block: int):
    """Squared distances of `a`, block by block, to all of `b`."""
    norms = np.sum(b * b, axis=1)
    for start in range(0, len(a), block):
        part = a[start : start + block]
        yield np.maximum(np.sum(part * part, axis=1)[:, None] + norms - 2.0 * part @ b.T, 0.0)
