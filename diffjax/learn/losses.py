"""Losses of a table for `fit`: functions (table, batch) → scalar that differentiate through the sampling loop."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffjax.prediction import Predict, as_predict, as_pytree
from diffjax.sampling import Clip, sample
from diffjax.steps import Sampler

Loss = Callable[[Sampler, Any], jax.Array]
"""(table, batch of examples) → the mean loss, a scalar."""


def distance(predict: Predict, *, clip: Clip = None, remat: bool = True) -> Loss:
    """Returns the mean squared distance of the results to the targets of `Pairs`.

    Args:
      predict: as in `sample`.
      clip: as in `sample`.
      remat: as in `sample`.
    """
    return jax.tree_util.Partial(_distance, as_predict(predict), clip, remat)


def _distance(predict, clip, remat, table: Sampler, pairs) -> jax.Array:
    return jnp.mean((_sample(table, predict, pairs.x, clip, remat) - pairs.target) ** 2)


def step_distance(predict: Predict, *, clip: Clip = None, remat: bool = True) -> Loss:
    """Returns the mean squared distance of each row's result to a teacher's next state, from its own state.

    Each row is run alone, so no gradient goes through more than one network call. The batch is a part of
    `trajectories`, `[B, S+1, …]`, at the grid of the table, which has to stay.

    Args:
      predict: as in `sample`.
      clip: as in `sample`.
      remat: as in `sample`.

    Raises:
      ValueError: when it is called, a table with histories, or another number of states than its rows and one.
    """
    return jax.tree_util.Partial(_step_distance, as_predict(predict), clip, remat)


def _step_distance(predict, clip, remat, table: Sampler, states: jax.Array) -> jax.Array:
    if np.shape(table.x0_history)[1] or np.shape(table.eps_history)[1]:
        raise ValueError("step_distance runs each row alone: the table must have no histories")
    if states.ndim < 2 or states.shape[1] != table.num_rows + 1:
        raise ValueError(f"states of shape {states.shape} must be [B, {table.num_rows + 1}, …]")
    ends = [
        sample(table[row : row + 1], predict, states[:, row], clip=clip, remat=bool(remat))
        for row in range(table.num_rows)
    ]
    return jnp.mean((jnp.stack(ends, axis=1) - states[:, 1:]) ** 2)


def kernel_distance(
    predict: Predict,
    reference: ArrayLike,
    *,
    features: Callable[[jax.Array], jax.Array] | None = None,
    clip: Clip = None,
    remat: bool = True,
) -> Loss:
    """Returns the unbiased kernel distance of the results to real images, as DDSS (Watson et al. 2022).

    The batch is x_T, `[B, …]`, B ≥ 2. A distance between sets needs larger batches than one between pairs.

    Args:
      predict: as in `sample`.
      reference: features of real images, `[M, D]`, M ≥ 2.
      features: images in [-1, 1] `[B, …]` → features `[B, D]`, differentiable; None: the values in [0, 1].
      clip: as in `sample`.
      remat: as in `sample`.

    Raises:
      ValueError: a reference that is not `[M, D]`.
    """
    reference = jnp.asarray(reference, jnp.result_type(float))
    if reference.ndim != 2 or len(reference) < 2:
        raise ValueError(f"reference of shape {reference.shape} must be [M, D] with M ≥ 2")
    features = as_pytree(_values if features is None else features)
    return jax.tree_util.Partial(_kernel_distance, as_predict(predict), reference, features, clip, remat)


def _values(x: jax.Array) -> jax.Array:
    return (x.reshape(len(x), -1) + 1.0) / 2.0


def _kernel_distance(predict, reference, features, clip, remat, table: Sampler, x: jax.Array) -> jax.Array:
    found = features(_sample(table, predict, x, clip, remat))
    return _within(found) + _within(reference) - 2.0 * jnp.mean(_kernel(found, reference))


def _kernel(x: jax.Array, y: jax.Array) -> jax.Array:
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _within(x: jax.Array) -> jax.Array:
    """Returns the mean of the kernel over pairs of different rows."""
    kernel = _kernel(x, x)
    return (jnp.sum(kernel) - jnp.trace(kernel)) / (len(x) * (len(x) - 1))


def _sample(table: Sampler, predict: Predict, x: jax.Array, clip: Clip, remat: bool) -> jax.Array:
    return sample(table, predict, x, clip=clip, remat=bool(remat))
