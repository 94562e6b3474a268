"""Nearest neighbours, which show whether a model samples new images or repeats its training images."""

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist


class Neighbours(NamedTuple):
    """The k references nearest to each of N queries, nearest first."""

    indices: np.ndarray
    """int `[N, k]`."""
    distances: np.ndarray
    """Euclidean, float64 `[N, k]`."""


def nearest(queries: np.ndarray, references: np.ndarray, k: int, *, block: int = 256) -> Neighbours:
    """Returns the k references nearest to each query; of equally near ones the first.

    Args:
      queries: `[N, D]`.
      references: `[M, D]`.
      k: the number of neighbours.
      block: the number of queries whose distances are in memory at once.

    Raises:
      ValueError: k outside [1, M].
    """
    if not 1 <= k <= len(references):
        raise ValueError(f"k={k} must be within [1, {len(references)}], the number of references")
    queries, references = (np.asarray(points, np.float64) for points in (queries, references))
    parts = []
    for part in np.split(queries, range(block, len(queries), block)):
        distances = cdist(part, references)
        indices = np.argsort(distances, axis=1, kind="stable")[:, :k]
        parts.append((indices, np.take_along_axis(distances, indices, axis=1)))
    return Neighbours(*map(np.concatenate, zip(*parts, strict=True)))


def nearest_distances(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Returns the Euclidean distance of each query `[N, D]` to its nearest reference `[M, D]`: float64 `[N]`."""
    return nearest(queries, references, 1).distances[:, 0]
