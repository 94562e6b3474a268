"""The UNet of DDPM (Ho et al. 2020, App. B), configurable."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffjax.models import embeddings, layers


class UNet(nn.Module):
    """Predicts ε from x_t and t. With no arguments, DDPM's CIFAR-10 network: 35,746,307 parameters.

    Level i works at 1/2^i of the input's size with `channels * multipliers[i]` channels, in `num_res_blocks` blocks on
    the way down and one more on the way up. Blocks at a height in `attention_resolutions` are followed by attention;
    the middle always has it.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    dropout: float = 0.1
    groups: int = 32
    out_channels: int | None = None
    """None: as many as the input has."""
    dtype: Any = jnp.float32
    """Of the arithmetic; parameters, normalisation and softmax are float32 or wider."""

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, *, train: bool = False) -> jax.Array:
        """ε̂ `[B, H, W, out_channels]` (float32 or wider) of x_t `[B, H, W, C]` and t `[B]`.

        In training, pass `rngs={"dropout": key}` to `apply`.

        Raises:
          ValueError: height or width that cannot be halved for each level after the first.
        """
        check_size(x.shape[1:3], len(self.multipliers))
        wide = jnp.promote_types(self.dtype, jnp.float32)

        def block(h, level, name):
            channels = self.channels * self.multipliers[level]
            h = layers.ResBlock(channels, self.groups, self.dropout, self.dtype, name=name)(h, emb, train=train)
            if h.shape[1] in self.attention_resolutions:
                h = layers.Attention(self.groups, self.dtype, name=f"{name}_attention")(h)
            return h

        emb = embeddings.sinusoidal(t, self.channels, wide).astype(self.dtype)
        emb = layers.dense(4 * self.channels, dtype=self.dtype, name="time_1")(emb)
        emb = layers.dense(4 * self.channels, dtype=self.dtype, name="time_2")(nn.swish(emb))

        h = layers.conv3x3(self.channels, dtype=self.dtype, name="conv_in")(x.astype(self.dtype))
        skips = [h]
        last = len(self.multipliers) - 1
        for level in range(last + 1):
            for i in range(self.num_res_blocks):
                h = block(h, level, f"down_{level}_{i}")
                skips.append(h)
            if level < last:
                h = layers.Downsample(self.dtype, name=f"down_{level}_downsample")(h)
                skips.append(h)

        middle = [
            layers.ResBlock(h.shape[-1], self.groups, self.dropout, self.dtype, name=f"middle_{i}") for i in (0, 1)
        ]
        h = middle[0](h, emb, train=train)
        h = layers.Attention(self.groups, self.dtype, name="middle_attention")(h)
        h = middle[1](h, emb, train=train)

        for level in reversed(range(last + 1)):
            for i in range(self.num_res_blocks + 1):
                h = block(jnp.concatenate([h, skips.pop()], axis=-1), level, f"up_{level}_{i}")
            if level > 0:
                h = layers.Upsample(self.dtype, name=f"up_{level}_upsample")(h)

        h = nn.swish(layers.GroupNorm(self.groups, self.dtype, name="norm_out")(h))
        out_channels = self.out_channels or x.shape[-1]
        return layers.conv3x3(out_channels, dtype=self.dtype, init_scale=0.0, name="conv_out")(h).astype(wide)


def check_size(size: tuple[int, int], num_levels: int) -> None:
    """Whether a UNet with so many levels can take images of `size` (height, width).

    Raises:
      ValueError: if not.
    """
    factor = 2 ** (num_levels - 1)
    if size[0] % factor or size[1] % factor:
        raise ValueError(
            f"image size {size[0]}×{size[1]} cannot be halved {num_levels - 1} times: it must be a multiple of "
            f"{factor}, or config.model.multipliers shorter"
        )
