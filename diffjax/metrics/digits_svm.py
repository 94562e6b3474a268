"""A classifier of 8×8 digits: an SVM on pixels with calibrated probabilities, fitted to real digits.

scikit-learn is imported when a function is called.
"""

from typing import Any

import numpy as np

from diffjax import data
from diffjax.metrics.frechet import half_split_distance
from diffjax.metrics.neighbours import nearest_distances


def extra_figures(
    samples: np.ndarray, labels: np.ndarray | None, trained_on: np.ndarray, held_out: np.ndarray | None
) -> dict[str, Any]:
    """Returns the figures that `diffjax evaluate` adds to the metrics of a run on `data.digits`.

    Args:
      samples: uint8 `[N, H, W, C]`.
      labels: the classes that the samples were conditioned on, int `[N]`; None for a network without classes.
      trained_on: images that the network was trained on, uint8 `[M, H, W, C]`.
      held_out: images of the same source that it was not trained on, uint8 `[K, H, W, C]`; None if there are none.

    Returns:
      `frechet_real_halves`, `confidence`, `confidence_real` and `class_shares` (the smallest and the largest);
      `accuracy` with labels; `neighbour_ratio` with images held out. {} for images that are not 8×8×1.
    """
    real = data.digits()
    if samples.shape[1:] != real.images.shape[1:]:
        return {}
    pixels, real_pixels = _pixels(samples), _pixels(real.images)
    confidence, shares = class_confidence(pixels, real_pixels, real.labels)
    figures = {
        "frechet_real_halves": half_split_distance(real_pixels),
        "confidence": confidence,
        "confidence_real": held_out_confidence(real_pixels, real.labels),
        "class_shares": [float(shares.min()), float(shares.max())],
    }
    if labels is not None:
        figures["accuracy"] = class_accuracy(pixels, labels, real_pixels, real.labels)
    if held_out is not None:
        distances = (nearest_distances(_pixels(queries), _pixels(trained_on)) for queries in (samples, held_out))
        of_samples, of_held_out = map(np.median, distances)
        figures["neighbour_ratio"] = float(of_samples / of_held_out)
    return figures


def class_confidence(pixels: np.ndarray, real_pixels: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the mean probability of the most probable class, and the share of images of each class.

    Args:
      pixels: the images to classify, `[N, 64]` in [0, 1].
      real_pixels: the real images that the SVM (RBF) is fitted to, `[M, 64]` in [0, 1].
      labels: their classes, int `[M]` in 0 … 9.

    Returns:
      (mean probability, shares `[10]`).
    """
    probabilities = _classifier().fit(real_pixels, labels).predict_proba(pixels)
    shares = np.bincount(probabilities.argmax(1), minlength=10) / len(pixels)
    return float(probabilities.max(1).mean()), shares


def class_accuracy(pixels: np.ndarray, classes: np.ndarray, real_pixels: np.ndarray, labels: np.ndarray) -> float:
    """Returns the share of images that an SVM (RBF), fitted to real images, assigns to their class.

    Args:
      pixels: the images to classify, `[N, 64]` in [0, 1].
      classes: the classes that they should be of, int `[N]`.
      real_pixels: the real images, `[M, 64]` in [0, 1].
      labels: their classes, int `[M]`.
    """
    from sklearn.svm import SVC

    return float(np.mean(SVC().fit(real_pixels, labels).predict(pixels) == classes))


def held_out_confidence(real_pixels: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean probability of the most probable class of held-out real digits: 5 stratified folds, seed 0.

    Args:
      real_pixels: `[M, 64]` in [0, 1].
      labels: their classes, int `[M]`.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    probabilities = cross_val_predict(_classifier(), real_pixels, labels, cv=folds, method="predict_proba")
    return float(probabilities.max(1).mean())


def _classifier() -> Any:
    """Returns scikit-learn's SVM (RBF) with calibrated probabilities, not yet fitted."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    return CalibratedClassifierCV(SVC(), ensemble=False)


def _pixels(images: np.ndarray) -> np.ndarray:
    """Returns images, uint8 `[N, H, W, C]`, as rows of pixels `[N, H·W·C]` in [0, 1]."""
    return images.reshape(len(images), -1) / 255.0
