"""The kernel distance (KID, Bińkowski et al. 2018): MMD² under k(x, y) = (x·y/D + 1)³, in float64.

Its estimate has no bias, so it may be a little below 0, and few samples make it noisy but not larger: below some
thousands of samples it is the distance to look at.
"""

import numpy as np


def polynomial_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x·y/D + 1)³ of `[N, D]` and `[M, D]`: `[N, M]`."""
    kernel = x @ y.T / x.shape[1] + 1.0
    return kernel * kernel * kernel


def kernel_distance(x: np.ndarray, y: np.ndarray, *, block: int = 1024) -> float:
    """The unbiased MMD² of features `[N, D]` and `[M, D]`, over all pairs of different ones:

    Σ_{i≠j} k(x_i, x_j)/(N(N-1)) + Σ_{i≠j} k(y_i, y_j)/(M(M-1)) - 2·Σ_{i,j} k(x_i, y_j)/(N·M).

    Args:
      x: features; they and `y` may change places.
      y: others.
      block: rows of the kernel's matrix that are in memory at once.

    Raises:
      ValueError: not matrices, different D, or fewer than two features.
    """
    x, y = _checked(x, y)
    within = [(_sum(z, z, block) - _diagonal(z)) / (len(z) * (len(z) - 1)) for z in (x, y)]
    return float(sum(within) - 2.0 * _sum(x, y, block) / (len(x) * len(y)))


def subset_kernel_distance(
    x: np.ndarray, y: np.ndarray, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Mean and (population) standard deviation of `kernel_distance` over random subsets: torch-fidelity's protocol.

    The subsets are those that torch-fidelity draws from this seed.

    Args:
      x: features `[N, D]` of samples.
      y: features `[M, D]` of real images.
      subsets: how many.
      subset_size: of each; at most N and M.
      seed: of the draws.

    Raises:
      ValueError: as `kernel_distance`, or subsets larger than the sets.
    """
    x, y = _checked(x, y)
    if subset_size > min(len(x), len(y)):
        raise ValueError(f"subset_size={subset_size} is more than there are features ({len(x)} and {len(y)})")
    rng = np.random.RandomState(seed)  # torch-fidelity's generator
    values = []
    for _ in range(subsets):
        parts = [points[rng.choice(len(points), subset_size, replace=False)] for points in (x, y)]
        values.append(kernel_distance(*parts))
    return float(np.mean(values)), float(np.std(values))


def _checked(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(points, np.float64) for points in (x, y))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"features must be [N, D] and [M, D] with N, M ≥ 2; these are {x.shape} and {y.shape}")
    return x, y


def _sum(x: np.ndarray, y: np.ndarray, block: int) -> float:
    return sum(polynomial_kernel(x[start : start + block], y).sum() for start in range(0, len(x), block))


def _diagonal(x: np.ndarray) -> float:
    return ((np.sum(x * x, axis=1) / x.shape[1] + 1.0) ** 3).sum()
