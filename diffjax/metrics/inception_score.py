"""The Inception score (Salimans et al. 2016): exp of the mean KL(p(y|x) ‖ p(y)), in float64."""

import numpy as np
from scipy.special import rel_entr, softmax

from diffjax.metrics.registry import METRICS, Metric

SPLITS = 10
"""The number of parts of the samples in published scores; each part has a score of its own."""


def inception_score(logits: np.ndarray, *, splits: int = SPLITS, seed: int | None = 2020) -> tuple[float, float]:
    """Returns mean and (population) standard deviation of the score over equal parts, as torch-fidelity computes it.

    Published scores use the logits of FID's Inception without the bias of the last layer.

    Args:
      logits: the logits of the samples, `[N, classes]`.
      splits: the number of parts.
      seed: samples are shuffled first, as by torch-fidelity with this seed; None keeps their order.

    Raises:
      ValueError: logits that are not a matrix, or fewer samples than parts.
    """
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 2 or not 1 <= splits <= len(logits):
        raise ValueError(f"logits must be [N, classes] with N ≥ splits={splits} ≥ 1, not {logits.shape}")
    if seed is not None:
        logits = logits[np.random.RandomState(seed).permutation(len(logits))]
    edges = np.arange(splits + 1) * len(logits) // splits
    scores = [_score(part) for part in np.split(softmax(logits, axis=1), edges[1:-1])]
    return float(np.mean(scores)), float(np.std(scores))


def _score(p: np.ndarray) -> float:
    """Returns the score of one part, from its class probabilities `[N, classes]`."""
    return np.exp(rel_entr(p, p.mean(axis=0)).sum(axis=1).mean())


METRICS.register(Metric("inception_score", inception_score, higher_is_better=True, min_count=SPLITS))
