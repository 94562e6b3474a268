"""Converts diffusers' JSON configs: `UNet2DModel` ↔ UNet, DDPM and DDIM schedulers ↔ schedule and sampling."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax import models
from diffjax.errors import UserError, read_json
from diffjax.interop import imported
from diffjax.runs import Run

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
_SCHEDULES = ("linear", "scaled_linear", "sigmoid", "squaredcos_cap_v2")
_SPACINGS = ("leading", "trailing", "linspace")
_LARGEST_FLOAT = float(np.finfo(np.float32).max)
_TARGETS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_CHOICES = {
    "_class_name": ("DDPMScheduler", "DDIMScheduler"),
    "beta_schedule": _SCHEDULES,
    "prediction_type": tuple(_TARGETS),
    # diffusers takes a "learned" output as σ², and not as log σ².
    "variance_type": ("fixed_small", "fixed_small_log", "fixed_large", "learned_range"),
    "timestep_spacing": _SPACINGS,
}
_RANGES = {
    "num_train_timesteps": (1, 10**6),
    "beta_start": (0.0, 1.0),
    "beta_end": (0.0, 1.0),
    "clip_sample_range": (1e-6, 1e6),
    "dynamic_thresholding_ratio": (0.0, 1.0),
    "sample_max_value": (1.0, float("inf")),
    "steps_offset": (0, 10**6),
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
_PLAIN, _RESNET = ("DownBlock2D", "UpBlock2D"), ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
_ATTENTION = ("AttnDownBlock2D", "AttnUpBlock2D")


class Scheduler(NamedTuple):
    """The values of a scheduler's config."""

    schedule_section: dict[str, Any]
    """The config section of the schedule."""
    target: str
    variance: str
    sample: dict[str, Any]
    """The timestep spacing and the clipping, as fields of `config.sample`."""
    preferred: dict[str, Any]
    """The options of samplers that make them diffusers'."""


def _read_config(path: Path, defaults: dict[str, Any], kind: str) -> dict[str, Any]:
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
    config = _read_config(path, _UNET, "UNet2DModel")
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
    return model, channels, (size, size) if isinstance(size, int) else None if size is None else tuple(size)


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


def read_scheduler(path: Path) -> Scheduler:
    """Reads the config of a DDPM or DDIM scheduler.

    Raises:
      UserError: a file that is missing or damaged; a scheduler or a value that this library does not support.
    """
    config = _read_config(path, _SCHEDULER, "DDPMScheduler")
    for field, allowed in _CHOICES.items():
        if config.get(field, "DDPMScheduler") not in allowed:
            raise UserError(f"{path}: {field}={config[field]!r} is not one of {', '.join(map(repr, allowed))}")
    try:
        _check_numbers(config)
        section = _schedule_section(config)
        schedule = imported.schedule(section)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if problem := _contradiction(config, schedule.num_timesteps):
        raise UserError(f"{path}: {problem}")
    spacing = config["timestep_spacing"]
    offset = {"offset": config["steps_offset"]} if spacing == "leading" else {}
    return Scheduler(
        schedule_section=section,
        target=_TARGETS[config["prediction_type"]],
        variance=config["variance_type"].removesuffix("_log"),
        sample={"timestep_spacing": spacing, **offset, **_clip(config)},
        preferred=_preferred(config),
    )


def _check_numbers(config: Mapping[str, Any]) -> None:
    """Checks the fields that are numbers or flags.

    Raises:
      ValueError: a value of another type, or out of range.
    """
    for field, (low, high) in _RANGES.items():
        value, kinds = config[field], (int,) if isinstance(_SCHEDULER[field], int) else (int, float)
        if type(value) not in kinds or not low <= value <= high:
            kind = "a whole number" if kinds == (int,) else "a number"
            raise ValueError(f"{field}={value!r} must be {kind} within {low} … {high}")
    for field in ("clip_sample", "thresholding", "set_alpha_to_one", "rescale_betas_zero_snr"):
        if type(config[field]) is not bool:
            raise ValueError(f"{field}={config[field]!r} must be true or false")


def _contradiction(config: Mapping[str, Any], num_betas: int) -> str:
    """Returns which fields do not go together, or an empty string."""
    total, spacing = config["num_train_timesteps"], config["timestep_spacing"]
    if num_betas != total:
        return f"num_train_timesteps={total} must be the number of trained_betas, {num_betas}"
    if config["rescale_betas_zero_snr"] and config["prediction_type"] == "epsilon" and spacing != "leading":
        return (
            f"rescale_betas_zero_snr=True with timestep_spacing={spacing!r} needs prediction_type 'v_prediction' or "
            "'sample': sampling starts at alpha_bar = 0, where epsilon does not determine the image"
        )
    return ""


def _preferred(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options with which `ddim` and `ddpm` make diffusers' steps, where the defaults would not."""
    spacing, offset = config["timestep_spacing"], config["steps_offset"]
    from_clean = spacing == "linspace" or (spacing == "leading" and offset == 0)  # the last step starts at index 0
    preferred: dict[str, Any] = {}
    if not (spacing == "leading" and offset == 0 and config["set_alpha_to_one"]):
        preferred["stride_end"] = -1 if config["set_alpha_to_one"] else 0
    if not from_clean and not config["variance_type"].startswith("fixed_small"):
        preferred["last_step_noise"] = True
    return preferred


def _schedule_section(config: dict[str, Any]) -> dict[str, Any]:
    kind, total = config["beta_schedule"], config["num_train_timesteps"]
    if config["trained_betas"] is not None:
        section = imported.betas(config["trained_betas"])
    elif kind == "squaredcos_cap_v2":
        section = {"name": "cosine", "num_timesteps": total}
    else:
        ends = {name: config[name] for name in ("beta_start", "beta_end")}
        section = {"name": kind, "num_timesteps": total, **ends}
    return section | {"zero_terminal_snr": bool(config["rescale_betas_zero_snr"])}


def _clip(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `config.sample` that describe the clipping."""
    if not config["thresholding"]:
        return {"clip": config["clip_sample_range"] if config["clip_sample"] else None}
    largest = float(config["sample_max_value"])
    if largest == 1.0:
        return {"clip": 1.0}  # s = 1
    return {
        "clip": "dynamic",
        "percentile": config["dynamic_thresholding_ratio"],
        "limit": 1.0,
        "largest": None if largest >= _LARGEST_FLOAT else largest,
    }


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


def write_scheduler(run: Run) -> dict[str, Any]:
    """Returns the config of a `DDPMScheduler`, from which diffusers can also make a `DDIMScheduler`.

    Args:
      run: a run that generates images.

    Raises:
      UserError: values that diffusers does not support; all are listed.
    """
    betas, task, options, lacking = run.schedule.betas, run.task, run.config.sample, []
    spacing = options.timestep_spacing
    clipping = _written_clip(run)
    if task.timestep_scale != 1.0:
        lacking.append(f"timestep_scale={task.timestep_scale}")
    if clipping is None:
        limit = f" with limit={options.limit}" if options.clip == "dynamic" else ""
        lacking.append(f"clip={options.clip!r}{limit}")
    if spacing not in _SPACINGS:
        lacking.append(f"timestep_spacing={spacing!r}")
    if options.get("end", -1) != -1:
        lacking.append(f"timestep spacing with end={options.end}")
    if lacking:
        raise UserError(f"diffusers' pipelines have no {', no '.join(lacking)}")
    linear = np.allclose(betas, np.linspace(betas[0], betas[-1], len(betas)), rtol=1e-12, atol=0)
    return {
        "num_train_timesteps": run.schedule.num_timesteps,
        "beta_start": float(betas[0]),
        "beta_end": float(betas[-1]),
        "beta_schedule": "linear",
        "trained_betas": None if linear else betas.tolist(),
        "variance_type": task.variance or options.get("variance") or run.preferred.get("variance", "fixed_small"),
        **clipping,
        "prediction_type": next(name for name, target in _TARGETS.items() if target == task.objective.target),
        "timestep_spacing": spacing,
        "steps_offset": options.get("offset", 0),
        "set_alpha_to_one": options.get("stride_end", run.preferred.get("stride_end", -1)) != 0,
    }


def _written_clip(run: Run) -> dict[str, Any] | None:
    """Returns the fields of a scheduler's config that describe the clipping of a run; None if there are none."""
    clip, options = run.clip, run.config.sample
    if not callable(clip):
        return {"clip_sample": clip is not None, "clip_sample_range": 1.0 if clip is None else clip}
    if options.clip != "dynamic" or options.limit != 1.0:
        return None
    return {
        "clip_sample": False,
        "thresholding": True,
        "dynamic_thresholding_ratio": options.percentile,
        "sample_max_value": _LARGEST_FLOAT if options.largest is None else options.largest,
    }
