"""The Inception score (Salimans et al. 2016): exp of the mean KL(p(y|x) ‖ p(y)), in float64."""

import numpy as np
from scipy.special import rel_entr, softmax


def inception_score(logits: np.ndarray, *, splits: int = 10, seed: int | None = 2020) -> tuple[float, float]:
    """Mean and (population) standard deviation of the score over equal parts of the samples, as torch-fidelity has it.

    Of FID's Inception the published figures use the logits without the last layer's bias.

    Args:
      logits: `[N, classes]`.
      splits: how many parts.
      seed: samples are shuffled first, as torch-fidelity does from this seed; None leaves them in order.

    Raises:
      ValueError: not a matrix, or fewer samples than parts.
    """
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 2 or not 1 <= splits <= len(logits):
        raise ValueError(f"logits must be [N, classes] with N ≥ splits={splits} ≥ 1; these are {logits.shape}")
    if seed is not None:
        logits = logits[np.random.RandomState(seed).permutation(len(logits))]
    edges = np.arange(splits + 1) * len(logits) // splits
    scores = [_score(part) for part in np.split(softmax(logits, axis=1), edges[1:-1])]
    return float(np.mean(scores)), float(np.std(scores))


def _score(p: np.ndarray) -> float:
    return np.exp(rel_entr(p, p.mean(axis=0)).sum(axis=1).mean())
