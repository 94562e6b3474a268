"""From a module and its parameters to a `predict` function."""

import dataclasses

import jax
from flax import linen as nn


@dataclasses.dataclass(frozen=True)
class _Apply:
    """`model.apply` that compares equal for equal models, so that a rebuilt model compiles nothing anew."""

    model: nn.Module

    def __call__(self, params, x, t, **condition):
        return self.model.apply({"params": params}, x, t, **condition)


def predictor(model: nn.Module, params, **condition: jax.Array) -> jax.tree_util.Partial:
    """`predict(x, t)` of a model: a pytree whose leaves are the parameters, for `diffjax.sample`.

    A `condition` (`label=`, `image=`), if there is one, is a leaf too: one row for each image of x.
    """
    return jax.tree_util.Partial(_Apply(model), params, **condition)
