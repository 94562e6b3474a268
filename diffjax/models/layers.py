"""The UNet's parts. All take and give `[B, H, W, C]`; normalisation and softmax run in float32 or wider."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

Dtype = Any

NO_LABEL = -1
"""The label of an image that is told to be of no class, as `data.NO_LABEL`."""


def ddpm_init(scale: float = 1.0):
    """Uniform, variance `scale`/(mean of fan-in and fan-out); scale 0 gives all but zeros (DDPM's code)."""
    return nn.initializers.variance_scaling(max(scale, 1e-10), "fan_avg", "uniform")


def conv3x3(
    channels: int,
    *,
    dtype: Dtype,
    stride: int = 1,
    padding: tuple[tuple[int, int], tuple[int, int]] = ((1, 1), (1, 1)),
    init_scale: float = 1.0,
    name: str,
) -> nn.Conv:
    """A 3×3 convolution; `padding` is how many zeros are put before and after, in height and in width."""
    return nn.Conv(
        channels,
        (3, 3),
        strides=stride,
        padding=padding,
        dtype=dtype,
        kernel_init=ddpm_init(init_scale),
        name=name,
    )


def dense(features: int, *, dtype: Dtype, init_scale: float = 1.0, use_bias: bool = True, name: str) -> nn.Dense:
    """A linear map of the last axis: also a 1×1 convolution."""
    return nn.Dense(features, use_bias=use_bias, dtype=dtype, kernel_init=ddpm_init(init_scale), name=name)


def embed(label: jax.Array, num: int, features: int, *, dtype: Dtype, name: str) -> jax.Array:
    """int `[B]` → `[B, features]`: a vector for each class, drawn from N(0, 1) (OpenAI's and abarankab's code).

    `NO_LABEL` gives zeros (Karras et al. 2022, whose code drops labels so): a network that knows it has no more
    parameters than one that does not. Any other label outside 0 … num - 1 gives NaN.
    """
    vectors = nn.Embed(num, features, dtype=dtype, embedding_init=nn.initializers.normal(1.0), name=name)
    # The index -1 would be the last class, and one past the end is NaN.
    given = vectors(jnp.where(label == NO_LABEL, 0, jnp.where(label < 0, num, label)))
    return jnp.where((label == NO_LABEL)[:, None], 0, given)


def halve(x: jax.Array) -> jax.Array:
    """`[B, H, W, C]` → `[B, ⌈H/2⌉, ⌈W/2⌉, C]`: the mean of each 2×2 pixels, or of those of them that are there."""
    odd = [(0, size % 2) for size in x.shape[1:3]]
    return nn.avg_pool(jnp.pad(x, [(0, 0), *odd, (0, 0)], mode="edge"), (2, 2), strides=(2, 2))


def double(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """`[B, H, W, C]` → `[B, *size, C]`: each pixel four times, but for the last where `size` is odd."""
    return x.repeat(2, axis=1).repeat(2, axis=2)[:, : size[0], : size[1]]


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """softmax(qkᵀ/√d)·v of `[B, N, heads, d]`; in float64 by hand, since JAX's own has its softmax in float32."""
    if q.dtype != jnp.float64:
        return jax.nn.dot_product_attention(q, k, v)
    weights = jax.nn.softmax(jnp.einsum("bnhd,bmhd->bhnm", q, k) / math.sqrt(q.shape[-1]), axis=-1)
    return jnp.einsum("bhnm,bmhd->bnhd", weights, v)


class _ScaleAndShift(nn.Module):
    """What a norm has learned: a factor and a summand for each channel."""

    @nn.compact
    def __call__(self, channels: int) -> tuple[jax.Array, jax.Array]:
        """Two of `[C]`."""
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        return scale, self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)


class GroupNorm(nn.Module):
    """Group normalisation (Wu & He 2018) in float32 or wider; the result is cast to `dtype`.

    Mean and variance, E[x²] - E[x]², come from sums over each channel, and go into one factor and one summand for it:
    the image itself is read twice and never cut into groups (on the CPU half the time of a norm that does).

    Raises:
      ValueError: channels that `groups` does not divide.
    """

    groups: int
    epsilon: float = 1e-6
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, …, C]` → the same."""
        channels = x.shape[-1]
        if self.groups < 1 or channels % self.groups:
            raise ValueError(f"groups={self.groups} does not divide {channels} channels (config.model.groups)")
        wide = jnp.promote_types(self.dtype, jnp.float32)
        scale, bias = (leaf.astype(wide) for leaf in _ScaleAndShift(name="norm")(channels))
        x = x.astype(wide)

        def mean(values):
            of_channels = jnp.mean(values, axis=range(1, x.ndim - 1))
            of_groups = jnp.mean(of_channels.reshape(len(x), self.groups, -1), axis=-1)
            return jnp.repeat(of_groups, channels // self.groups, axis=-1)

        center = mean(x)
        factor = scale * jax.lax.rsqrt(jnp.maximum(mean(x * x) - center * center, 0) + self.epsilon)
        summand = bias - center * factor
        each = (len(x), *(1,) * (x.ndim - 2), channels)
        return (x * factor.reshape(each) + summand.reshape(each)).astype(self.dtype)


class ResBlock(nn.Module):
    """Norm, swish, convolution, twice; the time embedding goes in between, the input (projected) is added at the end.

    The embedding is projected and added (DDPM), or, with `scale_shift`, is projected to a scale and a shift of the
    second norm's result, h·(1 + scale) + shift (FiLM; Nichol & Dhariwal 2021). `class_bias`, if it is a number of
    classes, adds a vector for each label (abarankab). `resample` (halves or doubles) acts on both branches, in front
    of the first convolution (guided diffusion).
    """

    channels: int
    norm: Callable[..., nn.Module]
    dropout: float
    dtype: Dtype
    scale_shift: bool = False
    activate_embedding: bool = True
    class_bias: int | None = None
    resample: Callable[[jax.Array], jax.Array] | None = None

    @nn.compact
    def __call__(self, x: jax.Array, emb: jax.Array, label: jax.Array | None) -> jax.Array:
        """x `[B, H, W, C]`, the embedding `[B, E]` and, for a class bias, int `[B]` → `[B, H', W', channels]`."""
        h = nn.swish(self.norm(name="norm1")(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = conv3x3(self.channels, dtype=self.dtype, name="conv1")(h)
        emb = nn.swish(emb) if self.activate_embedding else emb
        emb = dense(self.channels * (2 if self.scale_shift else 1), dtype=self.dtype, name="emb")(emb)[:, None, None, :]
        if self.class_bias is not None:
            h += embed(label, self.class_bias, self.channels, dtype=self.dtype, name="class_bias")[:, None, None, :]
        if self.scale_shift:
            scale, shift = jnp.split(emb, 2, axis=-1)
            h = self.norm(name="norm2")(h) * (1 + scale) + shift
        else:
            h = self.norm(name="norm2")(h + emb)
        h = nn.Dropout(self.dropout, deterministic=False)(nn.swish(h))
        h = conv3x3(self.channels, dtype=self.dtype, init_scale=0.0, name="conv2")(h)
        if x.shape[-1] != self.channels:
            x = dense(self.channels, dtype=self.dtype, name="shortcut")(x)
        return x + h


class Attention(nn.Module):
    """Self-attention of all positions, softmax(qkᵀ/√d)·v in each head of d channels, added to the input.

    There are `num_heads` heads or, where `head_channels` is given, as many as it takes of so many channels.

    Raises:
      ValueError: heads that do not divide the channels.
    """

    norm: Callable[..., nn.Module]
    dtype: Dtype
    num_heads: int = 1
    head_channels: int | None = None
    qkv_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` → the same."""
        batch, height, width, channels = x.shape
        heads = (batch, height * width, *self._heads(channels))
        h = self.norm(name="norm")(x).reshape(batch, height * width, channels)
        q, k, v = (
            dense(channels, dtype=self.dtype, use_bias=self.qkv_bias, name=name)(h).reshape(heads)
            for name in ("q", "k", "v")
        )
        h = attend(q, k, v).reshape(x.shape)
        return x + dense(channels, dtype=self.dtype, init_scale=0.0, name="out")(h)

    def _heads(self, channels: int) -> tuple[int, int]:
        """The number of heads and the channels of each."""
        field = "num_heads" if self.head_channels is None else "head_channels"
        divisor = getattr(self, field)
        if divisor < 1 or channels % divisor:
            raise ValueError(f"{field}={divisor} does not divide {channels} channels (config.model.{field})")
        other = channels // divisor
        return (divisor, other) if field == "num_heads" else (other, divisor)


class Downsample(nn.Module):
    """Halves height and width by a convolution, an odd one to its ceiling.

    `padding` zeros before and after: (0, 1) is TensorFlow's SAME for an even size (DDPM), (1, 1) is PyTorch's usual. An
    odd size has one more after it, so that a pixel looks at the same places whatever the size.
    """

    padding: tuple[int, int]
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` → `[B, ⌈H/2⌉, ⌈W/2⌉, C]`."""
        before, after = self.padding
        padding = tuple((before, after + size % 2) for size in x.shape[1:3])
        return conv3x3(x.shape[-1], dtype=self.dtype, stride=2, padding=padding, name="conv")(x)


class Upsample(nn.Module):
    """Doubles height and width to `size`, nearest neighbour, then a convolution."""

    size: tuple[int, int]
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` → `[B, *size, C]`."""
        return conv3x3(x.shape[-1], dtype=self.dtype, name="conv")(double(x, self.size))
