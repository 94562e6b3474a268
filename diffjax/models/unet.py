"""One UNet for the family of DDPM (Ho et al. 2020, App. B): which member it is, its fields say.

- DDPM, and its ports (pesser, ermongroup, diffusers' google/ddpm-*): the defaults.
- OpenAI's improved and guided diffusion: `norm_eps=1e-5, downsample_padding=(1, 1), time_embedding="cos_sin",
  freq_shift=0`, and as each network has them `scale_shift`, `num_heads` or `head_channels`, `resblock_updown`,
  `num_classes`, `attention_levels`, `out_channels=6` (learned variance).
- abarankab/DDPM: `norm_eps=1e-5, downsample_padding=(1, 1), freq_shift=0, attention_levels=(1,)`, and for classes
  `num_classes=10, class_embedding="block"`.
- SR3 (Janspiry): `norm_eps=1e-5, downsample_padding=(1, 1), freq_shift=0, activate_embedding=False, qkv_bias=False,
  time_channels=(C, 4 * C, C)`, √ᾱ as `t` and a condition `image`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax.models import embeddings, layers


class UNet(nn.Module):
    """Predicts ε from x_t and t. With no arguments, DDPM's CIFAR-10 network: 35,746,307 parameters.

    Level i works at 1/2^i of the input's size with `channels * multipliers[i]` channels, in `num_res_blocks` blocks on
    the way down and one more on the way up. Images may be of any size: an odd one is halved to its ceiling and doubled
    back to what it was, and nothing is put around the image but the zeros of each convolution.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    """Blocks at these heights are followed by attention."""
    dropout: float = 0.1
    groups: int = 32
    """Of every normalisation."""
    out_channels: int | None = None
    """None: as many as x has."""
    dtype: Any = jnp.float32
    """Of the arithmetic; parameters, normalisation and softmax are float32 or wider."""

    attention_levels: tuple[int, ...] | None = None
    """In place of `attention_resolutions`, the levels, counted from 0: the same network for images of any size."""
    middle_attention: bool = True
    num_heads: int = 1
    head_channels: int | None = None
    """In place of `num_heads`, the channels of each."""
    qkv_bias: bool = True
    norm_eps: float = 1e-6

    time_embedding: str = "sin_cos"
    """Which waves come first; or "cos_sin"."""
    freq_shift: int = 1
    """1: the waves' frequencies fall from 1 to 10⁻⁴; 0: they stop one short of it."""
    time_channels: tuple[int, int, int] | None = None
    """Of the waves and the two linear maps after them; None: 1, 4 and 4 times `channels`."""
    activate_embedding: bool = True
    """Whether each block applies swish to the embedding before projecting it."""
    scale_shift: bool = False
    """Whether the embedding scales and shifts what each block's second norm gives, or else is added in front of it."""
    num_classes: int | None = None
    """None: unconditional."""
    class_embedding: str = "time"
    """Where a class's vector is added: to the embedded time, or in each "block"."""

    downsample_padding: tuple[int, int] = (0, 1)
    """Zeros before and after, in height and in width, where a convolution halves them; or (1, 1)."""
    resblock_updown: bool = False
    """Whether residual blocks halve and double the size, or else convolutions."""
    remat: bool = False
    """Whether gradients compute the inside of each block anew: less memory, more time."""

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
        """ε̂ `[B, H, W, out_channels]` (float32 or wider) of x_t `[B, H, W, C]` and t `[B]`, int or float.

        `label` is int `[B]`, each 0 … `num_classes` - 1, or `NO_LABEL` = -1 for an image of no class (one that is
        neither gives NaN where tracing hides its value).
        `image` `[B, H, W, Ci]` is a condition, joined to x's channels after them; give one to `init` and the network
        has it. In training, pass `rngs={"dropout": key}` to `apply`.

        Raises:
          ValueError: a field that cannot be; a label or an image that is missing, uncalled for, or of the wrong shape
            or range.
        """
        self._check(x, t, label, image)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        norm = partial(layers.GroupNorm, groups=self.groups, epsilon=self.norm_eps, dtype=self.dtype)
        remat = nn.remat if self.remat else lambda layer: layer
        res_block = partial(
            remat(layers.ResBlock),
            norm=norm,
            dropout=self.dropout if train else 0.0,
            dtype=self.dtype,
            scale_shift=self.scale_shift,
            activate_embedding=self.activate_embedding,
            class_bias=self.num_classes if self.class_embedding == "block" else None,
        )
        attention = partial(
            remat(layers.Attention),
            norm=norm,
            dtype=self.dtype,
            num_heads=self.num_heads,
            head_channels=self.head_channels,
            qkv_bias=self.qkv_bias,
        )

        def block(h, level, name):
            h = res_block(self.channels * self.multipliers[level], name=name)(h, emb, label)
            by_level = self.attention_levels is not None
            attend = level in self.attention_levels if by_level else h.shape[1] in self.attention_resolutions
            return attention(name=f"{name}_attention")(h) if attend else h

        def halved(h, name):
            if self.resblock_updown:
                return res_block(h.shape[-1], resample=layers.halve, name=name)(h, emb, label)
            return layers.Downsample(self.downsample_padding, self.dtype, name=name)(h)

        def doubled(h, size, name):
            if self.resblock_updown:
                return res_block(h.shape[-1], resample=partial(layers.double, size=size), name=name)(h, emb, label)
            return layers.Upsample(size, self.dtype, name=name)(h)

        emb = self._embed(t, label, wide)

        h = x if image is None else jnp.concatenate([x, image.astype(x.dtype)], axis=-1)
        h = layers.conv3x3(self.channels, dtype=self.dtype, name="conv_in")(h.astype(self.dtype))
        skips = [h]
        last = len(self.multipliers) - 1
        for level in range(last + 1):
            for i in range(self.num_res_blocks):
                h = block(h, level, f"down_{level}_{i}")
                skips.append(h)
            if level < last:
                h = halved(h, f"down_{level}_downsample")
                skips.append(h)

        h = res_block(h.shape[-1], name="middle_0")(h, emb, label)
        if self.middle_attention:
            h = attention(name="middle_attention")(h)
        h = res_block(h.shape[-1], name="middle_1")(h, emb, label)

        for level in reversed(range(last + 1)):
            for i in range(self.num_res_blocks + 1):
                h = block(jnp.concatenate([h, skips.pop()], axis=-1), level, f"up_{level}_{i}")
            if level > 0:
                h = doubled(h, skips[-1].shape[1:3], f"up_{level}_upsample")

        h = nn.swish(norm(name="norm_out")(h))
        out_channels = self.out_channels or x.shape[-1]
        return layers.conv3x3(out_channels, dtype=self.dtype, init_scale=0.0, name="conv_out")(h).astype(wide)

    def _embed(self, t: jax.Array, label: jax.Array | None, wide: Any) -> jax.Array:
        """t `[B]`, and the label `[B]` where that is its place → `[B, E]`."""
        waves, hidden, out = self.time_channels or (self.channels, 4 * self.channels, 4 * self.channels)
        emb = embeddings.sinusoidal(t, waves, wide, order=self.time_embedding, freq_shift=self.freq_shift)
        emb = layers.dense(hidden, dtype=self.dtype, name="time_1")(emb.astype(self.dtype))
        emb = layers.dense(out, dtype=self.dtype, name="time_2")(nn.swish(emb))
        if label is not None and self.class_embedding == "time":
            emb += layers.embed(label, self.num_classes, out, dtype=self.dtype, name="class")
        return emb

    def _check(self, x: jax.Array, t: jax.Array, label: jax.Array | None, image: jax.Array | None) -> None:
        _check_choice("class_embedding", self.class_embedding, ("time", "block"))
        _check_choice("time_embedding", self.time_embedding, embeddings.ORDERS)
        _check_choice("downsample_padding", self.downsample_padding, ((0, 1), (1, 1)))
        for level in self.attention_levels or ():
            _check_choice("attention_levels", level, tuple(range(len(self.multipliers))))
        if self.time_channels is not None and len(self.time_channels) != 3:
            raise ValueError(f"time_channels={self.time_channels} must be three numbers (config.model.time_channels)")
        if t.shape != x.shape[:1]:
            raise ValueError(f"t has the shape {t.shape}; it must be {x.shape[:1]}, one for each image of x")
        _check_label(label, self.num_classes, x.shape[0])
        if image is not None and image.shape[:-1] != x.shape[:-1]:
            raise ValueError(
                f"image has the shape {image.shape}; all but its channels must be as in x, whose shape is {x.shape}"
            )
        if self.has_variable("params", "conv_in"):
            known = self.get_variable("params", "conv_in")["kernel"].shape[2]
            given = {"x": x.shape[-1], "image": 0 if image is None else image.shape[-1]}
            if sum(given.values()) != known:
                raise ValueError(
                    f"x has {given['x']} and image {given['image']} channels, but the parameters are for {known} in all"
                )


def _check_choice(field: str, value: Any, allowed: tuple) -> None:
    if value not in allowed:
        raise ValueError(f"{field}: {value!r} is not one of {', '.join(map(repr, allowed))} (config.model.{field})")


def _check_label(label: jax.Array | None, num_classes: int | None, batch: int) -> None:
    if num_classes is None:
        if label is not None:
            raise ValueError("a label was given, but this network has no classes (config.model.num_classes is None)")
        return
    if label is None:
        raise ValueError(f"no label was given, but this network has {num_classes} classes (config.model.num_classes)")
    if label.shape != (batch,) or not jnp.issubdtype(label.dtype, jnp.integer):
        raise ValueError(f"label is {label.dtype}{list(label.shape)}; it must be int[{batch}], one for each image of x")
    if not isinstance(label, jax.core.Tracer):
        known = np.asarray(label)
        if (wrong := known[(known < layers.NO_LABEL) | (known >= num_classes)]).size:
            raise ValueError(
                f"label {wrong[0]} is not within 0 … {num_classes - 1}, nor -1 for none (config.model.num_classes)"
            )
