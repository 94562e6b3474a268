"""From a module and its parameters to a `predict` function."""

import dataclasses

import jax
from flax import linen as nn


@dataclasses.dataclass(frozen=True)
class _Apply:
    """`model.apply` that compares equal for equal models, so that a rebuilt model compiles nothing anew."""

    model: nn.Module

    def __call__(self, params, x, t):
        return self.model.apply({"params": params}, x, t)


def predictor(model: nn.Module, params) -> jax.tree_util.Partial:
    """`predict(x, t)` of a model: a pytree whose leaves are the parameters, for `diffjax.sample`."""
    return jax.tree_util.Partial(_Apply(model), params)
