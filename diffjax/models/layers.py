"""The UNet's parts. All take and give `[B, H, W, C]`; normalisation and softmax run in float32 or wider."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

Dtype = Any


def ddpm_init(scale: float = 1.0):
    """Uniform, variance `scale`/(mean of fan-in and fan-out); scale 0 gives all but zeros (DDPM's code)."""
    return nn.initializers.variance_scaling(max(scale, 1e-10), "fan_avg", "uniform")


def conv3x3(channels: int, *, dtype: Dtype, stride: int = 1, init_scale: float = 1.0, name: str) -> nn.Conv:
    """A 3×3 convolution. With stride 2 an even size is padded at the bottom and the right alone (TensorFlow's SAME)."""
    padding = ((1, 1), (1, 1)) if stride == 1 else ((0, 1), (0, 1))
    return nn.Conv(
        channels, (3, 3), strides=stride, padding=padding, dtype=dtype, kernel_init=ddpm_init(init_scale), name=name
    )


def dense(features: int, *, dtype: Dtype, init_scale: float = 1.0, name: str) -> nn.Dense:
    """A linear map of the last axis: also a 1×1 convolution."""
    return nn.Dense(features, dtype=dtype, kernel_init=ddpm_init(init_scale), name=name)


class GroupNorm(nn.Module):
    """Group normalisation (Wu & He 2018) in float32 or wider, ε = 1e-6; the result is cast to `dtype`.

    Raises:
      ValueError: channels that `groups` does not divide.
    """

    groups: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[…, C]` → the same."""
        if x.shape[-1] % self.groups:
            raise ValueError(f"groups={self.groups} does not divide {x.shape[-1]} channels (config.model.groups)")
        wide = jnp.promote_types(self.dtype, jnp.float32)
        norm = nn.GroupNorm(self.groups, epsilon=1e-6, dtype=wide, name="norm")
        return norm(x.astype(wide)).astype(self.dtype)


class ResBlock(nn.Module):
    """Norm, swish, convolution, twice; the time embedding is added in between, the input (projected) at the end."""

    channels: int
    groups: int
    dropout: float
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array, emb: jax.Array, *, train: bool) -> jax.Array:
        """x `[B, H, W, C]` and the embedding `[B, E]` → `[B, H, W, channels]`."""
        h = nn.swish(GroupNorm(self.groups, self.dtype, name="norm1")(x))
        h = conv3x3(self.channels, dtype=self.dtype, name="conv1")(h)
        h += dense(self.channels, dtype=self.dtype, name="emb")(nn.swish(emb))[:, None, None, :]
        h = nn.swish(GroupNorm(self.groups, self.dtype, name="norm2")(h))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = conv3x3(self.channels, dtype=self.dtype, init_scale=0.0, name="conv2")(h)
        if x.shape[-1] != self.channels:
            x = dense(self.channels, dtype=self.dtype, name="shortcut")(x)
        return x + h


class Attention(nn.Module):
    """Self-attention of all positions with one head, softmax(qkᵀ/√C)·v, added to the input."""

    groups: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` → the same."""
        batch, height, width, channels = x.shape
        h = GroupNorm(self.groups, self.dtype, name="norm")(x).reshape(batch, height * width, channels)
        q, k, v = (dense(channels, dtype=self.dtype, name=name)(h)[:, :, None, :] for name in ("q", "k", "v"))
        h = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
        return x + dense(channels, dtype=self.dtype, init_scale=0.0, name="out")(h)


class Downsample(nn.Module):
    """Halves height and width by a convolution."""

    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` → `[B, H/2, W/2, C]`."""
        return conv3x3(x.shape[-1], dtype=self.dtype, stride=2, name="conv")(x)


class Upsample(nn.Module):
    """Doubles height and width, nearest neighbour, then a convolution."""

    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` → `[B, 2H, 2W, C]`."""
        x = x.repeat(2, axis=1).repeat(2, axis=2)
        return conv3x3(x.shape[-1], dtype=self.dtype, name="conv")(x)
