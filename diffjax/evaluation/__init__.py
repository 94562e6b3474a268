"""Evaluation: distances between sets of images, in float64 on the host."""

from diffjax.evaluation.digits import class_confidence, held_out_confidence
from diffjax.evaluation.frechet import GaussianStatistics, frechet_distance, half_split_distance, statistics
from diffjax.evaluation.neighbours import nearest_distances

__all__ = [
    "GaussianStatistics",
    "class_confidence",
    "frechet_distance",
    "half_split_distance",
    "held_out_confidence",
    "nearest_distances",
    "statistics",
]
