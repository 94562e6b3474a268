"""One UNet for the networks that follow DDPM (Ho et al. 2020, App. B); its fields select the variant.

- DDPM, and its ports (pesser, ermongroup, diffusers' google/ddpm-*): the defaults.
- OpenAI's improved and guided diffusion: `norm_eps=1e-5, downsample_padding=(1, 1), time_embedding="cos_sin",
  freq_shift=0`, and, depending on the network, `use_scale_shift_norm`, `num_heads` or `num_head_channels`,
  `resblock_updown`, `num_classes`, `attention_levels`, `out_channels=6` (learned variance).
- abarankab/DDPM: `norm_eps=1e-5, downsample_padding=(1, 1), freq_shift=0, attention_levels=(1,)`, and for classes
  `num_classes=10, class_embedding="block"`.
- SR3 (Janspiry): `norm_eps=1e-5, downsample_padding=(1, 1), freq_shift=0, activate_embedding=False, qkv_bias=False,
  time_channels=(C, 4 * C, C)`, called with √ᾱ as `t` and with a condition `image`.
- diffusers' `UNet2DModel`: the other fields are options of its config (`diffjax.interop` sets them).
"""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffjax.models import checks, embeddings, layers
from diffjax.models.base import NETWORKS, Network, short_repr

_WIDTH = {"low": 1, "high": checks.LARGEST_WIDTH}
_RANGES = {
    "base_channels": _WIDTH,
    "channel_mults": {"above": 0, "high": 1024, "length": (1, 16)},
    "num_res_blocks": {"low": 1, "high": 100},
    "attention_resolutions": _WIDTH,
    "dropout": {"low": 0.0, "below": 1.0},
    "num_groups": _WIDTH,
    "out_channels": _WIDTH,
    "num_heads": _WIDTH,
    "num_head_channels": _WIDTH,
    "middle_attention_groups": {"low": 0, "high": checks.LARGEST_WIDTH},
    "middle_scale": {"above": 0.0, "high": 1e6},
    "norm_eps": checks.EPSILON,
    "freq_shift": {"choices": (0, 1)},
    "time_channels": _WIDTH,
    "num_classes": {"low": 1, "high": 10**6},
}


@NETWORKS.register(name="unet")
class UNet(nn.Module):
    """The UNet of DDPM and its successors. With the defaults, DDPM's CIFAR-10 network: 35,746,307 parameters.

    Level i works at 1/2^i of the input's size with `base_channels * channel_mults[i]` channels, in `num_res_blocks`
    blocks on the way down and one more on the way up. Images may be of any size: an odd height or width is halved and
    rounded up, and doubled back to its former value; the only padding is the zeros of each convolution.

    Attributes:
      base_channels: The number of channels that channel_mults multiplies, 1 … 65536.
      channel_mults: The factor of each level's channels, > 0 and ≤ 1024; base_channels times each must be whole (1.5
        and 4 / 3 of 96 are). There are as many levels as factors.
      num_res_blocks: The number of residual blocks per level on the way down, 1 … 100; the way up has one more.
      attention_resolutions: The heights at which attention follows each block; must be heights of levels at init.
      dropout: The probability that dropout zeroes a value inside a residual block, within [0, 1).
      num_groups: The number of groups of each group normalisation; must divide the channels of every level.
      out_channels: The channels of the output, or None for as many as x has.
      dtype: The type of the arithmetic; parameters, normalisation and softmax are float32 or wider.
      attention_levels: The levels with attention (0 is full resolution), or None to use attention_resolutions.
      middle_attention: Whether there is attention between the two middle blocks.
      num_heads: The number of heads of each attention, ≥ 1; must divide its channels.
      num_head_channels: The number of channels of each attention head, or None to use num_heads; C channels have
        ⌊C / num_head_channels⌋ heads, at least 1.
      middle_blocks: Whether there are two residual blocks, and attention, between the way down and the way up.
      middle_attention_groups: The number of groups of the middle attention's normalisation, which must divide its
        channels; 0 for no normalisation there, None for num_groups.
      middle_scale: The number by which the output of each middle block, attention included, is divided, > 0.
      qkv_bias: Whether the query, key and value projections have a bias.
      norm_eps: The number added to the variance in each group normalisation, within [1e-12, 1).
      time_embedding: The order of the time embedding's sines and cosines, "sin_cos" or "cos_sin".
      freq_shift: 1 if the time embedding's frequencies fall from 1 to 10⁻⁴, 0 if they end one step before it.
      time_channels: The widths of the sinusoidal embedding and of the two linear maps after it, or None for 1, 4 and 4
        times base_channels; the first must be even and > 2 * freq_shift.
      activation: The activation of the residual blocks, "swish" (SiLU), "relu", "gelu" (exact) or "mish"; the layers of
        the time embedding and of the output keep swish.
      activate_embedding: Whether each block applies the activation to the time embedding before it projects it.
      use_scale_shift_norm: Whether the time embedding scales and shifts the result of each block's second norm.
      num_classes: The number of classes, ≥ 1, or None for an unconditional network.
      class_embedding: What is added for a class: a learned vector to the time embedding ("time") or in each block
        ("block"), or the class embedded as t is, by layers of its own ("timestep"); "identity" adds the label itself, a
        vector, to the time embedding, and num_classes must be None.
      center_input: Whether the input x (and image) is replaced by 2 * x - 1, for images in [0, 1].
      downsample_padding: The zeros before and after the image where a convolution halves it, (0, 1) or (1, 1).
      resblock_updown: Whether residual blocks change the resolution instead of convolutions.
      resblock_down_levels: The levels whose result a residual block halves (the last is not halved), or None for all or
        none, as resblock_updown says.
      resblock_up_levels: The levels whose result a residual block doubles (level 0 is not doubled), or None as well.
      remat: Whether the backward pass recomputes each block, which takes less memory and more time.
    """

    base_channels: int = 128
    channel_mults: tuple[int | float, ...] = (1, 2, 2, 2)
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    dropout: float = 0.1
    num_groups: int = 32
    out_channels: int | None = None
    dtype: Any = jnp.float32

    attention_levels: tuple[int, ...] | None = None
    middle_attention: bool = True
    num_heads: int = 1
    num_head_channels: int | None = None
    middle_blocks: bool = True
    middle_attention_groups: int | None = None
    middle_scale: float = 1.0
    qkv_bias: bool = True
    norm_eps: float = 1e-6

    time_embedding: Literal["sin_cos", "cos_sin"] = "sin_cos"
    freq_shift: int = 1
    time_channels: tuple[int, int, int] | None = None
    activation: layers.Activation = "swish"
    activate_embedding: bool = True
    use_scale_shift_norm: bool = False
    num_classes: int | None = None
    class_embedding: Literal["time", "block", "timestep", "identity"] = "time"

    center_input: bool = False
    downsample_padding: tuple[int, int] = (0, 1)
    resblock_updown: bool = False
    resblock_down_levels: tuple[int, ...] | None = None
    resblock_up_levels: tuple[int, ...] | None = None
    remat: bool = False

    __repr__ = short_repr

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels of each level."""
        return tuple(round(self.base_channels * factor) for factor in self.channel_mults)

    @property
    def time_widths(self) -> tuple[int, int, int]:
        """The widths of the sinusoidal embedding and of the two linear maps after it."""
        return self.time_channels or (self.base_channels, 4 * self.base_channels, 4 * self.base_channels)

    @property
    def label_size(self) -> int:
        """The size of the vectors that the network takes as labels; 0: it takes none."""
        return self.time_widths[2] if self.class_embedding == "identity" else 0

    def resampled_by_block(self, side: str, level: int) -> bool:
        """Returns whether a residual block halves ("down") or doubles ("up") the result of a level."""
        levels = self.resblock_down_levels if side == "down" else self.resblock_up_levels
        return self.resblock_updown if levels is None else level in levels

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
          label: int `[B]`, each within 0 … num_classes - 1, or `NO_LABEL` = -1 for no class. Where tracing hides the
            values, a label outside this range gives NaN. If `class_embedding` is "identity": float `[B, E]`, as wide as
            the time embedding.
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
        norm = partial(layers.GroupNorm, num_groups=self.num_groups, epsilon=self.norm_eps, dtype=self.dtype)
        remat = nn.remat if self.remat else lambda layer: layer
        res_block = partial(
            remat(layers.ResBlock),
            norm=norm,
            dropout=self.dropout if train else 0.0,
            dtype=self.dtype,
            activation=self.activation,
            use_scale_shift_norm=self.use_scale_shift_norm,
            activate_embedding=self.activate_embedding,
            class_bias=self.num_classes if self.class_embedding == "block" else None,
        )
        attention = partial(
            remat(layers.Attention),
            norm=norm,
            dtype=self.dtype,
            num_heads=self.num_heads,
            num_head_channels=self.num_head_channels,
            qkv_bias=self.qkv_bias,
        )

        def block(h, level, name):
            h = res_block(self.widths[level], name=name)(h, emb, label)
            by_level = self.attention_levels is not None
            attend = level in self.attention_levels if by_level else h.shape[1] in self.attention_resolutions
            return attention(name=f"{name}_attention")(h) if attend else h

        def halved(h, level):
            name = f"down_{level}_downsample"
            if self.resampled_by_block("down", level):
                return res_block(h.shape[-1], resample=layers.halve, name=name)(h, emb, label)
            return layers.Downsample(self.downsample_padding, self.dtype, name=name)(h)

        def doubled(h, size, level):
            name = f"up_{level}_upsample"
            if self.resampled_by_block("up", level):
                return res_block(h.shape[-1], resample=partial(layers.double, size=size), name=name)(h, emb, label)
            return layers.Upsample(size, self.dtype, name=name)(h)

        def middle(h):
            middle_block = partial(res_block, h.shape[-1], output_scale=self.middle_scale)
            h = middle_block(name="middle_0")(h, emb, label)
            if self.middle_attention:
                groups = self.num_groups if self.middle_attention_groups is None else self.middle_attention_groups
                its_norm = partial(norm, num_groups=groups) if groups else None
                h = attention(norm=its_norm, output_scale=self.middle_scale, name="middle_attention")(h)
            return middle_block(name="middle_1")(h, emb, label)

        emb = self._embed(t, label, wide)

        h = x if image is None else jnp.concatenate([x, image.astype(x.dtype)], axis=-1)
        h = 2 * h - 1 if self.center_input else h
        h = layers.conv3x3(self.base_channels, dtype=self.dtype, name="conv_in")(h.astype(self.dtype))
        skips = [h]
        last = len(self.channel_mults) - 1
        for level in range(last + 1):
            for i in range(self.num_res_blocks):
                h = block(h, level, f"down_{level}_{i}")
                skips.append(h)
            if level < last:
                h = halved(h, level)
                skips.append(h)

        if self.middle_blocks:
            h = middle(h)

        for level in reversed(range(last + 1)):
            for i in range(self.num_res_blocks + 1):
                h = block(jnp.concatenate([h, skips.pop()], axis=-1), level, f"up_{level}_{i}")
            if level > 0:
                h = doubled(h, skips[-1].shape[1:3], level)

        h = nn.swish(norm(name="norm_out")(h))
        out_channels = self.out_channels or x.shape[-1]
        return layers.conv3x3(out_channels, dtype=self.dtype, init_scale=0.0, name="conv_out")(h).astype(wide)

    def _embed(self, t: jax.Array, label: jax.Array | None, wide: Any) -> jax.Array:
        """Embeds t `[B]`, and the label unless each block does, as `[B, E]`."""
        waves, hidden, out = self.time_widths

        def embedded(values, name):
            emb = embeddings.sinusoidal(values, waves, wide, order=self.time_embedding, freq_shift=self.freq_shift)
            emb = layers.dense(hidden, dtype=self.dtype, name=f"{name}_1")(emb.astype(self.dtype))
            return layers.dense(out, dtype=self.dtype, name=f"{name}_2")(nn.swish(emb))

        emb = embedded(t, "time")
        if label is None or self.class_embedding == "block":
            return emb
        if self.class_embedding == "identity":
            return emb + label.astype(self.dtype)
        if self.class_embedding == "timestep":
            return emb + layers.only_classes(embedded(label, "class"), label, self.num_classes)
        return emb + layers.embed(label, self.num_classes, out, dtype=self.dtype, name="class")

    def _check(self, x: jax.Array, t: jax.Array, label: jax.Array | None, image: jax.Array | None) -> None:
        """Checks the fields and the inputs: first each field's range, then how they fit each other and x."""
        checks.check_fields(self, _RANGES)
        for factor, width in zip(self.channel_mults, self.widths, strict=True):
            if width < 1 or abs(self.base_channels * factor - width) > 1e-6:
                raise ValueError(
                    f"channel_mults={self.channel_mults} must give whole numbers of channels, but base_channels="
                    f"{self.base_channels} times {factor} is {self.base_channels * factor:.7g}"
                )
        widest = max(self.widths)
        if widest > checks.LARGEST_WIDTH:
            raise ValueError(
                f"channel_mults={self.channel_mults} must leave at most {checks.LARGEST_WIDTH} channels, but "
                f"base_channels={self.base_channels} makes {widest}"
            )
        if self.base_channels % self.num_groups:
            raise ValueError(f"num_groups={self.num_groups} must divide base_channels={self.base_channels}")
        if any(width % self.num_groups for width in self.widths):
            raise ValueError(f"num_groups={self.num_groups} must divide the channels of each level, {self.widths}")
        if self.middle_attention_groups and self.widths[-1] % self.middle_attention_groups:
            raise ValueError(
                f"middle_attention_groups={self.middle_attention_groups} must divide {self.widths[-1]} channels"
            )
        name, waves = "base_channels", self.base_channels
        if self.time_channels is not None:
            name, waves = "time_channels", self.time_channels[0]
        if waves % 2 or waves <= 2 * self.freq_shift:
            raise ValueError(
                f"{name}={getattr(self, name)} must begin the time embedding with an even width > {2 * self.freq_shift}"
            )
        if self.downsample_padding not in ((0, 1), (1, 1)):
            raise ValueError(f"downsample_padding={self.downsample_padding} must be (0, 1) or (1, 1)")
        last = len(self.channel_mults) - 1
        if any(not 0 <= level <= last for level in self.attention_levels or ()):
            raise ValueError(f"attention_levels={self.attention_levels} must be levels within 0 … {last}")
        for name, first, end in (("down", 0, last - 1), ("up", 1, last)):
            levels = getattr(self, f"resblock_{name}_levels")
            if any(not first <= level <= end for level in levels or ()):
                allowed = f"levels within {first} … {end}" if end >= first else "() with one level"
                raise ValueError(f"resblock_{name}_levels={levels} must be {allowed}")
        if self.label_size and self.num_classes is not None:
            raise ValueError(f"num_classes={self.num_classes} must be None where class_embedding is 'identity'")
        checks.check_inputs(x, t, label, image, self.num_classes, label_size=self.label_size)
        checks.check_channels(self, "conv_in", x, image)
        # Once there are parameters, the network also runs on images of other sizes than it was trained on.
        if self.attention_levels is None and self.is_initializing():
            heights = [-(-x.shape[1] >> level) for level in range(last + 1)]
            if not set(self.attention_resolutions) <= set(heights):
                raise ValueError(
                    f"attention_resolutions={self.attention_resolutions} must be heights of levels, which are "
                    f"{', '.join(map(str, heights))} for images of height {x.shape[1]}"
                )


def by_level(network: Network, height: int) -> Network:
    """Returns the network whose attention is set by level alone, equal for images of that height; other networks as is.

    Args:
      network: a UNet, or any other network.
      height: the height of the images.
    """
    if not isinstance(network, UNet):
        return network
    levels = network.attention_levels
    if levels is None:
        heights = {level: -(-height >> level) for level in range(len(network.channel_mults))}
        levels = tuple(level for level, size in heights.items() if size in network.attention_resolutions)
    return network.clone(attention_levels=levels, attention_resolutions=())
