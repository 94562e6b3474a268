"""Metrics: features of images, distances between sets of them, and how close restored images are to the true ones.

Figures are computed in float64 on the host. `METRICS` holds every metric by name, and `measure` computes the chosen
ones. More functions are in the modules `image_quality`, `image_sets`, `records` and `lpips`, and the feature extractors
are in `features`.
"""

from diffjax.metrics import image_quality, image_sets, records
from diffjax.metrics.accuracy import accuracy
from diffjax.metrics.digits_svm import class_accuracy, class_confidence, held_out_confidence
from diffjax.metrics.features.base import EXTRACTORS, Extractor, Features, pixels
from diffjax.metrics.floors import floor
from diffjax.metrics.frechet import (
    GaussianStatistics,
    Moments,
    check_count,
    feature_distance,
    fit,
    frechet_distance,
    half_split_distance,
    load_statistics,
    merge,
    moments,
    save_statistics,
    statistics,
)
from diffjax.metrics.inception_score import inception_score
from diffjax.metrics.kernel import kernel_distance, subset_kernel_distance
from diffjax.metrics.neighbours import Neighbours, nearest, nearest_distances
from diffjax.metrics.precision_recall import PrecisionRecall, precision_recall
from diffjax.metrics.records import Figure
from diffjax.metrics.registry import METRICS, Metric, Reference, extractor, higher_is_better, measure

__all__ = [
    "EXTRACTORS",
    "METRICS",
    "Extractor",
    "Features",
    "Figure",
    "GaussianStatistics",
    "Metric",
    "Moments",
    "Neighbours",
    "PrecisionRecall",
    "Reference",
    "accuracy",
    "check_count",
    "class_accuracy",
    "class_confidence",
    "extractor",
    "feature_distance",
    "fit",
    "floor",
    "frechet_distance",
    "half_split_distance",
    "held_out_confidence",
    "higher_is_better",
    "image_quality",
    "image_sets",
    "inception_score",
    "kernel_distance",
    "load_statistics",
    "measure",
    "merge",
    "moments",
    "nearest",
    "nearest_distances",
    "pixels",
    "precision_recall",
    "records",
    "save_statistics",
    "statistics",
    "subset_kernel_distance",
]
