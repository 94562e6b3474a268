"""Calibration of posterior samples: is the truth one sample among others, and is their spread that of the error?

Of a posterior that is right, the truth and K samples are exchangeable. So the rank of each true value among its samples
is uniform on 0 … K (Talts et al. 2018, "Simulation-based calibration"), and the squared error of the samples' mean is
(K+1)/K times their variance, on average.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def ranks(truth: ArrayLike, samples: ArrayLike, *, seed: int = 0) -> NDArray[np.int64]:
    """Returns how many of the K samples lie below the truth, element by element; ties are broken at random.

    Args:
      truth: `[N, …]`.
      samples: `[K, N, …]`.
      seed: the seed that breaks ties.

    Returns:
      int `[N, …]`, in 0 … K.

    Raises:
      ValueError: shapes that do not fit, or no samples.
    """
    truth, samples = _checked(truth, samples)
    below = np.sum(samples < truth, axis=0)
    equal = np.sum(samples == truth, axis=0)
    return below + np.random.default_rng(seed).integers(0, equal + 1)


def rank_deviation(truth: ArrayLike, samples: ArrayLike, *, seed: int = 0) -> float:
    """Returns the total variation distance of the ranks' shares from the uniform ones: 0 (calibrated) … K/(K+1).

    Args:
      truth: `[N, …]`.
      samples: `[K, N, …]`.
      seed: the seed that breaks ties.

    Raises:
      ValueError: as `ranks`.
    """
    count = len(np.asarray(samples)) + 1
    shares = np.bincount(ranks(truth, samples, seed=seed).ravel(), minlength=count)
    return float(np.abs(shares / shares.sum() - 1.0 / count).sum() / 2.0)


def spread_over_error(truth: ArrayLike, samples: ArrayLike) -> float:
    """Returns √((K+1)/K · mean variance of the samples / mean squared error of their mean).

    1: calibrated, below 1: too certain, above 1: too uncertain. Infinite where the mean is exact.

    Args:
      truth: `[N, …]`.
      samples: `[K, N, …]`, K ≥ 2.

    Raises:
      ValueError: as `ranks`, or fewer than two samples.
    """
    truth, samples = _checked(truth, samples)
    count = len(samples)
    if count < 2:
        raise ValueError(f"{count} sample of each image has no spread; it takes 2 or more")
    variance = np.mean(np.var(samples, axis=0, ddof=1))
    error = np.mean((np.mean(samples, axis=0) - truth) ** 2)
    return float(np.sqrt((count + 1) / count * variance / error)) if error else float("inf")


def _checked(truth: ArrayLike, samples: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    truth, samples = np.asarray(truth, np.float64), np.asarray(samples, np.float64)
    if samples.ndim != truth.ndim + 1 or samples.shape[1:] != truth.shape or not len(samples):
        raise ValueError(f"samples of shape {samples.shape} must be [K, *{truth.shape}] with K ≥ 1")
    return truth, samples
