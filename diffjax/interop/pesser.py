"""Reads DDPM's network from pesser/pytorch_diffusion or ermongroup/ddim (`.ckpt`, `.pth`): a `Model`'s state dict.

ermongroup's training saves a list, [state dict, optimizer, epoch, step, EMA's state dict], with names after `module.`.
"""

from pathlib import Path
from typing import Any

from diffjax import models, state_dicts
from diffjax.errors import UserError
from diffjax.interop import imported, mapping
from diffjax.runs import Run
from diffjax.schedules import NoiseSchedule

_VARIANCES = ("fixed_small", "fixed_large")


def recognised(saved: Any) -> bool:
    """Returns whether a file holds a network of this kind."""
    states = saved if isinstance(saved, list) and saved else [saved]
    return isinstance(states[0], dict) and any(str(key).endswith("temb.dense.0.weight") for key in states[0])


def load(
    saved: Any,
    path: Path,
    *,
    ema: bool = True,
    variance: str = "fixed_large",
    image_size: int | tuple[int, int] | None = None,
    schedule: NoiseSchedule | None = None,
) -> Run:
    """Returns a run of the network on DDPM's schedule, which the file does not contain: linear, T = 1000.

    Args:
      saved: the content of the file.
      path: its path, for error messages.
      ema: whether to load the EMA parameters, if the file holds both.
      variance: "fixed_large" as in DDPM for CIFAR-10, "fixed_small" for its 256×256 networks.
      image_size: the height and width of the images; None: such that the network has attention at 16×16 only, as all of
        DDPM's networks do.
      schedule: another schedule, for a network that was trained on it.

    Raises:
      UserError: tensors that are not those of this network; a missing or invalid option.
      ValueError: an invalid option.
    """
    if variance not in _VARIANCES:
        raise ValueError(f"variance={variance!r} is not one of {', '.join(map(repr, _VARIANCES))}")
    if isinstance(saved, list):
        if ema and (len(saved) < 5 or not isinstance(saved[4], dict)):
            raise UserError(f"{path} holds no EMA parameters; give ema=False for the others")
        saved = saved[4] if ema else saved[0]
    state = state_dicts.state_dict(saved, path)
    state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    model = _model(state)
    if image_size is None and len(model.attention_levels) == 1:
        image_size = 16 << model.attention_levels[0]
    channels = state["conv_in.weight"].shape[1]
    table = mapping.rules(mapping.param_shapes(model, channels), names(model))
    return imported.generation(
        model,
        mapping.to_params(table, state, str(path)),
        path,
        imported.image_shape(path, image_size, channels),
        schedule_section={"name": "linear"} if schedule is None else imported.betas(schedule.betas),
        variance=variance,
    )


def names(model: models.UNet) -> mapping.Names:
    """Returns the names that this code gives to the modules of `model` (its `Model`)."""
    return mapping.Names(
        outer={
            "time_1": "temb.dense.0",
            "time_2": "temb.dense.1",
            "conv_in": "conv_in",
            "norm_out": "norm_out",
            "conv_out": "conv_out",
        },
        middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
        block=lambda side, level, i: f"{side}.{level}.block.{i}",
        attention=lambda side, level, i: f"{side}.{level}.attn.{i}",
        resample=lambda side, level: f"{side}.{level}.{side}sample.conv",
        parts={
            "norm1": "norm1",
            "conv1": "conv1",
            "emb": "temb_proj",
            "norm2": "norm2",
            "conv2": "conv2",
            "shortcut": "nin_shortcut",
            "norm": "norm",
            "q": "q",
            "k": "k",
            "v": "v",
            "out": "proj_out",
        },
        ranks=dict.fromkeys(("shortcut", "q", "k", "v", "out"), 4),
    )


def _model(state: mapping.State) -> models.UNet:
    levels = range(state_dicts.count(state, r"down\.(\d+)\."))
    channels = state["temb.dense.0.weight"].shape[1]
    return models.UNet(
        base_channels=channels,
        channel_mults=tuple(len(state[f"down.{level}.block.0.conv1.bias"]) // channels for level in levels),
        num_res_blocks=state_dicts.count(state, r"down\.0\.block\.(\d+)"),
        attention_levels=tuple(level for level in levels if f"down.{level}.attn.0.q.weight" in state),
        middle_attention="mid.attn_1.q.weight" in state,
        out_channels=len(state["conv_out.bias"]),
    )
