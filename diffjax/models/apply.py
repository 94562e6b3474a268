"""Turns a network and its parameters into a `predict` function."""

import dataclasses

import jax

from diffjax.models.base import Network


@dataclasses.dataclass(frozen=True)
class _Apply:
    """Calls `network.apply`; equal networks give equal objects, so a network that is built again is not recompiled."""

    network: Network

    def __call__(self, params, x, t, **condition):
        return self.network.apply({"params": params}, x, t, **condition)


def predictor(network: Network, params, **condition: jax.Array) -> jax.tree_util.Partial:
    """Returns `predict(x, t)` for `diffjax.sample`: a pytree whose leaves are the parameters and the condition.

    Args:
      network: a Linen module that follows the protocol `Network`.
      params: its parameters.
      condition: `label=` or `image=`, one row for each image of x.
    """
    return jax.tree_util.Partial(_Apply(network), params, **condition)
