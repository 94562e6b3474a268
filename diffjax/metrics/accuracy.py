"""Accuracy: whether samples that were conditioned on a class look like that class to a classifier."""

import numpy as np

from diffjax.metrics.registry import METRICS, Metric


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the share of samples whose most probable class is their label.

    Args:
      logits: the logits of a classifier, `[N, classes]`.
      labels: the classes that the samples were conditioned on, int `[N]`.
    """
    return float(np.mean(logits.argmax(1) == labels))


METRICS.register(Metric("accuracy", accuracy, higher_is_better=True, min_count=1))
