"""Nearest neighbours: whether a model draws, or remembers."""

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist


class Neighbours(NamedTuple):
    """Of N queries the k nearest references, nearest first."""

    indices: np.ndarray
    """int `[N, k]`."""
    distances: np.ndarray
    """Euclidean, float64 `[N, k]`."""


def nearest(queries: np.ndarray, references: np.ndarray, k: int, *, block: int = 256) -> Neighbours:
    """The k references `[M, D]` nearest to each query `[N, D]`; of equally near ones the first.

    Raises:
      ValueError: k outside 1 … M.
    """
    if not 1 <= k <= len(references):
        raise ValueError(f"k={k}: allowed is 1 … {len(references)}, the references there are")
    queries, references = (np.asarray(points, np.float64) for points in (queries, references))
    parts = []
    for part in np.split(queries, range(block, len(queries), block)):
        distances = cdist(part, references)
        indices = np.argsort(distances, axis=1, kind="stable")[:, :k]
        parts.append((indices, np.take_along_axis(distances, indices, axis=1)))
    return Neighbours(*map(np.concatenate, zip(*parts, strict=True)))


def nearest_distances(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Euclidean distance of each query `[N, D]` to its nearest reference `[M, D]`: float64 `[N]`."""
    return nearest(queries, references, 1).distances[:, 0]
