"""The diffusion transformer DiT (Peebles & Xie 2023, "Scalable Diffusion Models with Transformers").

The published sizes, each with a patch size of 2, 4 or 8, at 32×32×4 latents with `num_classes=1000, out_channels=8`:

    S   hidden_size=384,  depth=12, num_heads=6      L   hidden_size=1024, depth=24, num_heads=16
    B   hidden_size=768,  depth=12, num_heads=12     XL  hidden_size=1152, depth=28, num_heads=16
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffjax.models import checks, embeddings, layers
from diffjax.models.base import NETWORKS, short_repr

TIME_CHANNELS = 256
"""The width of the sinusoidal embedding of t."""

_RANGES = {
    "patch_size": {"low": 1, "high": 256},
    "hidden_size": {"low": 4, "high": checks.LARGEST_WIDTH},
    "depth": {"low": 1, "high": 200},
    "num_heads": {"low": 1, "high": checks.LARGEST_WIDTH},
    "mlp_ratio": {"above": 0.0, "high": 64.0},
    "num_classes": {"low": 1, "high": 10**6},
    "out_channels": {"low": 1, "high": checks.LARGEST_WIDTH},
    "dropout": {"low": 0.0, "below": 1.0},
    "norm_eps": checks.EPSILON,
    "mlp_norm_eps": checks.EPSILON,
    "freq_shift": {"choices": (0, 1)},
}

_xavier = partial(nn.initializers.variance_scaling, mode="fan_avg", distribution="uniform")
_normal = nn.initializers.normal(0.02)


@NETWORKS.register(name="dit")
class DiT(nn.Module):
    """The diffusion transformer with adaLN-Zero blocks. With the defaults, DiT-S/2 without classes.

    The image is cut into patches; each is projected to a token, to which the fixed embedding of its position is added.
    Positions count from 0 in every image, so images may be of any size that the patch divides. The embeddings of t and
    of the label are added; in each block they are projected to shifts, scales and gates of attention and MLP. Gates
    and output start at zero, so at initialisation each block is the identity and the network predicts 0.

    Attributes:
      patch_size: The height and width of a patch, 1 … 256; must divide the height and width of the images.
      hidden_size: The width of a token, a multiple of 4 within 4 … 65536.
      depth: The number of transformer blocks, 1 … 200.
      num_heads: The number of heads of each attention, ≥ 1; must divide hidden_size.
      mlp_ratio: The width of the hidden layer of each block's MLP, in units of hidden_size, within (0, 64].
      num_classes: The number of classes, ≥ 1, or None for an unconditional network.
      out_channels: The channels of the output, or None for as many as x has; a learned variance needs twice as many.
      dropout: The probability of dropout after attention and inside the MLP, within [0, 1).
      dtype: The type of the arithmetic; parameters, normalisation and softmax are float32 or wider.
      qkv_bias: Whether the query, key and value projections have a bias.
      norm_eps: The number added to the variance in the layer norms, within [1e-12, 1).
      mlp_norm_eps: The norm_eps of the layer norms before the MLPs, or None for the same; 1e-5 in diffusers' networks.
      freq_shift: 0 if the time embedding's frequencies end one step before 10⁻⁴ as in DiT's code, 1 if they end there
        as in diffusers' networks.
      remat: Whether the backward pass recomputes each block, which takes less memory and more time.
    """

    patch_size: int = 2
    hidden_size: int = 384
    depth: int = 12
    num_heads: int = 6
    mlp_ratio: float = 4.0
    num_classes: int | None = None
    out_channels: int | None = None
    dropout: float = 0.0
    dtype: Any = jnp.float32
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    mlp_norm_eps: float | None = None
    freq_shift: int = 0
    remat: bool = False

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
        """Predicts ε (or another target, and a variance) from x_t and t.

        Args:
          x: x_t, `[B, H, W, C]`.
          t: timesteps or noise levels, `[B]`, int or float.
          label: int `[B]`, each within 0 … num_classes - 1, or `NO_LABEL` = -1 for no class, which has a learned vector
            as in DiT's code. Where tracing hides the values, a label outside this range gives NaN.
          image: a condition image, `[B, H, W, Ci]`, whose channels are appended to those of x; pass one to `init` to
            get a network that takes it.
          train: whether dropout is applied; then pass `rngs={"dropout": key}` to `apply`.

        Returns:
          `[B, H, W, out_channels]` in float32 or wider.

        Raises:
          ValueError: an invalid field; a label or an image that is missing, superfluous, or of a wrong shape or range.
        """
        self._check(x, t, label, image)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        out_channels, patch = self.out_channels or x.shape[-1], (self.patch_size, self.patch_size)
        x = x if image is None else jnp.concatenate([x, image.astype(x.dtype)], axis=-1)

        # Initialised like the linear map of a patch, which this convolution is.
        kernel_init = _xavier(1.0, in_axis=(0, 1, 2), out_axis=3)
        project = nn.Conv(self.hidden_size, patch, patch, dtype=self.dtype, kernel_init=kernel_init, name="patch")
        h = project(x.astype(self.dtype))
        batch, rows, columns, _ = h.shape
        h += embeddings.positions_2d(rows, columns, self.hidden_size).astype(self.dtype)
        h = h.reshape(batch, rows * columns, self.hidden_size)

        emb = nn.swish(self._embed(t, label, wide))
        block = nn.remat(Block) if self.remat else Block
        for i in range(self.depth):
            h = block(
                num_heads=self.num_heads,
                mlp_size=max(1, int(self.hidden_size * self.mlp_ratio)),
                dropout=self.dropout if train else 0.0,
                dtype=self.dtype,
                qkv_bias=self.qkv_bias,
                norm_eps=self.norm_eps,
                mlp_norm_eps=self.norm_eps if self.mlp_norm_eps is None else self.mlp_norm_eps,
                name=f"block_{i}",
            )(h, emb)

        zero = partial(nn.Dense, dtype=self.dtype, kernel_init=nn.initializers.zeros)
        shift, scale = jnp.split(zero(2 * self.hidden_size, name="modulation_out")(emb), 2, axis=-1)
        h = modulated_norm(h, shift, scale, epsilon=self.norm_eps, dtype=self.dtype)
        h = zero(self.patch_size**2 * out_channels, name="out")(h)
        h = h.reshape(batch, rows, columns, *patch, out_channels).swapaxes(2, 3)
        return h.reshape(batch, *x.shape[1:3], out_channels).astype(wide)

    def _embed(self, t: jax.Array, label: jax.Array | None, wide: Any) -> jax.Array:
        """Embeds t `[B]` and, for a network with classes, the label `[B]`, as `[B, hidden_size]`."""
        dense = partial(nn.Dense, self.hidden_size, dtype=self.dtype, kernel_init=_normal)
        emb = embeddings.sinusoidal(t, TIME_CHANNELS, wide, order="cos_sin", freq_shift=self.freq_shift)
        emb = dense(name="time_1")(emb.astype(self.dtype))
        emb = dense(name="time_2")(nn.swish(emb))
        if label is not None:
            num = self.num_classes
            vectors = nn.Embed(num + 1, self.hidden_size, dtype=self.dtype, embedding_init=_normal, name="class")
            # Row `num` is the vector for no class; a row past the end gives NaN.
            invalid = (label < 0) | (label >= num)
            emb += vectors(jnp.where(label == layers.NO_LABEL, num, jnp.where(invalid, num + 1, label)))
        return emb

    def _check(self, x: jax.Array, t: jax.Array, label: jax.Array | None, image: jax.Array | None) -> None:
        checks.check_fields(self, _RANGES)
        if self.hidden_size % 4:
            raise ValueError(f"hidden_size={self.hidden_size} must be a multiple of 4")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} must divide hidden_size={self.hidden_size}")
        if self.hidden_size * self.mlp_ratio > 4 * checks.LARGEST_WIDTH:
            raise ValueError(f"mlp_ratio={self.mlp_ratio} must be smaller for hidden_size={self.hidden_size}")
        checks.check_inputs(x, t, label, image, self.num_classes)
        height, width = x.shape[1:3]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"patch_size={self.patch_size} must divide the images' height {height} and width {width}")
        checks.check_channels(self, "patch", x, image)


class Block(nn.Module):
    """A transformer block with adaLN-Zero: attention, then an MLP, each after a modulated norm and added by a gate.

    Attributes:
      num_heads: The number of heads of the attention.
      mlp_size: The width of the hidden layer of the MLP.
      dropout: The probability of dropout.
      dtype: The type of the arithmetic.
      qkv_bias: Whether the query, key and value projections have a bias.
      norm_eps: The number added to the variance in the first norm.
      mlp_norm_eps: The number added to the variance in the second norm.
    """

    num_heads: int
    mlp_size: int
    dropout: float
    dtype: layers.Dtype
    qkv_bias: bool
    norm_eps: float
    mlp_norm_eps: float

    @nn.compact
    def __call__(self, x: jax.Array, emb: jax.Array) -> jax.Array:
        """Returns `[B, N, D]`.

        Args:
          x: tokens, `[B, N, D]`.
          emb: the embedding of t and label after swish, `[B, D]`.
        """
        batch, num, width = x.shape
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=_xavier(1.0))
        dropout = nn.Dropout(self.dropout, deterministic=False)
        modulation = nn.Dense(6 * width, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="modulation")(emb)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = jnp.split(modulation, 6, axis=-1)

        h = modulated_norm(x, shift_1, scale_1, epsilon=self.norm_eps, dtype=self.dtype)
        # DiT's code initialises q, k and v as one matrix of 3·width outputs, whose variance is half as large.
        qkv = partial(dense, width, use_bias=self.qkv_bias, kernel_init=_xavier(0.5))
        heads = (batch, num, self.num_heads, width // self.num_heads)
        h = layers.attend(*(qkv(name=name)(h).reshape(heads) for name in ("q", "k", "v"))).reshape(x.shape)
        x += gate_1[:, None] * dropout(dense(width, name="out")(h))

        h = modulated_norm(x, shift_2, scale_2, epsilon=self.mlp_norm_eps, dtype=self.dtype)
        h = dropout(nn.gelu(dense(self.mlp_size, name="mlp_1")(h), approximate=True))
        return x + gate_2[:, None] * dense(width, name="mlp_2")(h)


def modulated_norm(x: jax.Array, shift: jax.Array, scale: jax.Array, *, epsilon: float, dtype: Any) -> jax.Array:
    """Returns norm(x)·(1 + scale) + shift, where norm is a layer norm without parameters, in float32 or wider.

    Args:
      x: tokens, `[B, N, D]`.
      shift: `[B, D]`.
      scale: `[B, D]`.
      epsilon: added to the variance.
      dtype: the type of the result.
    """
    x, shift, scale = (array.astype(jnp.promote_types(dtype, jnp.float32)) for array in (x, shift, scale))
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    h = centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + epsilon)
    return (h * (1 + scale[:, None]) + shift[:, None]).astype(dtype)
