"""A small network for vectors."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffjax.models import embeddings
from diffjax.models.base import short_repr


class MLP(nn.Module):
    """A residual multilayer perceptron for data of the shape `[B, D]`, such as points in the plane.

    Attributes:
      width: The width of the hidden layers, an even number ≥ 4.
      depth: The number of residual blocks, ≥ 0.
      out_channels: The size of the output, or None for D.
      dtype: The type of the arithmetic; parameters are float32.
    """

    width: int = 128
    depth: int = 3
    out_channels: int | None = None
    dtype: Any = jnp.float32

    __repr__ = short_repr

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        t: jax.Array,
        label: jax.Array | None = None,
        image: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array:
        """Predicts from x `[B, D]` and t `[B]`: `[B, out_channels]`. The other arguments are not used."""

        def dense(size):
            return nn.Dense(size, dtype=self.dtype)

        time = nn.silu(dense(self.width)(embeddings.sinusoidal(t, self.width)))
        h = dense(self.width)(x)
        for _ in range(self.depth):
            h = h + dense(self.width)(nn.silu(dense(self.width)(nn.silu(h)) + dense(self.width)(time)))
        out = dense(x.shape[-1] if self.out_channels is None else self.out_channels)(nn.silu(h))
        return out.astype(jnp.promote_types(out.dtype, jnp.float32))
