"""Reads and writes folders of Hugging Face diffusers: a `UNet2DModel` or DiT's transformer, and a scheduler.

Two layouts are read: a pipeline's (`unet/` or `transformer/`, and `scheduler/`) and the flat one of older models
(`config.json`, `scheduler_config.json`). The written layout is a pipeline's: `DDPMPipeline.from_pretrained` and
`DDIMPipeline` load a UNet's; `DiTPipeline` also needs an autoencoder (`vae=`).
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from diffjax import models
from diffjax.errors import UserError, writing
from diffjax.files import local_path, remove_leftovers, temporary
from diffjax.interop import diffusers_configs as configs
from diffjax.interop import diffusers_dit, diffusers_weights, imported, mapping, model_card
from diffjax.interop import diffusers_schedulers as schedulers
from diffjax.runs import Run
from diffjax.tasks.generation import Generation

# The names of attention modules before diffusers 0.13, and after.
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

# DiT's code drops labels with this probability, and so does diffusers.
_DIT_LABEL_DROPOUT = 0.1


class _Written(NamedTuple):
    """A network as diffusers saves it."""

    pipeline: str
    kind: str
    """The class of the network."""
    folder: str
    config: dict[str, Any]
    state: mapping.State


def load(folder: Path, *, image_size: int | tuple[int, int] | None = None, num_classes: int | None = None) -> Run:
    """Returns a run of a diffusers folder's network, with its scheduler's schedule, timestep spacing and clipping.

    If the pipeline has an autoencoder (DiT), the images of the run are its latents. A network with more input than
    output channels takes a condition image, whose channels come after those of x: `run.predictor(image=…)`.

    Args:
      folder: the folder.
      image_size: the height and width of the images, if the folder does not contain them.
      num_classes: the number of classes of a network that embeds them as timesteps (`class_embed_type`), if the folder
        does not contain it.

    Raises:
      UserError: a file that is missing or damaged; a config with values that this library does not support; a missing
        or invalid option.
    """
    if (folder / "transformer").is_dir():
        if num_classes is not None:
            raise UserError(f"num_classes={num_classes!r} must be left out: {folder} contains it")
        model, params, inputs, size = diffusers_dit.load_transformer(folder / "transformer")
        label_dropout, scheduler = _DIT_LABEL_DROPOUT, folder / "scheduler"
        # The DDIM scheduler of DiT's pipelines has no variance type.
        variance = "learned_range" if model.out_channels == 2 * inputs else "fixed_small"
    else:
        piped = (folder / "unet").is_dir()
        model, params, inputs, size = _load_unet(folder / "unet" if piped else folder, num_classes)
        label_dropout, scheduler, variance = 0.0, folder / "scheduler" if piped else folder, "fixed_small"
    network = next((path for name in ("transformer", "unet") if (path := folder / name).is_dir()), folder)
    read = schedulers.read_scheduler(scheduler / "scheduler_config.json", variance=variance)
    diffusers_weights.warn_of_changes(network, (network / "config.json", scheduler / "scheduler_config.json"))
    channels = _image_channels(folder, inputs, model.out_channels, read.variance)
    return imported.generation(
        model,
        params,
        folder,
        imported.image_shape(folder, size if image_size is None else image_size, channels),
        schedule_section=read.schedule_section,
        variance=read.variance,
        target=read.target,
        sigma_data=read.sigma_data,
        timestep_scale=read.timestep_scale,
        noise_conditioning=read.noise_conditioning,
        label_dropout=label_dropout,
        condition_channels=inputs - channels,
        label_size=model.label_size if isinstance(model, models.UNet) else 0,
        sample=read.sample,
        preferred=read.preferred,
    )


def _image_channels(folder: Path, inputs: int, outputs: int, variance: str) -> int:
    """Returns the channels of an image; the other input channels are a condition image's.

    Raises:
      UserError: channels that do not go with the variance.
    """
    learned = variance == "learned_range"
    channels = outputs // 2 if learned else outputs
    if channels > inputs or (learned and (outputs % 2 or outputs == inputs)):
        raise UserError(
            f"{folder}: a network with in_channels={inputs} and out_channels={outputs} does not go with variance_type "
            f"{variance!r}"
        )
    return channels


def export(folder: str | os.PathLike, run: Run, *, name: str | None = None) -> Path:
    """Writes the network of a run as a pipeline's folder, with a model card, and returns its path.

    The scheduler has the run's schedule (as β_0 and β_{T-1} if it is linear, else as the list of β, which
    diffusers rounds to float32), target, timestep spacing and clipping; the variance is the one that the network
    predicts, or else `config.sample`'s, or else fixed_small.

    Args:
      folder: the folder; it must be new or empty.
      run: a trained or imported run, whose network is a UNet or a DiT without a condition image.
      name: what the model card calls it; None: the folder.

    Raises:
      UserError: a folder that is not empty or cannot be written; a network, schedule or sampler that diffusers does
        not support, whose fields the message names.
    """
    folder = local_path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already and is not empty: give another folder")
    if not isinstance(run.task, Generation):
        raise UserError(f"diffusers' pipelines have no {type(run.task).__name__}: they generate images")
    scheduler, written = schedulers.write_scheduler(run), _written(run)
    index = {
        "_class_name": written.pipeline,
        "scheduler": ["diffusers", "DDPMScheduler"],
        written.folder: ["diffusers", written.kind],
    }
    part = temporary(folder)
    with writing(folder), _removed(part):
        remove_leftovers(folder.parent)
        (part / written.folder).mkdir(parents=True)
        (part / "scheduler").mkdir()
        configs = {
            part / "model_index.json": index,
            part / written.folder / "config.json": {"_class_name": written.kind, **written.config},
            part / "scheduler" / "scheduler_config.json": {"_class_name": "DDPMScheduler", **scheduler},
        }
        for path, config in configs.items():
            path.write_text(json.dumps(config, indent=2) + "\n")
        card = model_card.text(run, name=name or folder.name, pipeline=written.pipeline)
        (part / "README.md").write_text(card)
        diffusers_weights.write_weights(part / written.folder, written.state, configs)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    return folder


@contextlib.contextmanager
def _removed(folder: Path) -> Iterator[None]:
    """Removes a folder on exit, if it is still there."""
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def names(model: models.UNet) -> mapping.Names:
    """Returns the names that `UNet2DModel` gives to the modules of `model`."""
    last = len(model.channel_mults) - 1

    def stage(side, level):
        return f"down_blocks.{level}" if side == "down" else f"up_blocks.{last - level}"

    return mapping.Names(
        outer={
            "time_1": "time_embedding.linear_1",
            "time_2": "time_embedding.linear_2",
            "class": "class_embedding",
            "class_1": "class_embedding.linear_1",
            "class_2": "class_embedding.linear_2",
            "conv_in": "conv_in",
            "norm_out": "conv_norm_out",
            "conv_out": "conv_out",
        },
        middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
        block=lambda side, level, i: f"{stage(side, level)}.resnets.{i}",
        attention=lambda side, level, i: f"{stage(side, level)}.attentions.{i}",
        resample=lambda side, level: (
            f"{stage(side, level)}.{side}samplers.0" + ("" if model.resampled_by_block(side, level) else ".conv")
        ),
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


def _load_unet(
    folder: Path, num_classes: int | None
) -> tuple[models.UNet, mapping.Params, int, tuple[int, int] | None]:
    """Returns (network, parameters, input channels, (height, width) or None) of a `UNet2DModel`'s folder."""
    model, channels, size = configs.read_unet(folder / "config.json", num_classes)
    state, path = diffusers_weights.read_weights(folder)
    state = {_renamed(key): tensor for key, tensor in state.items()}
    table = mapping.rules(mapping.param_shapes(model, channels, size=size or (1, 1)), names(model))
    return model, mapping.to_params(table, state, str(path)), channels, size


def _written(run: Run) -> _Written:
    network, (*size, channels) = run.network, run.image_shape
    if isinstance(network, models.DiT):
        _check_inputs("patch", run)
        config = diffusers_dit.write_transformer(network, channels, tuple(size))
        return _Written(
            "DiTPipeline", "DiTTransformer2DModel", "transformer", config, diffusers_dit.to_state(run.sampled_params)
        )
    if not isinstance(network, models.UNet):
        raise UserError(f"diffusers has no {type(network).__name__}: only a UNet or a DiT can be written")
    _check_inputs("conv_in", run)
    network = models.by_level(network, size[0])
    config = configs.write_unet(network, channels, tuple(size))
    table = mapping.rules(run.sampled_params, names(network))
    return _Written("DDPMPipeline", "UNet2DModel", "unet", config, mapping.to_state(table, run.sampled_params))


def _check_inputs(first: str, run: Run) -> None:
    inputs, channels = run.sampled_params[first]["kernel"].shape[2], run.image_shape[-1]
    if inputs != channels:
        raise UserError(
            f"diffusers' pipelines have no condition image: this network takes {inputs - channels} channels of it"
        )


def _renamed(key: str) -> str:
    return re.sub(r"(attentions\.\d+)\.(query|key|value|proj_attn)\.", lambda m: f"{m[1]}.{_OLD[m[2]]}.", key)
