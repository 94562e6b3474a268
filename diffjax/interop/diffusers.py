"""Folders of Hugging Face diffusers: a `UNet2DModel` and a DDPM or DDIM scheduler, read and written.

Two layouts are read: a pipeline's (`unet/`, `scheduler/`) and the flat one of older hubs (`config.json`,
`scheduler_config.json`). What is written is a pipeline's, which `DDPMPipeline.from_pretrained` and `DDIMPipeline` load.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from diffjax import models
from diffjax.errors import UserError
from diffjax.interop import diffusers_configs as configs
from diffjax.interop import files, mapping
from diffjax.interop.pretrained import Pretrained, Settings
from diffjax.schedules import NoiseSchedule

_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")

# Names of attention from before diffusers 0.13.
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def load(folder: Path) -> Pretrained:
    """The network, schedule and settings of a diffusers folder.

    Raises:
      UserError: a file that is missing or damaged; a config that asks for what this UNet or this library lacks.
    """
    piped = (folder / "unet").is_dir()
    unet, scheduler = (folder / "unet", folder / "scheduler") if piped else (folder, folder)
    model, channels, image_size = configs.read_unet(unet / "config.json")
    path = next((unet / name for name in _WEIGHTS if (unet / name).is_file()), unet / _WEIGHTS[0])
    state = {_renamed(key): tensor for key, tensor in files.state_dict(files.read(path), path).items()}
    table = mapping.rules(mapping.param_shapes(model, channels), names(model))
    params = mapping.to_params(table, state, str(path))
    schedule, settings = configs.read_scheduler(scheduler / "scheduler_config.json")
    learned = settings.variance in ("learned", "learned_range")
    if (model.out_channels == 2 * channels) != learned:
        raise UserError(
            f"{folder}: a network with {model.out_channels} channels for images of {channels}, with variance_type "
            f"{settings.variance!r}, is not one that can be sampled from here"
        )
    return Pretrained(
        model=model,
        params=params,
        schedule=schedule,
        settings=settings,
        channels=channels,
        image_size=image_size,
    )


def export(
    folder: str | os.PathLike,
    model: models.UNet,
    params: Any,
    schedule: NoiseSchedule,
    *,
    image_size: tuple[int, int],
    settings: Settings = Settings(grid="trailing"),  # noqa: B008 (a tuple)
) -> Path:
    """Writes a network as a pipeline's folder, and returns its path.

    Args:
      folder: is made; it must not hold anything yet.
      model, params: a UNet without a condition image.
      schedule: written as β_0 and β_{T-1} where it is linear, and else as the list of β. diffusers has it in float32.
      image_size: (height, width) of what it is sampled at.
      settings: how it is to be sampled.

    Raises:
      UserError: a folder that is not empty; a network, schedule or settings that diffusers has nothing for, with the
        fields.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and is not empty: give another folder")
    channels = params["conv_in"]["kernel"].shape[2]
    model = _by_level(model, image_size[0])
    unet, scheduler = configs.write_unet(model, channels, image_size), configs.write_scheduler(schedule, settings)
    shapes = mapping.param_shapes(model, channels)
    state = mapping.to_state(mapping.rules(shapes, names(model)), params)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "unet").mkdir(parents=True)
    (part / "scheduler").mkdir()
    index = {
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    for path, config in (
        (part / "model_index.json", index),
        (part / "unet" / "config.json", {"_class_name": "UNet2DModel", **unet}),
        (part / "scheduler" / "scheduler_config.json", {"_class_name": "DDPMScheduler", **scheduler}),
    ):
        path.write_text(json.dumps(config, indent=2) + "\n")
    (part / "unet" / _WEIGHTS[0]).write_bytes(save(state, metadata={"format": "pt"}))
    if folder.exists():
        folder.rmdir()
    part.rename(folder)
    return folder


def names(model: models.UNet) -> mapping.Names:
    """What `UNet2DModel` calls its parts."""
    last = len(model.multipliers) - 1

    def side(way, level):
        return f"down_blocks.{level}" if way == "down" else f"up_blocks.{last - level}"

    return mapping.Names(
        outer={
            "time_1": "time_embedding.linear_1",
            "time_2": "time_embedding.linear_2",
            "class": "class_embedding",
            "conv_in": "conv_in",
            "norm_out": "conv_norm_out",
            "conv_out": "conv_out",
        },
        middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
        block=lambda way, level, i: f"{side(way, level)}.resnets.{i}",
        attention=lambda way, level, i: f"{side(way, level)}.attentions.{i}",
        resample=lambda way, level: f"{side(way, level)}.{way}samplers.0" + ("" if model.resblock_updown else ".conv"),
        parts={
            "norm1": "norm1",
            "conv1": "conv1",
            "emb": "time_emb_proj",
            "norm2": "norm2",
            "conv2": "conv2",
            "shortcut": "conv_shortcut",
            "norm": "group_norm",
            "q": "to_q",
            "k": "to_k",
            "v": "to_v",
            "out": "to_out.0",
        },
        ranks={"shortcut": 4},
    )


def _renamed(key: str) -> str:
    return re.sub(r"(attentions\.\d+)\.(query|key|value|proj_attn)\.", lambda m: f"{m[1]}.{_OLD[m[2]]}.", key)


def _by_level(model: models.UNet, height: int) -> models.UNet:
    """The same network, the places of attention given by level."""
    if model.attention_levels is not None:
        return model
    levels = range(len(model.multipliers))
    attended = tuple(level for level in levels if height >> level in model.attention_resolutions)
    return model.clone(attention_levels=attended)
