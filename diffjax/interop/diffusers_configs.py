"""Converts the JSON config of diffusers' `UNet2DModel` to a `UNet`, and back."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffjax import models
from diffjax.errors import UserError, read_json
from diffjax.interop import mapping
from diffjax.models.layers import Activation

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
# diffusers' names of activations, and ours.
_ACTIVATIONS: dict[str, Activation] = {
    "silu": "swish",
    "swish": "swish",
    "relu": "relu",
    "gelu": "gelu",
    "mish": "mish",
}
_ALLOWED = {
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D", None),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"),
    "act_fn": tuple(_ACTIVATIONS),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None, "timestep", "identity"),
}
# diffusers' names of the fields of a UNet, for messages about its config.
_THEIRS = {
    "base_channels": "block_out_channels[0]",
    "channel_mults": "block_out_channels / block_out_channels[0]",
    "num_res_blocks": "layers_per_block",
    "num_groups": "norm_num_groups",
    "num_head_channels": "attention_head_dim",
    "middle_attention_groups": "attn_norm_num_groups",
    "middle_scale": "mid_block_scale_factor",
    "center_input": "center_input_sample",
    "num_classes": "num_class_embeds",
    "time_channels": "time_embedding_dim",
}
_OURS = re.compile(rf"\b({'|'.join(_THEIRS)})\b")
# On the way down, and up.
_PLAIN = {"down": "DownBlock2D", "up": "UpBlock2D"}
_RESNET = {"down": "ResnetDownsampleBlock2D", "up": "ResnetUpsampleBlock2D"}
_ATTENTION = {"down": "AttnDownBlock2D", "up": "AttnUpBlock2D"}


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


def read_unet(path: Path, num_classes: int | None = None) -> tuple[models.UNet, int, tuple[int, int] | None]:
    """Reads the config of a `UNet2DModel`.

    Args:
      path: the file.
      num_classes: the number of classes, if the file does not contain it.

    Returns:
      (network, input channels, (height, width) or None).

    Raises:
      UserError: a missing or damaged file; fields with values that the UNet does not support, all of which are listed;
        an unknown number of classes, or another one than the file's.
    """
    config = read_config(path, _UNET, "UNet2DModel")
    if problems := _wrong_types(config):
        raise UserError(f"{path}: {'; '.join(problems)}")
    config["act_fn"] = config["act_fn"].lower()  # as diffusers does
    problems = unsupported(config, _UNET, _ALLOWED)
    blocks = {side: [kind.removeprefix("UNetRes") for kind in config[f"{side}_block_types"]] for side in _PLAIN}
    for side, kinds in blocks.items():
        known = (_PLAIN[side], _RESNET[side], _ATTENTION[side])
        problems += [f"block {kind!r} (can be {', '.join(map(repr, known))})" for kind in kinds if kind not in known]
    blocks["up"].reverse()  # by level
    attended = [kind == _ATTENTION["down"] for kind in blocks["down"]]
    if attended != [kind == _ATTENTION["up"] for kind in blocks["up"]]:
        problems.append("attention at other levels on the way up than on the way down")
    widths = config["block_out_channels"]
    if not len(widths) == len(blocks["down"]) == len(blocks["up"]):
        problems.append(f"block_out_channels={widths} (one for each of the blocks)")
    if problems:
        raise UserError(f"{path} has values that this UNet does not support: {'; '.join(problems)}")
    hidden, size, scale = config["time_embedding_dim"], config["sample_size"], config["mid_block_scale_factor"]
    kind = config["class_embed_type"]
    model = models.UNet(
        base_channels=widths[0],
        channel_mults=tuple(width / widths[0] if width % widths[0] else width // widths[0] for width in widths),
        num_res_blocks=config["layers_per_block"],
        attention_levels=tuple(np.flatnonzero(attended).tolist()),
        middle_blocks=config["mid_block_type"] is not None,
        middle_attention=config["add_attention"],
        middle_attention_groups=_middle_attention_groups(config),
        middle_scale=float(scale) if type(scale) is int else scale,
        dropout=config["dropout"],
        num_groups=config["norm_num_groups"],
        out_channels=config["out_channels"],
        num_head_channels=config["attention_head_dim"],
        norm_eps=config["norm_eps"],
        time_embedding="cos_sin" if config["flip_sin_to_cos"] else "sin_cos",
        freq_shift=config["freq_shift"],
        time_channels=(widths[0], hidden, hidden) if hidden else None,
        activation=_ACTIVATIONS[config["act_fn"]],
        use_scale_shift_norm=config["resnet_time_scale_shift"] == "scale_shift",
        num_classes=_num_classes(config, num_classes, path),
        class_embedding=kind or "time",
        center_input=config["center_input_sample"],
        downsample_padding=(config["downsample_padding"] and 1, 1),
        **_resampling(config, blocks),
    )
    sizes = (size, size) if isinstance(size, int) else None if size is None else tuple(size)
    try:
        mapping.param_shapes(model, config["in_channels"], size=sizes or (1, 1))
    except ValueError as error:
        raise UserError(f"{path}: {re.sub(_OURS, lambda name: _THEIRS[name[0]], str(error))}") from error
    return model, config["in_channels"], sizes


def _middle_attention_groups(config: Mapping[str, Any]) -> int | None:
    """Returns the UNet's field: None for as many groups as everywhere, 0 for no normalisation."""
    groups = config["attn_norm_num_groups"]
    if groups is None:
        return 0 if config["resnet_time_scale_shift"] == "scale_shift" else None
    return None if groups == config["norm_num_groups"] else groups


def _num_classes(config: Mapping[str, Any], given: int | None, path: Path) -> int | None:
    """Returns the number of classes in the config, or else the given one."""
    embedded_as_t = config["class_embed_type"] == "timestep"
    found = None if config["class_embed_type"] == "identity" else config["num_class_embeds"]
    if embedded_as_t and found is None:
        if given is None:
            raise UserError(f"{path} does not say the number of its classes (num_class_embeds): give num_classes=")
        return given
    if given not in (None, found):
        raise UserError(f"num_classes={given!r} must be {found!r}, as {path} has it")
    return found


def _resampling(config: Mapping[str, Any], blocks: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Returns the UNet's fields that say where residual blocks change the resolution, given the blocks by level."""
    last = len(blocks["down"]) - 1
    levels = {"down": range(last), "up": range(1, last + 1)}

    def by_block(side, level):
        kind = blocks[side][level]
        return kind == _RESNET[side] or (kind == _ATTENTION[side] and config[f"{side}sample_type"] == "resnet")

    found = {side: tuple(level for level in levels[side] if by_block(side, level)) for side in levels}
    number = len(found["down"]) + len(found["up"])
    if number in (0, 2 * last):
        return {"resblock_updown": number > 0}
    return {f"resblock_{side}_levels": found[side] for side in found}


def _wrong_types(config: Mapping[str, Any]) -> list[str]:
    """Returns the fields of a `UNet2DModel`'s config that are not of the kind that `read_unet` computes with."""

    def is_list(value, kind):
        return isinstance(value, (list, tuple)) and len(value) > 0 and all(type(item) is kind for item in value)

    size = config["sample_size"]
    wanted = {
        "sample_size": (
            size is None or type(size) is int or (is_list(size, int) and len(size) == 2),
            "a whole number, or two of them",
        ),
        **{
            name: (type(config[name]) is int and config[name] >= 1, "a whole number ≥ 1")
            for name in ("in_channels", "out_channels")
        },
        "attn_norm_num_groups": (
            config["attn_norm_num_groups"] is None
            or (type(config["attn_norm_num_groups"]) is int and config["attn_norm_num_groups"] >= 1),
            "a whole number ≥ 1, or null",
        ),
        "act_fn": (type(config["act_fn"]) is str, "the name of an activation"),
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
    last = len(model.channel_mults) - 1
    attended = [level in model.attention_levels for level in range(last + 1)]
    attends_in_the_middle = model.middle_blocks and model.middle_attention
    attention_widths = {width for width, here in zip(model.widths, attended, strict=True) if here}
    if attends_in_the_middle:
        attention_widths.add(model.widths[-1])
    head_channels = model.num_head_channels
    if head_channels is None and model.num_heads > 1 and attention_widths:
        head_channels = max(attention_widths) // model.num_heads
    waves, hidden, embedded = model.time_widths
    out_channels = model.out_channels or channels
    # How a block with attention resamples is one field for all of them.
    resampled = {
        side: {model.resampled_by_block(side, level) for level in levels if attended[level]}
        for side, levels in (("down", range(last)), ("up", range(1, last + 1)))
    }
    groups = model.num_groups if model.middle_attention_groups is None else model.middle_attention_groups or None
    lacking = {
        f"num_heads={model.num_heads} at several widths": model.num_head_channels is None
        and model.num_heads > 1
        and len(attention_widths) > 1,
        f"channel_mults={model.channel_mults}, which do not begin with 1": model.channel_mults[0] != 1,
        "activate_embedding=False": not model.activate_embedding,
        "qkv_bias=False": not model.qkv_bias and bool(attention_widths),
        "class_embedding='block'": model.num_classes is not None and model.class_embedding == "block",
        "middle_attention_groups=0 without use_scale_shift_norm": attends_in_the_middle
        and groups is None
        and not model.use_scale_shift_norm,
        f"time_channels={model.time_channels}": waves != model.base_channels or hidden != embedded,
        f"{out_channels} output channels for images of {channels}": out_channels not in (channels, 2 * channels),
        f"image size {image_size[0]}×{image_size[1]}, which is halved {last} times": any(
            size % 2**last for size in image_size
        ),
        **{
            f"resampling by blocks at some of the levels with attention on the way {side}": len(kinds) > 1
            for side, kinds in resampled.items()
        },
    }
    if any(lacking.values()):
        raise UserError(
            f"diffusers' UNet2DModel has no {', no '.join(name for name, is_so in lacking.items() if is_so)}"
        )

    def block_types(side):
        plain = {True: _RESNET[side], False: _PLAIN[side]}
        return [
            _ATTENTION[side] if here else plain[model.resampled_by_block(side, level)]
            for level, here in enumerate(attended)
        ]

    has_classes = model.num_classes is not None or model.class_embedding == "identity"
    return {
        "sample_size": image_size[0] if image_size[0] == image_size[1] else list(image_size),
        "in_channels": channels,
        "out_channels": out_channels,
        "center_input_sample": model.center_input,
        "time_embedding_type": "positional",
        "freq_shift": model.freq_shift,
        "flip_sin_to_cos": model.time_embedding == "cos_sin",
        "down_block_types": block_types("down"),
        "mid_block_type": "UNetMidBlock2D" if model.middle_blocks else None,
        "up_block_types": block_types("up")[::-1],
        "block_out_channels": list(model.widths),
        "layers_per_block": model.num_res_blocks,
        "mid_block_scale_factor": model.middle_scale,
        "downsample_padding": model.downsample_padding[0],
        **{
            f"{side}sample_type": "resnet" if (kinds or {model.resblock_updown}) == {True} else "conv"
            for side, kinds in resampled.items()
        },
        "dropout": model.dropout,
        "act_fn": "silu" if model.activation == "swish" else model.activation,
        "attention_head_dim": head_channels,
        "norm_num_groups": model.num_groups,
        "attn_norm_num_groups": groups,
        "norm_eps": model.norm_eps,
        "resnet_time_scale_shift": "scale_shift" if model.use_scale_shift_norm else "default",
        "add_attention": model.middle_attention,
        "class_embed_type": model.class_embedding if has_classes and model.class_embedding != "time" else None,
        "num_class_embeds": model.num_classes,
        **({} if hidden == 4 * model.base_channels else {"time_embedding_dim": hidden}),
    }
