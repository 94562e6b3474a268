"""Transforms of x̂0 between the network and the step, for `sample(clip=…)`: each a function x̂0 → x̂0, a pytree."""

import jax
import jax.numpy as jnp


def clip(limit: float) -> jax.tree_util.Partial:
    """x̂0 clipped to [-limit, limit] (static thresholding).

    Raises:
      ValueError: a limit that is not above 0.
    """
    return jax.tree_util.Partial(_clip, _checked_limit(limit))


def dynamic(percentile: float = 0.995, limit: float = 1.0) -> jax.tree_util.Partial:
    """Dynamic thresholding (Saharia et al. 2022, Imagen §2.3), sample by sample:

        x̂0 ← clip(x̂0, -s, s)·limit/s,     s = max(limit, the percentile of |x̂0|)

    Args:
      percentile: a fraction in [0, 1], interpolated linearly between elements.
      limit: the range of the data; a sample whose s is `limit` is clipped and nothing else.

    Raises:
      ValueError: a percentile outside [0, 1], or a limit that is not above 0.
    """
    # Compared so that NaN fails.
    if not isinstance(percentile, jax.core.Tracer) and not 0.0 <= percentile <= 1.0:
        raise ValueError(f"percentile={percentile} must lie within [0, 1]: it is a fraction, such as 0.995")
    return jax.tree_util.Partial(_dynamic, _number(percentile), _checked_limit(limit))


def _clip(limit, x0):
    return jnp.clip(x0, -limit, limit)


def _dynamic(percentile, limit, x0):
    quantile = jnp.quantile(jnp.abs(x0), percentile, axis=tuple(range(1, x0.ndim)), keepdims=True)
    s = jnp.maximum(limit, quantile)
    return jnp.clip(x0, -s, s) * (limit / s)


def _checked_limit(limit):
    if not isinstance(limit, jax.core.Tracer) and not limit > 0:
        raise ValueError(f"limit={limit} must be above 0")
    return _number(limit)


def _number(value):
    # A Python float is weakly typed, so that it takes the dtype of x0 in jit.
    return value if isinstance(value, jax.core.Tracer) else float(value)
