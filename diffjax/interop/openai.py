"""OpenAI's network as improved-diffusion and guided-diffusion save it (`.pt`): a `UNetModel`'s state dict.

The file holds weights alone. What their shapes do not tell is asked for by the names of the flags that OpenAI's
scripts take.
"""

from pathlib import Path
from typing import Any

from diffjax import models, schedules
from diffjax.errors import UserError
from diffjax.interop import files, mapping
from diffjax.interop.pretrained import Pretrained, Settings


def recognised(saved: Any) -> bool:
    """Whether a file holds such a network."""
    return isinstance(saved, dict) and "time_embed.0.weight" in saved


def load(
    saved: Any,
    path: Path,
    *,
    diffusion_steps: int | None = None,
    noise_schedule: str | None = None,
    num_heads: int | None = None,
    num_head_channels: int | None = None,
    use_new_attention_order: bool = False,
    rescale_timesteps: bool = True,
    sigma_small: bool = False,
    image_size: int | None = None,
) -> Pretrained:
    """The network and its schedule.

    Args:
      saved: what the file holds.
      path: its name, for errors.
      diffusion_steps: T.
      noise_schedule: "linear" (β scaled by 1000/T) or "cosine".
      num_heads, num_head_channels: one of the two, if the network attends anywhere.
      use_new_attention_order: guided diffusion's flag: joint weights `[3, heads, …]` in place of `[heads, 3, …]`.
      rescale_timesteps: whether the network was told t·1000/T; at T = 1000 there is no difference.
      sigma_small: without learned variance, β̃ in place of β.
      image_size: where it is to be known.

    Raises:
      UserError: an option that is missing or cannot be; tensors that are not this network's.
    """
    state = files.state_dict(saved, path)
    kinds = {"linear": lambda total: schedules.linear(total, per_thousand=True), "cosine": schedules.cosine}
    if noise_schedule not in kinds or not diffusion_steps:
        raise UserError(
            f"{path} does not say its schedule: give diffusion_steps (is {diffusion_steps}) and noise_schedule (is "
            f"{noise_schedule!r}; 'linear' or 'cosine')"
        )
    model = _model(state, num_heads, num_head_channels)
    attends = model.middle_attention or model.attention_levels
    if attends and (num_heads is None) == (num_head_channels is None):
        raise UserError(f"{path} does not say its heads: give one of num_heads and num_head_channels")
    in_channels = state["input_blocks.0.0.weight"].shape[1]
    channels = min(in_channels, 3)
    if model.out_channels not in (channels, 2 * channels):
        raise UserError(f"{path} gives {model.out_channels} channels for images of {channels}: neither ε nor ε and σ")
    condition = in_channels - channels
    table = mapping.rules(mapping.param_shapes(model, channels, condition), names(model, use_new_attention_order))
    fixed = "fixed_small" if sigma_small else "fixed_large"
    return Pretrained(
        model=model,
        params=mapping.to_params(table, state, str(path)),
        schedule=kinds[noise_schedule](diffusion_steps),
        settings=Settings(
            variance="learned_range" if model.out_channels == 2 * channels else fixed,
            time="per_thousand" if rescale_timesteps else "index",
        ),
        channels=channels,
        condition_channels=condition,
        image_size=None if image_size is None else (image_size, image_size),
    )


def names(model: models.UNet, new_order: bool) -> mapping.Names:
    """What `UNetModel` calls its parts."""
    last, per_level = len(model.multipliers) - 1, model.num_res_blocks + 1

    def stage(way, level, i):
        if way == "down":
            return f"input_blocks.{1 + level * per_level + i}"
        return f"output_blocks.{(last - level) * per_level + i}"

    def resample(way, level):
        if way == "down":
            return stage("down", level, model.num_res_blocks) + (".0" if model.resblock_updown else ".0.op")
        place = 2 if level in model.attention_levels else 1
        return stage("up", level, per_level - 1) + (f".{place}" if model.resblock_updown else f".{place}.conv")

    def heads(channels):
        if new_order:
            return 1
        return channels // model.head_channels if model.head_channels else model.num_heads

    return mapping.Names(
        outer={
            "time_1": "time_embed.0",
            "time_2": "time_embed.2",
            "class": "label_emb",
            "conv_in": "input_blocks.0.0",
            "norm_out": "out.0",
            "conv_out": "out.2",
        },
        middle=("middle_block.0", "middle_block.1", "middle_block.2"),
        block=lambda way, level, i: f"{stage(way, level, i)}.0",
        attention=lambda way, level, i: f"{stage(way, level, i)}.1",
        resample=resample,
        parts={
            "norm1": "in_layers.0",
            "conv1": "in_layers.2",
            "emb": "emb_layers.1",
            "norm2": "out_layers.0",
            "conv2": "out_layers.3",
            "shortcut": "skip_connection",
            "norm": "norm",
            "q": "qkv",
            "k": "qkv",
            "v": "qkv",
            "out": "proj_out",
        },
        ranks={"shortcut": 4, "q": 3, "k": 3, "v": 3, "out": 3},
        heads=heads,
    )


def _model(state: mapping.State, num_heads: int | None, num_head_channels: int | None) -> models.UNet:
    # Every level but the last ends in one upsampling, and each has as many stages as residual blocks on the way up.
    upsampled = files.count(state, r"output_blocks\.(\d+)\.[12]\.(?:conv|in_layers)")
    levels = range(upsampled + 1)
    per_level = files.count(state, r"output_blocks\.(\d+)\.") // len(levels)
    channels = state["time_embed.0.weight"].shape[1]

    def first(level):
        return f"input_blocks.{1 + level * per_level}"

    widths = [len(state[f"{first(level)}.0.out_layers.3.bias"]) for level in levels]
    return models.UNet(
        channels=channels,
        multipliers=tuple(width // channels for width in widths),
        num_res_blocks=per_level - 1,
        attention_levels=tuple(level for level in levels if f"{first(level)}.1.qkv.weight" in state),
        middle_attention="middle_block.1.qkv.weight" in state,
        num_heads=num_heads or 1,
        head_channels=num_head_channels,
        out_channels=len(state["out.2.bias"]),
        norm_eps=1e-5,
        downsample_padding=(1, 1),
        time_embedding="cos_sin",
        freq_shift=0,
        scale_shift=len(state["input_blocks.1.0.emb_layers.1.bias"]) == 2 * widths[0],
        resblock_updown=any(key.startswith(f"input_blocks.{per_level}.0.in_layers") for key in state),
        num_classes=len(state["label_emb.weight"]) if "label_emb.weight" in state else None,
    )
