"""Shards of arrays, one for each device, within pmap: what `train.shard_optimizer` splits (ZeRO stage 1).

Each array is flattened, filled up with zeros to a multiple of the number of devices, and cut into equal parts
(Rajbhandari et al. 2020, §5.1). Scalars are not cut.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Shards(NamedTuple):
    """How pytrees are cut: into `count` parts along the mapped axis `axis`."""

    axis: str
    count: int

    def own(self, tree: Any) -> Any:
        """Returns this device's shards `[⌈size/count⌉]` of arrays that all devices have."""
        start = lax.axis_index(self.axis)

        def cut(array):
            flat = self._flat(array)
            share = len(flat) // self.count
            return lax.dynamic_slice(flat, (start * share,), (share,))

        return jax.tree.map(lambda array: cut(array) if array.ndim else array, tree)

    def sum(self, tree: Any) -> Any:
        """Returns this device's shards of the sum over devices (a reduce-scatter)."""

        def scatter(array):
            return lax.psum_scatter(self._flat(array), self.axis, scatter_dimension=0, tiled=True)

        return jax.tree.map(scatter, tree)

    def whole(self, shards: Any, like: Any) -> Any:
        """Returns the whole arrays, of the shapes of `like`, from the shards of all devices (an all-gather)."""

        def gather(shard, like):
            if not like.ndim:
                return shard
            return lax.all_gather(shard, self.axis, tiled=True)[: like.size].reshape(like.shape)

        return jax.tree.map(gather, shards, like)

    def norm(self, shards: Any) -> jax.Array:
        """Returns the norm of the whole arrays."""
        return jnp.sqrt(lax.psum(sum(jnp.sum(jnp.square(shard)) for shard in jax.tree.leaves(shards)), self.axis))

    def _flat(self, array: jax.Array) -> jax.Array:
        flat = array.reshape(-1)
        return jnp.pad(flat, (0, -len(flat) % self.count))
