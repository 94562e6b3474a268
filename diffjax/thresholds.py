"""Transforms of x̂0 for `sample(clip=…)`: each function here returns a function x̂0 → x̂0, which is a pytree."""

import math

import jax
import jax.numpy as jnp

from diffjax.registry import Registry

THRESHOLDS = Registry("transform of x̂0")
"""Functions (options) → (x̂0 → x̂0)."""


@THRESHOLDS.register
def clip(limit: float = 1.0) -> jax.tree_util.Partial:
    """Clips x̂0 to [-limit, limit] (static thresholding).

    Args:
      limit: the largest absolute value of the data.

    Raises:
      ValueError: a limit that is not > 0 and finite.
    """
    return jax.tree_util.Partial(_clip, _checked_limit(limit))


@THRESHOLDS.register
def dynamic(percentile: float = 0.995, limit: float = 1.0, *, largest: float | None = None) -> jax.tree_util.Partial:
    """Applies dynamic thresholding to each sample (Saharia et al. 2022, Imagen §2.3).

        x̂0 ← clip(x̂0, -s, s)·limit/s,     s = max(limit, the percentile of |x̂0|)

    Args:
      percentile: the percentile as a fraction in [0, 1], interpolated linearly between elements.
      limit: the largest absolute value of the data; a sample with s = `limit` is only clipped.
      largest: the largest s (diffusers' sample_max_value), which is that of every sample if it is below `limit`; None:
        s has no upper bound.

    Raises:
      ValueError: a percentile outside [0, 1], a limit that is not > 0 and finite, or a largest s that is not > 0.

    Examples:
      >>> dynamic(percentile=1.0)(jnp.array([[0.5, -2.0]]))
      Array([[ 0.25, -1.  ]], dtype=float32)
    """
    if not isinstance(percentile, jax.core.Tracer) and not 0.0 <= percentile <= 1.0:
        raise ValueError(f"percentile={percentile} must be within [0, 1]; it is a fraction, such as 0.995")
    limit, largest = _checked_limit(limit), _number(math.inf if largest is None else largest)
    if not isinstance(largest, jax.core.Tracer) and not largest > 0:
        raise ValueError(f"largest={largest} must be > 0")
    return jax.tree_util.Partial(_dynamic, _number(percentile), limit, largest)


def _clip(limit, x0):
    return jnp.clip(x0, -limit, limit)


def _dynamic(percentile, limit, largest, x0):
    quantile = jnp.quantile(jnp.abs(x0), percentile, axis=tuple(range(1, x0.ndim)), keepdims=True)
    s = jnp.clip(quantile, limit, largest)
    return jnp.clip(x0, -s, s) * (limit / s)


def _checked_limit(limit):
    if not isinstance(limit, jax.core.Tracer) and not 0 < limit < math.inf:
        raise ValueError(f"limit={limit} must be > 0 and finite")
    return _number(limit)


def _number(value):
    # A Python float is weakly typed, so that it takes the dtype of x0 in jit.
    return value if isinstance(value, jax.core.Tracer) else float(value)
