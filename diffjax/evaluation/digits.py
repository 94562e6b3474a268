"""A judge of 8×8 digits: an SVM on pixels with calibrated probabilities, fitted on real ones."""

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.svm import SVC


def _judge() -> CalibratedClassifierCV:
    return CalibratedClassifierCV(SVC(), ensemble=False)


def class_confidence(pixels: np.ndarray, real_pixels: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """(mean top-class probability, share of each class `[10]`) of images, by an SVM (RBF) fitted on the real ones.

    Args:
      pixels: `[N, 64]` in [0, 1]; real_pixels: `[M, 64]` with labels `[M]`.
    """
    probabilities = _judge().fit(real_pixels, labels).predict_proba(pixels)
    shares = np.bincount(probabilities.argmax(1), minlength=10) / len(pixels)
    return float(probabilities.max(1).mean()), shares


def class_accuracy(pixels: np.ndarray, classes: np.ndarray, real_pixels: np.ndarray, labels: np.ndarray) -> float:
    """The share of images that an SVM (RBF) fitted on the real ones takes for their class.

    Args:
      pixels: `[N, 64]` in [0, 1], of classes `[N]`; real_pixels: `[M, 64]` with labels `[M]`.
    """
    return float(np.mean(SVC().fit(real_pixels, labels).predict(pixels) == classes))


def held_out_confidence(real_pixels: np.ndarray, labels: np.ndarray) -> float:
    """The same mean for real digits that the SVM has not seen: 5-fold, stratified, shuffled with seed 0."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    probabilities = cross_val_predict(_judge(), real_pixels, labels, cv=folds, method="predict_proba")
    return float(probabilities.max(1).mean())
