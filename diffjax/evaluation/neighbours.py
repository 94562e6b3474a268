"""Nearest neighbours: whether a model draws, or remembers."""

import numpy as np
from scipy.spatial.distance import cdist


def nearest_distances(queries: np.ndarray, references: np.ndarray, *, block: int = 256) -> np.ndarray:
    """Euclidean distance of each query `[N, D]` to its nearest reference `[M, D]`: float64 `[N]`."""
    queries, references = (np.asarray(points, np.float64) for points in (queries, references))
    parts = np.split(queries, range(block, len(queries), block))
    return np.concatenate([cdist(part, references).min(1) for part in parts])
