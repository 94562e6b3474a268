"""Evaluation: features of images, and distances between sets of them, in float64 on the host.

`classifier`, `inception`, `lpips`, `images`, `figures`, `quality`, `restoration` and `sweeps` are used by their names;
the distances are here. `on_images` and `ablations`, which take trained networks, are imported by name.
"""

from diffjax.evaluation import classifier, figures, images, inception, lpips, quality, restoration, sweeps
from diffjax.evaluation.digits import class_accuracy, class_confidence, held_out_confidence
from diffjax.evaluation.features import Extractor, Features, pixels
from diffjax.evaluation.frechet import (
    GaussianStatistics,
    Moments,
    check_count,
    feature_distance,
    fit,
    floor,
    frechet_distance,
    half_split_distance,
    load_statistics,
    merge,
    moments,
    save_statistics,
    statistics,
)
from diffjax.evaluation.inception_score import inception_score
from diffjax.evaluation.kernel import kernel_distance, subset_kernel_distance
from diffjax.evaluation.neighbours import Neighbours, nearest, nearest_distances
from diffjax.evaluation.precision_recall import PrecisionRecall, precision_recall

__all__ = [
    "Extractor",
    "Features",
    "GaussianStatistics",
    "Moments",
    "Neighbours",
    "PrecisionRecall",
    "check_count",
    "class_accuracy",
    "class_confidence",
    "classifier",
    "feature_distance",
    "figures",
    "fit",
    "floor",
    "frechet_distance",
    "half_split_distance",
    "held_out_confidence",
    "images",
    "inception",
    "inception_score",
    "kernel_distance",
    "load_statistics",
    "lpips",
    "merge",
    "moments",
    "nearest",
    "nearest_distances",
    "pixels",
    "precision_recall",
    "quality",
    "restoration",
    "save_statistics",
    "statistics",
    "subset_kernel_distance",
    "sweeps",
]
