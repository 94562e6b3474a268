"""DDPM's network as pesser/pytorch_diffusion and ermongroup/ddim save it (`.ckpt`, `.pth`): a `Model`'s state dict.

ermongroup's own runs save a list, [state dict, optimizer, epoch, step, EMA's state dict], its names after `module.`.
"""

from pathlib import Path
from typing import Any

from diffjax import models, schedules
from diffjax.errors import UserError
from diffjax.interop import files, mapping
from diffjax.interop.pretrained import Pretrained, Settings
from diffjax.schedules import NoiseSchedule


def recognised(saved: Any) -> bool:
    """Whether a file holds such a network."""
    states = saved if isinstance(saved, list) else [saved]
    return isinstance(states[0], dict) and any(key.endswith("temb.dense.0.weight") for key in states[0])


def load(
    saved: Any,
    path: Path,
    *,
    ema: bool = True,
    variance: str = "fixed_large",
    image_size: int | None = None,
    schedule: NoiseSchedule | None = None,
) -> Pretrained:
    """The network and DDPM's schedule, which the file does not hold: linear, T = 1000.

    Args:
      saved: what the file holds.
      path: its name, for errors.
      ema: the EMA parameters, where both are there.
      variance: "fixed_large" as DDPM has it for CIFAR-10, "fixed_small" for its 256×256 networks.
      image_size: None takes the network to attend at 16×16 alone, as all of DDPM's do.
      schedule: another one, for a network trained otherwise.
    """
    if isinstance(saved, list):
        if ema and (len(saved) < 5 or not isinstance(saved[4], dict)):
            raise UserError(f"{path} holds no EMA parameters; ask for the others by ema=False")
        saved = saved[4] if ema else saved[0]
    state = files.state_dict(saved, path)
    state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    model = _model(state)
    if image_size is None and len(model.attention_levels) == 1:
        image_size = 16 << model.attention_levels[0]
    channels = state["conv_in.weight"].shape[1]
    table = mapping.rules(mapping.param_shapes(model, channels), names(model))
    return Pretrained(
        model=model,
        params=mapping.to_params(table, state, str(path)),
        schedule=schedule or schedules.linear(1000),
        settings=Settings(variance=variance),
        channels=channels,
        image_size=None if image_size is None else (image_size, image_size),
    )


def names(model: models.UNet) -> mapping.Names:
    """What `Model` calls its parts."""
    return mapping.Names(
        outer={
            "time_1": "temb.dense.0",
            "time_2": "temb.dense.1",
            "conv_in": "conv_in",
            "norm_out": "norm_out",
            "conv_out": "conv_out",
        },
        middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
        block=lambda way, level, i: f"{way}.{level}.block.{i}",
        attention=lambda way, level, i: f"{way}.{level}.attn.{i}",
        resample=lambda way, level: f"{way}.{level}.{way}sample.conv",
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
    levels = range(files.count(state, r"down\.(\d+)\."))
    channels = state["temb.dense.0.weight"].shape[1]
    return models.UNet(
        channels=channels,
        multipliers=tuple(len(state[f"down.{level}.block.0.conv1.bias"]) // channels for level in levels),
        num_res_blocks=files.count(state, r"down\.0\.block\.(\d+)"),
        attention_levels=tuple(level for level in levels if f"down.{level}.attn.0.q.weight" in state),
        middle_attention="mid.attn_1.q.weight" in state,
        out_channels=len(state["conv_out.bias"]),
    )
