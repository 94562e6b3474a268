"""Layers of the networks, `[B, H, W, C]` in and out; normalisation and softmax are computed in float32 or wider."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.convolution import conv_general_dilated

Dtype = Any

NO_LABEL = -1
"""The label that stands for no class in classifier-free guidance; the same as `data.NO_LABEL`."""


Activation = Literal["swish", "relu", "gelu", "mish"]

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "swish": nn.swish,
    "relu": nn.relu,
    "gelu": partial(nn.gelu, approximate=False),
    "mish": jax.nn.mish,
}


def ddpm_init(scale: float = 1.0):
    """Initialises uniformly, with variance `scale`/(mean of fan-in and fan-out); scale 0 is almost 0 (DDPM's code)."""
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
    """Builds a 3×3 convolution; `padding` is the number of zeros (before, after) along height and along width."""
    return nn.Conv(
        channels,
        (3, 3),
        strides=stride,
        padding=padding,
        dtype=dtype,
        kernel_init=ddpm_init(init_scale),
        conv_general_dilated=conv_general_dilated,
        name=name,
    )


def dense(features: int, *, dtype: Dtype, init_scale: float = 1.0, use_bias: bool = True, name: str) -> nn.Dense:
    """Builds a linear map of the last axis, which is also a 1×1 convolution."""
    return nn.Dense(features, use_bias=use_bias, dtype=dtype, kernel_init=ddpm_init(init_scale), name=name)


def embed(label: jax.Array, num: int, features: int, *, dtype: Dtype, name: str) -> jax.Array:
    """Embeds labels, int `[B]`, as `[B, features]`: one vector per class, sampled from N(0, 1) at initialisation.

    (OpenAI's and abarankab's code.) `NO_LABEL` gives zeros (Karras et al. 2022, whose code drops labels in this way),
    so label dropout adds no parameters. Any other label outside 0 … num - 1 gives NaN.
    """
    vectors = nn.Embed(num, features, dtype=dtype, embedding_init=nn.initializers.normal(1.0), name=name)
    # `Embed` would read -1 as the last class; an index past the end gives NaN.
    given = vectors(jnp.where(label == NO_LABEL, 0, jnp.where(label < 0, num, label)))
    return jnp.where((label == NO_LABEL)[:, None], 0, given)


def only_classes(vectors: jax.Array, label: jax.Array, num: int) -> jax.Array:
    """Returns vectors `[B, C]` where the label, int `[B]`, is a class; zeros for `NO_LABEL`, NaN for any other."""
    label = label[:, None]
    inside = jnp.where((label >= 0) & (label < num), vectors, jnp.nan)
    return jnp.where(label == NO_LABEL, 0, inside)


def halve(x: jax.Array) -> jax.Array:
    """Averages blocks of 2×2 pixels, at an odd edge the part inside: `[B, H, W, C]` → `[B, ⌈H/2⌉, ⌈W/2⌉, C]`."""
    odd = [(0, size % 2) for size in x.shape[1:3]]
    return nn.avg_pool(jnp.pad(x, [(0, 0), *odd, (0, 0)], mode="edge"), (2, 2), strides=(2, 2))


def double(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Repeats each pixel 2×2 times and crops to `size`: `[B, H, W, C]` → `[B, *size, C]`."""
    return x.repeat(2, axis=1).repeat(2, axis=2)[:, : size[0], : size[1]]


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Returns softmax(qkᵀ/√d)·v of arrays `[B, N, heads, d]`."""
    # JAX's own function computes the softmax in float32.
    if q.dtype != jnp.float64:
        return jax.nn.dot_product_attention(q, k, v)
    weights = jax.nn.softmax(jnp.einsum("bnhd,bmhd->bhnm", q, k) / math.sqrt(q.shape[-1]), axis=-1)
    return jnp.einsum("bhnm,bmhd->bnhd", weights, v)


class _ScaleAndShift(nn.Module):
    """The parameters of a norm: a factor and a summand for each channel."""

    @nn.compact
    def __call__(self, channels: int) -> tuple[jax.Array, jax.Array]:
        """Returns the factors and the summands, each `[C]`."""
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        return scale, self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)


class GroupNorm(nn.Module):
    """Group normalisation (Wu & He 2018) in float32 or wider; the result is cast to `dtype`.

    Mean and variance, E[x²] - E[x]², are computed from sums over each channel and become one factor and one summand per
    channel, so the image is read twice and never reshaped into groups (half the time of the usual norm on a CPU).

    Attributes:
      num_groups: The number of groups; must divide the channels.
      epsilon: The number added to the variance.
      dtype: The type of the result.
    """

    num_groups: int
    epsilon: float = 1e-6
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises x `[B, …, C]`.

        Raises:
          ValueError: channels that `num_groups` does not divide.
        """
        channels = x.shape[-1]
        if self.num_groups < 1 or channels % self.num_groups:
            raise ValueError(f"num_groups={self.num_groups} must divide {channels} channels")
        wide = jnp.promote_types(self.dtype, jnp.float32)
        scale, bias = (leaf.astype(wide) for leaf in _ScaleAndShift(name="norm")(channels))
        x = x.astype(wide)

        def mean(values):
            of_channels = jnp.mean(values, axis=range(1, x.ndim - 1))
            of_groups = jnp.mean(of_channels.reshape(len(x), self.num_groups, -1), axis=-1)
            return jnp.repeat(of_groups, channels // self.num_groups, axis=-1)

        center = mean(x)
        factor = scale * jax.lax.rsqrt(jnp.maximum(mean(x * x) - center * center, 0) + self.epsilon)
        summand = bias - center * factor
        each = (len(x), *(1,) * (x.ndim - 2), channels)
        return (x * factor.reshape(each) + summand.reshape(each)).astype(self.dtype)


class ResBlock(nn.Module):
    """A residual block: norm, activation, convolution, twice; its input (projected if channels differ) is added last.

    Between the two convolutions the time embedding is projected and added (DDPM), or, with `use_scale_shift_norm`,
    projected to a scale and a shift of the second norm's result, h·(1 + scale) + shift (FiLM; Nichol & Dhariwal 2021).

    Attributes:
      channels: The channels of the result.
      norm: A function (name=) → a normalisation.
      dropout: The probability of dropout.
      dtype: The type of the arithmetic.
      use_scale_shift_norm: Whether the embedding scales and shifts the second norm instead of being added before it.
      activation: The name of the activation.
      activate_embedding: Whether the activation is applied to the embedding before it is projected.
      class_bias: The number of classes if a learned vector per class is added (as abarankab does), or None.
      resample: A function that halves or doubles the size on both branches before conv1 (guided diffusion), or None.
      output_scale: The number by which the result is divided.
    """

    channels: int
    norm: Callable[..., nn.Module]
    dropout: float
    dtype: Dtype
    activation: Activation = "swish"
    use_scale_shift_norm: bool = False
    activate_embedding: bool = True
    class_bias: int | None = None
    resample: Callable[[jax.Array], jax.Array] | None = None
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array, emb: jax.Array, label: jax.Array | None) -> jax.Array:
        """Returns `[B, H', W', channels]`.

        Args:
          x: `[B, H, W, C]`.
          emb: the time embedding, `[B, E]`.
          label: int `[B]` if there is a class bias.
        """
        activate = _ACTIVATIONS[self.activation]
        h = activate(self.norm(name="norm1")(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = conv3x3(self.channels, dtype=self.dtype, name="conv1")(h)
        emb = activate(emb) if self.activate_embedding else emb
        width = self.channels * (2 if self.use_scale_shift_norm else 1)
        emb = dense(width, dtype=self.dtype, name="emb")(emb)[:, None, None, :]
        if self.class_bias is not None:
            h += embed(label, self.class_bias, self.channels, dtype=self.dtype, name="class_bias")[:, None, None, :]
        if self.use_scale_shift_norm:
            scale, shift = jnp.split(emb, 2, axis=-1)
            h = self.norm(name="norm2")(h) * (1 + scale) + shift
        else:
            h = self.norm(name="norm2")(h + emb)
        h = nn.Dropout(self.dropout, deterministic=False)(activate(h))
        h = conv3x3(self.channels, dtype=self.dtype, init_scale=0.0, name="conv2")(h)
        if x.shape[-1] != self.channels:
            x = dense(self.channels, dtype=self.dtype, name="shortcut")(x)
        return _divided(x + h, self.output_scale)


def _divided(x: jax.Array, scale: float) -> jax.Array:
    return x if scale == 1.0 else x / scale


class Attention(nn.Module):
    """Self-attention over all positions, softmax(qkᵀ/√d)·v in each head of d channels, added to the input.

    Attributes:
      norm: A function (name=) → a normalisation, or None for none.
      dtype: The type of the arithmetic.
      num_heads: The number of heads.
      num_head_channels: The channels of each head, or None to choose them by `num_heads`; C channels have
        ⌊C/num_head_channels⌋ heads, and what they leave over is no channel of q, k and v.
      qkv_bias: Whether the query, key and value projections have a bias.
      output_scale: The number by which the result is divided.
    """

    norm: Callable[..., nn.Module] | None
    dtype: Dtype
    num_heads: int = 1
    num_head_channels: int | None = None
    qkv_bias: bool = True
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `[B, H, W, C]`.

        Raises:
          ValueError: heads that do not fit the channels.
        """
        batch, height, width, channels = x.shape
        heads, size = self._heads(channels)
        h = x if self.norm is None else self.norm(name="norm")(x)
        h = h.reshape(batch, height * width, channels)
        q, k, v = (
            dense(heads * size, dtype=self.dtype, use_bias=self.qkv_bias, name=name)(h).reshape(
                batch, height * width, heads, size
            )
            for name in ("q", "k", "v")
        )
        h = attend(q, k, v).reshape(batch, height, width, heads * size)
        h = x + dense(channels, dtype=self.dtype, init_scale=0.0, name="out")(h)
        return _divided(h, self.output_scale)

    def _heads(self, channels: int) -> tuple[int, int]:
        """Returns the number of heads and the channels of each."""
        if self.num_head_channels is not None:
            if not 1 <= self.num_head_channels <= channels:
                raise ValueError(f"num_head_channels={self.num_head_channels} must be at most {channels} channels")
            return channels // self.num_head_channels, self.num_head_channels
        if self.num_heads < 1 or channels % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} must divide {channels} channels")
        return self.num_heads, channels // self.num_heads


class Downsample(nn.Module):
    """Halves height and width by a convolution; an odd size is rounded up.

    Attributes:
      padding: The zeros before and after an even size: (0, 1) is TensorFlow's SAME (DDPM), (1, 1) is usual in PyTorch.
        An odd size gets one more zero after it, so the positions of the kernel do not depend on the size.
      dtype: The type of the arithmetic.
    """

    padding: tuple[int, int]
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `[B, ⌈H/2⌉, ⌈W/2⌉, C]`."""
        before, after = self.padding
        padding = tuple((before, after + size % 2) for size in x.shape[1:3])
        return conv3x3(x.shape[-1], dtype=self.dtype, stride=2, padding=padding, name="conv")(x)


class Upsample(nn.Module):
    """Doubles height and width by repeating pixels, then applies a convolution.

    Attributes:
      size: (height, width) of the result.
      dtype: The type of the arithmetic.
    """

    size: tuple[int, int]
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `[B, *size, C]`."""
        return conv3x3(x.shape[-1], dtype=self.dtype, name="conv")(double(x, self.size))
