"""Precision and recall by nearest neighbours (Kynkäänniemi et al. 2019), in float64 and bounded memory."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from diffjax.metrics.registry import METRICS, Metric

NEIGHBOURS = 3
"""k in the paper."""


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]."""

    precision: float
    """The share of the samples that lie on the manifold of the real images."""
    recall: float
    """The share of the real images that lie on the manifold of the samples."""


def precision_recall(
    samples: np.ndarray, reference: np.ndarray, *, k: int = NEIGHBOURS, block: int = 1024
) -> PrecisionRecall:
    """Returns precision and recall of samples.

    The manifold of a set is the union of balls around its points, each of which reaches to the k-th nearest point of
    the set. Both shares grow with k and depend on N and M: compare only values with the same k, N and M.

    Args:
      samples: features `[N, D]` of samples.
      reference: features `[M, D]` of real images.
      k: the number of neighbours, less than N and M.
      block: the number of points whose distances to all others are in memory at once.

    Raises:
      ValueError: features that are not matrices, different D, or too few points for `k`.
    """
    samples, reference = (np.asarray(points, np.float64) for points in (samples, reference))
    if samples.ndim != 2 or reference.ndim != 2 or samples.shape[1] != reference.shape[1]:
        raise ValueError(f"features must be [N, D] and [M, D], not {samples.shape} and {reference.shape}")
    if not 1 <= k < min(len(samples), len(reference)):
        raise ValueError(f"k={k} must be ≥ 1 and less than N={len(samples)} and M={len(reference)}")
    # Distances are the same after this shift, and lose fewer digits.
    samples, reference = samples - reference.mean(axis=0), reference - reference.mean(axis=0)
    return PrecisionRecall(_covered(samples, reference, k, block), _covered(reference, samples, k, block))


def precision(samples: np.ndarray, reference: np.ndarray) -> float:
    """Returns the precision of features `[N, D]` against `[M, D]`, with `NEIGHBOURS` neighbours."""
    return precision_recall(samples, reference).precision


def recall(samples: np.ndarray, reference: np.ndarray) -> float:
    """Returns the recall of features `[N, D]` against `[M, D]`, with `NEIGHBOURS` neighbours."""
    return precision_recall(samples, reference).recall


def _covered(points: np.ndarray, centres: np.ndarray, k: int, block: int) -> float:
    """Returns the share of `points` that lie within the ball of any centre."""
    # Each centre is its own nearest point, so the k-th neighbour has index k.
    radii = np.concatenate([np.partition(part, k, axis=1)[:, k] for part in _squared(centres, centres, block)])
    return float(np.concatenate([(part <= radii).any(axis=1) for part in _squared(points, centres, block)]).mean())


def _squared(a: np.ndarray, b: np.ndarray, block: int) -> Iterator[np.ndarray]:
    """Yields the squared distances `[≤ block, M]` of `a`, block by block, to all of `b`."""
    norms = np.sum(b * b, axis=1)
    for start in range(0, len(a), block):
        part = a[start : start + block]
        yield np.maximum(np.sum(part * part, axis=1)[:, None] + norms - 2.0 * part @ b.T, 0.0)


METRICS.register(Metric("precision", precision, higher_is_better=True, min_count=NEIGHBOURS + 1))
METRICS.register(Metric("recall", recall, higher_is_better=True, min_count=NEIGHBOURS + 1))
