"""The Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017), in float64.

Features may come all at once (`statistics`) or in batches (`merge` of their `moments`, in any grouping, from any number
of processes): the same figures to rounding.
"""

import functools
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax.errors import UserError


class Moments(NamedTuple):
    """Count, mean `[D]` and Σ (f - mean)(f - mean)ᵀ `[D, D]` of features, float64: what batches add up to."""

    count: int
    mean: np.ndarray
    scatter: np.ndarray


class GaussianStatistics(NamedTuple):
    """Mean `[D]` and covariance `[D, D]` (divisor N - 1) of N features, float64; N is None where it is not known."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int | None = None


def moments(features: np.ndarray) -> Moments:
    """Of a batch of features `[N, D]`, N ≥ 1.

    Raises:
      ValueError: not a matrix, or values that are not finite.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or not features.size:
        raise ValueError(f"features must be [N, D] with N ≥ 1; these have shape {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError(
            f"{int((~np.isfinite(features).all(axis=1)).sum())} of {len(features)} features are not finite"
        )
    mean = features.mean(axis=0)
    centred = features - mean
    return Moments(len(features), mean, centred.T @ centred)


def merge(*parts: Moments) -> Moments:
    """Of all their features together (Chan et al. 1979, which subtracts no large numbers from each other)."""

    def two(a: Moments, b: Moments) -> Moments:
        count, shift = a.count + b.count, b.mean - a.mean
        between = np.outer(shift, shift) * (a.count * b.count / count)
        return Moments(count, a.mean + shift * (b.count / count), a.scatter + b.scatter + between)

    return functools.reduce(two, parts)


def fit(total: Moments) -> GaussianStatistics:
    """The Gaussian of the features in `total`.

    Raises:
      ValueError: fewer than two.
    """
    if total.count < 2:
        raise ValueError(f"a covariance needs N ≥ 2 features; here are {total.count}")
    return GaussianStatistics(total.mean, total.scatter / (total.count - 1), total.count)


def statistics(features: np.ndarray) -> GaussianStatistics:
    """The Gaussian of features `[N, D]`, N ≥ 2."""
    return fit(moments(features))


def check_count(count: int, dim: int, what: str = "samples") -> None:
    """Whether the covariance of so many features can have full rank.

    Raises:
      ValueError: fewer than `dim` + 1.
    """
    if count <= dim:
        raise ValueError(f"{count} {what}: a Fréchet distance of {dim}-dimensional features needs at least {dim + 1}")


def frechet_distance(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """‖μ_a - μ_b‖² + tr(Σ_a + Σ_b - 2·(Σ_a Σ_b)^½).

    The trace of the root is the sum of the roots of the eigenvalues of Σ_a^½ Σ_b Σ_a^½, which is symmetric, so that
    singular covariances do no harm.

    Raises:
      ValueError: different dimensions, or statistics of known count with no more features than dimensions.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"statistics of {len(a.mean)} and of {len(b.mean)} dimensions: not of the same extractor")
    for each in (a, b):
        if each.count is not None:
            check_count(each.count, len(each.mean), "features")
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    product = np.linalg.eigvalsh(root @ b.covariance @ root)
    trace_root = np.sum(np.sqrt(np.clip(product, 0.0, None)))
    shift = np.sum((a.mean - b.mean) ** 2)
    return float(shift + np.trace(a.covariance) + np.trace(b.covariance) - 2.0 * trace_root)


def feature_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The Fréchet distance between features `[N, D]` and `[M, D]`."""
    return frechet_distance(statistics(a), statistics(b))


def save_statistics(path: str | os.PathLike, fitted: GaussianStatistics, protocol: dict[str, Any]) -> None:
    """Writes an npz that pytorch-fid reads as well (`mu`, `sigma`), with `count` and the `protocol` as JSON beside."""
    count = {} if fitted.count is None else {"count": np.int64(fitted.count)}
    with open(path, "wb") as file:  # np.savez would append .npz to the name
        np.savez(file, mu=fitted.mean, sigma=fitted.covariance, protocol=np.array(json.dumps(protocol)), **count)


def load_statistics(path: str | os.PathLike) -> tuple[GaussianStatistics, dict[str, Any]]:
    """(statistics, protocol) that `save_statistics` or pytorch-fid wrote; of the latter the protocol is empty.

    Raises:
      UserError: no such file, or not one of statistics.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} is not there")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise UserError(f"{path} is no npz of arrays: {error}") from error
    if missing := {"mu", "sigma"} - arrays.keys():
        raise UserError(f"{path} holds {sorted(arrays)}, no {' and no '.join(sorted(missing))}: not statistics")
    mean, covariance = (arrays[key].astype(np.float64) for key in ("mu", "sigma"))
    if mean.ndim != 1 or covariance.shape != mean.shape * 2:
        raise UserError(f"{path}: mu must be [D] and sigma [D, D]; these are {mean.shape} and {covariance.shape}")
    count = int(arrays["count"]) if "count" in arrays else None
    return GaussianStatistics(mean, covariance, count), json.loads(str(arrays.get("protocol", "{}")))


Distance = Callable[[np.ndarray, np.ndarray], float]


def floor(
    real: np.ndarray,
    num: int,
    *,
    reference: np.ndarray | None = None,
    distance: Distance = feature_distance,
    splits: int = 10,
    seed: int = 0,
) -> tuple[float, float]:
    """What `num` samples that are real ones would get: mean and standard deviation of `distance` over random draws.

    Args:
      real: features `[N, D]` that `num` are drawn from, without repeats.
      num: as many as there are samples.
      reference: what samples are compared with; None is what is left of `real`.
      distance: of two arrays of features.
      splits: how many draws.
      seed: of the draws.

    Raises:
      ValueError: `num` outside [1, N], or N itself where no `reference` is given.
    """
    most = len(real) - (reference is None)
    if not 1 <= num <= most:
        raise ValueError(f"num={num} of {len(real)} real features: must lie within [1, {most}]")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(splits):
        drawn, left = np.split(rng.permutation(len(real)), [num])
        values.append(distance(real[drawn], real[left] if reference is None else reference))
    return float(np.mean(values)), float(np.std(values))


def half_split_distance(features: np.ndarray, *, splits: int = 10, seed: int = 0) -> float:
    """The mean Fréchet distance between two random halves of the same features `[N, D]`."""
    return floor(features, (len(features) + 1) // 2, splits=splits, seed=seed)[0]
