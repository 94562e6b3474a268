"""diffusers' JSON configs: `UNet2DModel` ↔ UNet, DDPM and DDIM schedulers ↔ schedule and settings."""

from pathlib import Path
from typing import Any

import numpy as np

from diffjax import models, schedules, thresholds
from diffjax.errors import UserError, read_json
from diffjax.interop.pretrained import Settings
from diffjax.schedules import NoiseSchedule

# diffusers' defaults for what a config leaves out.
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
_SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "variance_type": "fixed_small",
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "prediction_type": "epsilon",
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "steps_offset": 0,
    "set_alpha_to_one": True,
    "rescale_betas_zero_snr": False,
}
_SCHEDULES = {
    "linear": schedules.linear,
    "scaled_linear": schedules.scaled_linear,
    "sigmoid": schedules.sigmoid,
    "squaredcos_cap_v2": lambda total, **_: schedules.cosine(total),
}
_TARGETS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
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
_PLAIN, _RESNET = ("DownBlock2D", "UpBlock2D"), ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
_ATTENTION = ("AttnDownBlock2D", "AttnUpBlock2D")


def _read_config(path: Path, defaults: dict[str, Any], kind: str) -> dict[str, Any]:
    config = read_json(path, "a folder that diffusers has saved is needed")
    found = config.get("_class_name", kind)
    if kind == "UNet2DModel" and found != kind:
        raise UserError(f"{path} is a {found}: only a UNet2DModel can be read")
    return defaults | config


def read_unet(path: Path) -> tuple[models.UNet, int, tuple[int, int] | None]:
    """(the network, channels of an image, its size where the file says it).

    Raises:
      UserError: a file that is missing or damaged; every field that asks for what the UNet lacks.
    """
    config = _read_config(path, _UNET, "UNet2DModel")
    problems = [
        f"{field}={config[field]!r} (can be {', '.join(map(repr, allowed))})"
        for field, allowed in _ALLOWED.items()
        if config[field] not in allowed
    ]
    problems += [
        f"{field}={value!r} (unknown)"
        for field, value in config.items()
        if field not in _UNET and not field.startswith("_") and value not in (None, False)
    ]
    down, up = ([kind.removeprefix("UNetRes") for kind in config[f"{way}_block_types"]] for way in ("down", "up"))
    for way, kinds in enumerate((down, up)):
        known = (_PLAIN[way], _RESNET[way], _ATTENTION[way])
        problems += [f"block {kind!r} (can be {', '.join(map(repr, known))})" for kind in kinds if kind not in known]
    attended = [kind == _ATTENTION[0] for kind in down]
    if attended != [kind == _ATTENTION[1] for kind in reversed(up)]:
        problems.append("attention at other levels on the way up than on the way down")
    # The last block of each way does not resample.
    resnet = {
        kind == _RESNET[way] or (kind == _ATTENTION[way] and config[f"{name}sample_type"] == "resnet")
        for way, (name, kinds) in enumerate((("down", down), ("up", up)))
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
        raise UserError(f"{path} asks for what this UNet lacks: {'; '.join(problems)}")
    hidden, size = config["time_embedding_dim"], config["sample_size"]
    model = models.UNet(
        channels=widths[0],
        multipliers=tuple(width // widths[0] for width in widths),
        num_res_blocks=config["layers_per_block"],
        attention_levels=tuple(np.flatnonzero(attended).tolist()),
        middle_attention=config["add_attention"],
        dropout=config["dropout"],
        groups=groups,
        out_channels=out_channels,
        head_channels=config["attention_head_dim"],
        norm_eps=config["norm_eps"],
        time_embedding="cos_sin" if config["flip_sin_to_cos"] else "sin_cos",
        freq_shift=config["freq_shift"],
        time_channels=(widths[0], hidden, hidden) if hidden else None,
        scale_shift=scale_shift,
        num_classes=config["num_class_embeds"],
        downsample_padding=(config["downsample_padding"] and 1, 1),
        resblock_updown=True in resnet,
    )
    return model, channels, (size, size) if isinstance(size, int) else None if size is None else tuple(size)


def read_scheduler(path: Path) -> tuple[NoiseSchedule, Settings]:
    """The schedule in float64, and how diffusers samples with it.

    Raises:
      UserError: a file that is missing or damaged; a scheduler or a value that there is nothing for here.
    """
    config = _read_config(path, _SCHEDULER, "DDPMScheduler")
    choices = {
        "_class_name": ("DDPMScheduler", "DDIMScheduler"),
        "beta_schedule": tuple(_SCHEDULES),
        "prediction_type": tuple(_TARGETS),
        "variance_type": ("fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range"),
        "timestep_spacing": ("leading", "trailing", "linspace"),
    }
    for field, allowed in choices.items():
        if config.get(field, "DDPMScheduler") not in allowed:
            raise UserError(f"{path}: {field}={config[field]!r} is not one of {', '.join(map(repr, allowed))}")
    try:
        if config["trained_betas"] is not None:
            schedule = schedules.from_betas(config["trained_betas"])
        else:
            ends = {name: config[name] for name in ("beta_start", "beta_end")}
            schedule = _SCHEDULES[config["beta_schedule"]](config["num_train_timesteps"], **ends)
        if config["rescale_betas_zero_snr"]:
            schedule = schedules.zero_terminal_snr(schedule)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    clip = config["clip_sample_range"] if config["clip_sample"] else None
    if config["thresholding"]:
        clip = thresholds.dynamic(config["dynamic_thresholding_ratio"], config["sample_max_value"])
    return schedule, Settings(
        target=_TARGETS[config["prediction_type"]],
        variance=config["variance_type"].removesuffix("_log"),
        clip=clip,
        grid=config["timestep_spacing"],
        offset=config["steps_offset"] if config["timestep_spacing"] == "leading" else 0,
        end=-1 if config["set_alpha_to_one"] else 0,
    )


def write_unet(model: models.UNet, channels: int, image_size: tuple[int, int]) -> dict[str, Any]:
    """The config of a UNet whose attention goes by level, for images of so many channels.

    Raises:
      UserError: every field that diffusers has nothing for.
    """
    attended = [level in model.attention_levels for level in range(len(model.multipliers))]
    widths = [model.channels * multiplier for multiplier in model.multipliers]
    attention_widths = {width for width, here in zip(widths, attended, strict=True) if here}
    if model.middle_attention:
        attention_widths.add(widths[-1])
    head_channels = model.head_channels
    if head_channels is None and model.num_heads > 1 and attention_widths:
        head_channels = max(attention_widths) // model.num_heads
    waves, hidden, embedded = model.time_channels or (model.channels, 4 * model.channels, 4 * model.channels)
    out_channels = model.out_channels or channels
    halved = len(widths) - 1
    lacking = {
        f"num_heads={model.num_heads} at several widths": model.head_channels is None
        and model.num_heads > 1
        and len(attention_widths) > 1,
        "multipliers that do not begin with 1": model.multipliers[0] != 1,
        "activate_embedding=False": not model.activate_embedding,
        "qkv_bias=False": not model.qkv_bias and bool(attention_widths),
        "class_embedding='block'": model.num_classes is not None and model.class_embedding == "block",
        f"time_channels={model.time_channels}": waves != model.channels or hidden != embedded,
        f"a condition image ({channels} channels in, {out_channels} out)": out_channels not in (channels, 2 * channels),
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
        "norm_num_groups": model.groups,
        "attn_norm_num_groups": model.groups,
        "norm_eps": model.norm_eps,
        "resnet_time_scale_shift": "scale_shift" if model.scale_shift else "default",
        "add_attention": model.middle_attention,
        "num_class_embeds": model.num_classes,
        **({} if hidden == 4 * model.channels else {"time_embedding_dim": hidden}),
    }


def write_scheduler(schedule: NoiseSchedule, settings: Settings) -> dict[str, Any]:
    """The config of a `DDPMScheduler`, which diffusers turns into a `DDIMScheduler` too.

    Raises:
      UserError: every setting that diffusers has nothing for.
    """
    betas, lacking = schedule.betas, []
    if settings.time != "index":
        lacking.append(f"time={settings.time!r}")
    if callable(settings.clip):
        lacking.append("clip by a function")
    if settings.grid not in ("leading", "trailing", "linspace"):
        lacking.append(f"grid={settings.grid!r}")
    if lacking:
        raise UserError(f"diffusers' pipelines have no {', no '.join(lacking)}")
    linear = np.allclose(betas, np.linspace(betas[0], betas[-1], len(betas)), rtol=1e-12, atol=0)
    return {
        "num_train_timesteps": schedule.num_timesteps,
        "beta_start": float(betas[0]),
        "beta_end": float(betas[-1]),
        "beta_schedule": "linear",
        "trained_betas": None if linear else betas.tolist(),
        "variance_type": settings.variance,
        "clip_sample": settings.clip is not None,
        "clip_sample_range": 1.0 if settings.clip is None else settings.clip,
        "prediction_type": next(name for name, target in _TARGETS.items() if target == settings.target),
        "timestep_spacing": settings.grid,
        "steps_offset": settings.offset,
        "set_alpha_to_one": settings.end == -1,
    }
