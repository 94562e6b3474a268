"""Likelihoods in bits per dimension: the variational bound of DDPM, and exact under the probability-flow ODE.

x_0 is an 8-bit image in [-1, 1], each element one of k/127.5 - 1, k = 0 … 255.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from diffjax.likelihood.flow import PROBES, Exact, exact
from diffjax.likelihood.variational import (
    VARIANCES,
    Bound,
    bound,
    bound_term,
    discretized_gaussian_log_prob,
    normal_kl,
)

__all__ = [
    "PROBES",
    "VARIANCES",
    "Bound",
    "Exact",
    "bound",
    "bound_term",
    "discretized_gaussian_log_prob",
    "exact",
    "mean_and_error",
    "normal_kl",
]


def mean_and_error(values: ArrayLike) -> tuple[Any, Any]:
    """Returns the mean of values `[…, N]` and its standard error, the standard deviation over √N; N ≥ 2, float64."""
    values = np.asarray(values, np.float64)
    return values.mean(-1), values.std(-1, ddof=1) / np.sqrt(values.shape[-1])
