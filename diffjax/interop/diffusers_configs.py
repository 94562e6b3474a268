"""Converts the JSON config of diffusers' `UNet2DModel` to a `UNet`, and back."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffjax import models
from diffjax.errors import UserError, read_json
from diffjax.interop import mapping

# diffusers' defaults of fields that a config may leave out.
_UNET = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
    "num_train_timesteps": None,
}
_ALLOWED = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None,),
}
# diffusers' names of the fields of a UNet, for messages about its config.
_THEIRS = {
    "base_channels": "block_out_channels[0]",
    "channel_mults": "block_out_channels / block_out_channels[0]",
    "num_res_blocks": "layers_per_block",
    "num_groups": "norm_num_groups",
    "num_head_channels": "attention_head_dim",
    "num_classes": "num_class_embeds",
    "time_channels": "time_embedding_dim",
}
_OURS = re.compile(rf"\b({'|'.join(_THEIRS)})\b")
_PLAIN, _RESNET = ("DownBlock2D", "UpBlock2D"), ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
_ATTENTION = ("AttnDownBlock2D", "AttnUpBlock2D")


def read_config(path: Path, defaults: dict[str, Any], kind: str) -> dict[str, Any]:
    """Returns the config of a class of diffusers, with its defaults.

    Raises:
      UserError: a file that is missing or damaged, or another network than a `UNet2DModel`.
    """
    config = read_json(path, "the folder must have been saved by diffusers")
    found = config.get("_class_name", kind)
    if kind == "UNet2DModel" and found != kind:
        raise UserError(f"{path} is a {found}: only a UNet2DModel can be read")
    return defaults | config


def read_unet(path: Path) -> tuple[models.UNet, int, tuple[int, int] | None]:
    """Reads the config of a `UNet2DModel`.

    Returns:
      (network, channels of an image, (height, width) or None).

    Raises:
      UserError: a missing or damaged file, or fields with values that the UNet does not support; all are listed.
    """
    config = read_config(path, _UNET, "UNet2DModel")
    if problems := _wrong_types(config):
        raise UserError(f"{path}: {'; '.join(problems)}")
    problems = unsupported(config, _UNET, _ALLOWED)
    down, up = ([kind.removeprefix("UNetRes") for kind in config[f"{side}_block_types"]] for side in ("down", "up"))
    for side, kinds in enumerate((down, up)):
        known = (_PLAIN[side], _RESNET[side], _ATTENTION[side])
        problems += [f"block {kind!r} (can be {', '.join(map(repr, known))})" for kind in kinds if kind not in known]
    attended = [kind == _ATTENTION[0] for kind in down]
    if attended != [kind == _ATTENTION[1] for kind in reversed(up)]:
        problems.append("attention at other levels on the way up than on the way down")
    # The last block on each side does not resample.
    resnet = {
        kind == _RESNET[side] or (kind == _ATTENTION[side] and config[f"{name}sample_type"] == "resnet")
        for side, (name, kinds) in enumerate((("down", down), ("up", up)))
        for kind in kinds[:-1]
    }
    if len(resnet) > 1:
        problems.append("convolutions that resample in some places and residual blocks in others")
    groups, scale_shift = config["norm_num_groups"], config["resnet_time_scale_shift"] == "scale_shift"
    middle_groups = config["attn_norm_num_groups"] or (None if scale_shift else groups)
    if config["add_attention"] and middle_groups != groups:
        problems.append(f"attn_norm_num_groups={config['attn_norm_num_groups']} (can be norm_num_groups={groups})")
    widths = config["block_out_channels"]
    if not len(widths) == len(down) == len(up) or any(width % widths[0] for width in widths):
        problems.append(f"block_out_channels={widths} (multiples of the first, one for each of the blocks)")
    channels, out_channels = config["in_channels"], config["out_channels"]
    if out_channels not in (channels, 2 * channels):
        problems.append(f"out_channels={out_channels} (can be in_channels={channels} or twice that)")
    if problems:
        raise UserError(f"{path} has values that this UNet does not support: {'; '.join(problems)}")
    hidden, size = config["time_embedding_dim"], config["sample_size"]
    model = models.UNet(
        base_channels=widths[0],
        channel_mults=tuple(width // widths[0] for width in widths),
        num_res_blocks=config["layers_per_block"],
        attention_levels=tuple(np.flatnonzero(attended).tolist()),
        middle_attention=config["add_attention"],
        dropout=config["dropout"],
        num_groups=groups,
        out_channels=out_channels,
        num_head_channels=config["attention_head_dim"],
        norm_eps=config["norm_eps"],
        time_embedding="cos_sin" if config["flip_sin_to_cos"] else "sin_cos",
        freq_shift=config["freq_shift"],
        time_channels=(widths[0], hidden, hidden) if hidden else None,
        use_scale_shift_norm=scale_shift,
        num_classes=config["num_class_embeds"],
        downsample_padding=(config["downsample_padding"] and 1, 1),
        resblock_updown=True in resnet,
    )
    try:
        mapping.param_shapes(model, channels)
    except ValueError as error:
        raise UserError(f"{path}: {re.sub(_OURS, lambda name: _THEIRS[name[0]], str(error))}") from error
    return model, channels, (size, size) if isinstance(size, int) else None if size is None else tuple(size)


def _wrong_types(config: Mapping[str, Any]) -> list[str]:
    """Returns the fields of a `UNet2DModel`'s config that are not of the kind that `read_unet` computes with."""

    def is_list(value, kind):
        return isinstance(value, (list, tuple)) and len(value) > 0 and all(type(item) is kind for item in value)

    size, channels = config["sample_size"], config["in_channels"]
    wanted = {
        "sample_size": (
            size is None or type(size) is int or (is_list(size, int) and len(size) == 2),
            "a whole number, or two of them",
        ),
        "in_channels": (type(channels) is int and channels >= 1, "a whole number ≥ 1"),
        "block_out_channels": (
            is_list(config["block_out_channels"], int) and min(config["block_out_channels"]) >= 1,
            "a list of whole numbers ≥ 1",
        ),
        **{name: (is_list(config[name], str), "a list of names") for name in ("down_block_types", "up_block_types")},
        **{name: (type(config[name]) is bool, "true or false") for name in ("add_attention", "flip_sin_to_cos")},
    }
    return [f"{name}={config[name]!r} must be {kind}" for name, (is_right, kind) in wanted.items() if not is_right]


def unsupported(config: Mapping[str, Any], known: Collection[str], allowed: Mapping[str, Collection[Any]]) -> list[str]:
    """Returns the fields of a config whose values are not allowed, and the unknown ones that are set, as texts."""
    problems = [
        f"{field}={config[field]!r} (can be {', '.join(map(repr, values))})"
        for field, values in allowed.items()
        if config[field] not in values
    ]
    return problems + [
        f"{field}={value!r} (unknown)"
        for field, value in config.items()
        if field not in known and not field.startswith("_") and value not in (None, False)
    ]


def write_unet(model: models.UNet, channels: int, image_size: tuple[int, int]) -> dict[str, Any]:
    """Returns the config of a `UNet2DModel`.

    Args:
      model: a UNet without a condition image, whose attention is specified by level.
      channels: channels of an image.
      image_size: (height, width) of the images that it was trained on.

    Raises:
      UserError: fields that diffusers does not support; all are listed.
    """
    attended = [level in model.attention_levels for level in range(len(model.channel_mults))]
    widths = [model.base_channels * multiplier for multiplier in model.channel_mults]
    attention_widths = {width for width, here in zip(widths, attended, strict=True) if here}
    if model.middle_attention:
        attention_widths.add(widths[-1])
    head_channels = model.num_head_channels
    if head_channels is None and model.num_heads > 1 and attention_widths:
        head_channels = max(attention_widths) // model.num_heads
    waves, hidden, embedded = model.time_channels or (
        model.base_channels,
        4 * model.base_channels,
        4 * model.base_channels,
    )
    out_channels = model.out_channels or channels
    halved = len(widths) - 1
    lacking = {
        f"num_heads={model.num_heads} at several widths": model.num_head_channels is None
        and model.num_heads > 1
        and len(attention_widths) > 1,
        f"channel_mults={model.channel_mults}, which do not begin with 1": model.channel_mults[0] != 1,
        "activate_embedding=False": not model.activate_embedding,
        "qkv_bias=False": not model.qkv_bias and bool(attention_widths),
        "class_embedding='block'": model.num_classes is not None and model.class_embedding == "block",
        f"time_channels={model.time_channels}": waves != model.base_channels or hidden != embedded,
        f"{out_channels} output channels for images of {channels}": out_channels not in (channels, 2 * channels),
        f"image size {image_size[0]}×{image_size[1]}, which is halved {halved} times": any(
            size % 2**halved for size in image_size
        ),
    }
    if any(lacking.values()):
        raise UserError(
            f"diffusers' UNet2DModel has no {', no '.join(name for name, is_so in lacking.items() if is_so)}"
        )
    kinds = _RESNET if model.resblock_updown else _PLAIN
    resample = "resnet" if model.resblock_updown else "conv"
    return {
        "sample_size": image_size[0] if image_size[0] == image_size[1] else list(image_size),
        "in_channels": channels,
        "out_channels": out_channels,
        "center_input_sample": False,
        "time_embedding_type": "positional",
        "freq_shift": model.freq_shift,
        "flip_sin_to_cos": model.time_embedding == "cos_sin",
        "down_block_types": [_ATTENTION[0] if here else kinds[0] for here in attended],
        "mid_block_type": "UNetMidBlock2D",
        "up_block_types": [_ATTENTION[1] if here else kinds[1] for here in reversed(attended)],
        "block_out_channels": widths,
        "layers_per_block": model.num_res_blocks,
        "mid_block_scale_factor": 1,
        "downsample_padding": model.downsample_padding[0],
        "downsample_type": resample,
        "upsample_type": resample,
        "dropout": model.dropout,
        "act_fn": "silu",
        "attention_head_dim": head_channels,
        "norm_num_groups": model.num_groups,
        "attn_norm_num_groups": model.num_groups,
        "norm_eps": model.norm_eps,
        "resnet_time_scale_shift": "scale_shift" if model.use_scale_shift_norm else "default",
        "add_attention": model.middle_attention,
        "num_class_embeds": model.num_classes,
        **({} if hidden == 4 * model.base_channels else {"time_embedding_dim": hidden}),
    }
