"""The floor of a distance: the value that real images get, which samples of a perfect model would get as well."""

from collections.abc import Callable

import numpy as np

Distance = Callable[[np.ndarray, np.ndarray], float]
"""(features `[N, D]`, features `[M, D]`) → a number."""


def floor(
    real: np.ndarray,
    num: int,
    distance: Distance,
    *,
    reference: np.ndarray | None = None,
    splits: int = 10,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns mean and standard deviation of the distance of `num` real features to a reference, over random choices.

    Args:
      real: features `[N, D]`, of which `num` are chosen without replacement.
      num: the number of samples that the floor is for.
      distance: a function of two arrays of features.
      reference: the features that samples are compared with; None compares with those of `real` that are not chosen.
      splits: the number of random choices.
      seed: the seed of the choices.

    Raises:
      ValueError: `num` outside [1, N], or N itself where no `reference` is given.
    """
    most = len(real) - (reference is None)
    if not 1 <= num <= most:
        raise ValueError(f"num={num} must be within [1, {most}] for {len(real)} real features")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(splits):
        chosen, left = np.split(rng.permutation(len(real)), [num])
        values.append(distance(real[chosen], real[left] if reference is None else reference))
    return float(np.mean(values)), float(np.std(values))
