"""The kernel distance (KID, Bińkowski et al. 2018): MMD² with the kernel k(x, y) = (x·y/D + 1)³, in float64.

Its estimate is unbiased, so it may be slightly below 0; few samples make it noisy but not larger. Below some thousands
of samples prefer it to the Fréchet distance.
"""

import numpy as np

from diffjax.metrics.registry import METRICS, Metric


def polynomial_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns (x·y/D + 1)³, `[N, M]`, of features `[N, D]` and `[M, D]`."""
    kernel = x @ y.T / x.shape[1] + 1.0
    return kernel * kernel * kernel


def kernel_distance(samples: np.ndarray, reference: np.ndarray, *, block: int = 1024) -> float:
    """Returns the unbiased MMD² of two sets of features, with x the samples and y the reference:

    Σ_{i≠j} k(x_i, x_j)/(N(N-1)) + Σ_{i≠j} k(y_i, y_j)/(M(M-1)) - 2·Σ_{i,j} k(x_i, y_j)/(N·M).

    Args:
      samples: features `[N, D]`.
      reference: features `[M, D]`; the distance is symmetric.
      block: the number of rows of the kernel's matrix that are in memory at once.

    Raises:
      ValueError: features that are not matrices, different D, or fewer than two features.
    """
    x, y = _checked(samples, reference)
    within = [(_sum(z, z, block) - _diagonal(z)) / (len(z) * (len(z) - 1)) for z in (x, y)]
    return float(sum(within) - 2.0 * _sum(x, y, block) / (len(x) * len(y)))


def subset_kernel_distance(
    samples: np.ndarray, reference: np.ndarray, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Returns mean and (population) standard deviation of `kernel_distance` over random subsets, as torch-fidelity.

    The subsets are the same as torch-fidelity's with the same seed.

    Args:
      samples: features `[N, D]`.
      reference: features `[M, D]` of real images.
      subsets: the number of subsets.
      subset_size: the number of features in each subset; at most N and M.
      seed: the seed of the subsets.

    Raises:
      ValueError: as `kernel_distance`, or subsets larger than the sets.
    """
    x, y = _checked(samples, reference)
    if not subset_size <= min(len(x), len(y)):
        raise ValueError(f"subset_size={subset_size} must be ≤ N={len(x)} and M={len(y)}, the numbers of features")
    rng = np.random.RandomState(seed)  # torch-fidelity's generator
    values = []
    for _ in range(subsets):
        parts = [points[rng.choice(len(points), subset_size, replace=False)] for points in (x, y)]
        values.append(kernel_distance(*parts))
    return float(np.mean(values)), float(np.std(values))


def _checked(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns both as float64 matrices."""
    x, y = (np.asarray(points, np.float64) for points in (x, y))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"features must be [N, D] and [M, D] with N, M ≥ 2, not {x.shape} and {y.shape}")
    return x, y


def _sum(x: np.ndarray, y: np.ndarray, block: int) -> float:
    """Returns the sum of the kernel over all pairs, `block` rows at a time."""
    return sum(polynomial_kernel(x[start : start + block], y).sum() for start in range(0, len(x), block))


def _diagonal(x: np.ndarray) -> float:
    """Returns the sum of the kernel over all pairs of a feature with itself."""
    return ((np.sum(x * x, axis=1) / x.shape[1] + 1.0) ** 3).sum()


METRICS.register(Metric("kernel", kernel_distance))
