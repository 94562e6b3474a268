"""The Fréchet distance between Gaussians fitted to two sets of features (FID, Heusel et al. 2017), in float64.

Features may come all at once (`statistics`) or in batches: `merge` adds up their `moments` in any grouping, from any
number of processes, with the same result up to rounding.
"""

import functools
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax.errors import UserError
from diffjax.files import read_npz, write_arrays
from diffjax.metrics.floors import floor
from diffjax.metrics.registry import METRICS, Metric


class Moments(NamedTuple):
    """Count, mean and scatter of features, float64; `merge` adds up those of batches."""

    count: int
    mean: np.ndarray
    """`[D]`."""
    scatter: np.ndarray
    """Σ (f - mean)(f - mean)ᵀ, `[D, D]`."""


class GaussianStatistics(NamedTuple):
    """Mean and covariance of N features, float64."""

    mean: np.ndarray
    """`[D]`."""
    covariance: np.ndarray
    """`[D, D]`, with the divisor N - 1."""
    count: int | None = None
    """N; None if unknown."""


def moments(features: np.ndarray) -> Moments:
    """Returns the moments of a batch of features `[N, D]`, N ≥ 1.

    Raises:
      ValueError: features that are not a matrix, or not finite.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or not features.size:
        raise ValueError(f"features must be [N, D] with N ≥ 1, not of shape {features.shape}")
    if not np.isfinite(features).all():
        count = int((~np.isfinite(features).all(axis=1)).sum())
        raise ValueError(f"features must be finite; {count} of {len(features)} are not")
    mean = features.mean(axis=0)
    centred = features - mean
    return Moments(len(features), mean, centred.T @ centred)


def merge(*parts: Moments) -> Moments:
    """Returns the moments of all features of the parts together (Chan et al. 1979, without cancellation)."""

    def two(a: Moments, b: Moments) -> Moments:
        count, shift = a.count + b.count, b.mean - a.mean
        between = np.outer(shift, shift) * (a.count * b.count / count)
        return Moments(count, a.mean + shift * (b.count / count), a.scatter + b.scatter + between)

    return functools.reduce(two, parts)


def fit(total: Moments) -> GaussianStatistics:
    """Returns the Gaussian with the moments `total`.

    Raises:
      ValueError: fewer than two features.
    """
    if total.count < 2:
        raise ValueError(f"count={total.count} must be ≥ 2 features for a covariance")
    return GaussianStatistics(total.mean, total.scatter / (total.count - 1), total.count)


def statistics(features: np.ndarray) -> GaussianStatistics:
    """Returns the Gaussian of features `[N, D]`, N ≥ 2."""
    return fit(moments(features))


def check_count(count: int, dim: int) -> None:
    """Checks that the covariance of `count` features of `dim` dimensions can have full rank.

    Raises:
      ValueError: fewer than `dim` + 1 features.
    """
    if count <= dim:
        raise ValueError(
            f"count={count} must be at least {dim + 1} for a Fréchet distance of {dim}-dimensional features"
        )


def frechet_distance(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """Returns ‖μ_a - μ_b‖² + tr(Σ_a + Σ_b - 2·(Σ_a Σ_b)^½).

    The trace of the root is computed as the sum of the roots of the eigenvalues of Σ_a^½ Σ_b Σ_a^½, which is symmetric,
    so singular covariances are allowed.

    Raises:
      ValueError: different dimensions, or statistics of known count with no more features than dimensions.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"statistics must be of one extractor, not of {len(a.mean)} and {len(b.mean)} dimensions")
    for each in (a, b):
        if each.count is not None:
            check_count(each.count, len(each.mean))
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    product = np.linalg.eigvalsh(root @ b.covariance @ root)
    trace_root = np.sum(np.sqrt(np.clip(product, 0.0, None)))
    shift = np.sum((a.mean - b.mean) ** 2)
    return float(shift + np.trace(a.covariance) + np.trace(b.covariance) - 2.0 * trace_root)


def feature_distance(samples: np.ndarray, reference: np.ndarray) -> float:
    """Returns the Fréchet distance between features `[N, D]` and `[M, D]`.

    Raises:
      ValueError: as `moments` and `frechet_distance`.

    Examples:
      Moving all samples by 1 costs 1.

      >>> features = np.random.default_rng(0).normal(size=(100, 1))
      >>> round(feature_distance(features + 1.0, features), 6)
      1.0
    """
    return frechet_distance(statistics(samples), statistics(reference))


def half_split_distance(features: np.ndarray, *, splits: int = 10, seed: int = 0) -> float:
    """Returns the mean Fréchet distance between two random halves of features `[N, D]`.

    Args:
      features: `[N, D]`.
      splits: the number of random splits.
      seed: the seed of the splits.
    """
    return floor(features, (len(features) + 1) // 2, feature_distance, splits=splits, seed=seed)[0]


def save_statistics(path: str | os.PathLike, fitted: GaussianStatistics, protocol: dict[str, Any]) -> None:
    """Writes an npz file that pytorch-fid can read (`mu`, `sigma`), with `count` and, as JSON, `protocol`.

    Args:
      path: the file.
      fitted: the statistics.
      protocol: the images and the extractor that the statistics belong to.
    """
    count = {} if fitted.count is None else {"count": np.int64(fitted.count)}
    facts = {"protocol": json.dumps(protocol), **count}
    write_arrays(path, compressed=False, mu=fitted.mean, sigma=fitted.covariance, **facts)


def load_statistics(path: str | os.PathLike) -> tuple[GaussianStatistics, dict[str, Any]]:
    """Returns (statistics, protocol) from a file of `save_statistics` or of pytorch-fid, which has no protocol ({}).

    Raises:
      UserError: a missing file, or one without statistics.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist")
    try:
        arrays = read_npz(path)
    except ValueError as error:
        raise UserError(str(error)) from error
    if missing := {"mu", "sigma"} - arrays.keys():
        raise UserError(f"{path} must hold mu and sigma; it holds {sorted(arrays)}, without {sorted(missing)}")
    if any(arrays[key].dtype.kind not in "fiu" for key in ("mu", "sigma")):
        raise UserError(f"{path}: mu and sigma must be numbers, not {arrays['mu'].dtype} and {arrays['sigma'].dtype}")
    mean, covariance = (arrays[key].astype(np.float64) for key in ("mu", "sigma"))
    if mean.ndim != 1 or covariance.shape != mean.shape * 2:
        raise UserError(f"{path}: mu must be [D] and sigma [D, D], not {mean.shape} and {covariance.shape}")
    try:
        count = int(arrays["count"]) if "count" in arrays else None
        return GaussianStatistics(mean, covariance, count), json.loads(str(arrays.get("protocol", "{}")))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: count must be a number, and protocol JSON: {error}") from error


METRICS.register(
    Metric("frechet", feature_distance, more_than_dim=True, advice="the kernel distance alone (figures) needs only 2")
)
