"""Reads OpenAI's network as improved-diffusion and guided-diffusion save it (`.pt`): a `UNetModel`'s state dict.

The file holds only weights. The options of `load` supply what the weights' shapes do not determine; they are named
like the flags of OpenAI's scripts.
"""

from pathlib import Path
from typing import Any

from diffjax import models, state_dicts
from diffjax.errors import UserError
from diffjax.interop import imported, mapping
from diffjax.runs import Run

_SCHEDULES = {"linear": {"name": "linear", "per_thousand": True}, "cosine": {"name": "cosine"}}


def recognised(saved: Any) -> bool:
    """Returns whether a file holds a network of this kind."""
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
    image_size: int | tuple[int, int] | None = None,
) -> Run:
    """Returns a run of the network on its schedule.

    A network with a condition image, such as the upsamplers of guided diffusion, is sampled with
    `dj.sample(run.sampler, run.predictor(label=…, image=…), …)`.

    Args:
      saved: the content of the file.
      path: its path, for error messages.
      diffusion_steps: the number T of timesteps.
      noise_schedule: "linear" (β scaled by 1000/T) or "cosine".
      num_heads, num_head_channels: exactly one of the two, if the network has attention.
      use_new_attention_order: guided diffusion's flag: joint weights `[3, heads, …]` in place of `[heads, 3, …]`.
      rescale_timesteps: whether the network is conditioned on t·1000/T; at T = 1000 there is no difference.
      sigma_small: whether a network without learned variance is sampled with β̃ in place of β.
      image_size: the height and width of the images, which the file does not contain.

    Raises:
      UserError: a missing or invalid option; tensors that are not those of this network.
      ValueError: an invalid option.
    """
    state = state_dicts.state_dict(saved, path)
    if noise_schedule not in _SCHEDULES or not diffusion_steps:
        raise UserError(
            f"{path} does not say its schedule: give diffusion_steps (is {diffusion_steps}) and noise_schedule (is "
            f"{noise_schedule!r}; 'linear' or 'cosine')"
        )
    section = _SCHEDULES[noise_schedule] | {"num_timesteps": diffusion_steps}
    try:
        num_timesteps = imported.schedule(section).num_timesteps
    except ValueError as error:
        raise UserError(
            f"{path}: diffusion_steps={diffusion_steps!r} with noise_schedule={noise_schedule!r} is invalid: {error}"
        ) from error
    model = _model(state, num_heads, num_head_channels)
    attends = model.middle_attention or model.attention_levels
    if attends and (num_heads is None) == (num_head_channels is None):
        raise UserError(f"{path} does not say its heads: give one of num_heads and num_head_channels")
    in_channels = state["input_blocks.0.0.weight"].shape[1]
    channels = min(in_channels, 3)
    if model.out_channels not in (channels, 2 * channels):
        raise UserError(
            f"{path} predicts {model.out_channels} channels for images of {channels}: neither ε nor ε and a variance"
        )
    shapes = mapping.param_shapes(model, channels, in_channels - channels)
    attended = {model.widths[level] for level in model.attention_levels or ()} | {model.widths[-1]}
    if num_head_channels is not None and (others := [width for width in attended if width % num_head_channels]):
        raise UserError(f"{path}: num_head_channels={num_head_channels} must divide {others[0]} channels")
    table = mapping.rules(shapes, names(model, use_new_attention_order))
    fixed = "fixed_small" if sigma_small else "fixed_large"
    return imported.generation(
        model,
        mapping.to_params(table, state, str(path)),
        path,
        imported.image_shape(path, image_size, channels),
        schedule_section=section,
        variance="learned_range" if model.out_channels == 2 * channels else fixed,
        timestep_scale=1000 / num_timesteps if rescale_timesteps else 1.0,
        condition_channels=in_channels - channels,
    )


def names(model: models.UNet, new_order: bool) -> mapping.Names:
    """Returns the names that OpenAI's `UNetModel` gives to the modules of `model`."""
    last, per_level = len(model.channel_mults) - 1, model.num_res_blocks + 1

    def stage(side, level, i):
        if side == "down":
            return f"input_blocks.{1 + level * per_level + i}"
        return f"output_blocks.{(last - level) * per_level + i}"

    def resample(side, level):
        if side == "down":
            return stage("down", level, model.num_res_blocks) + (".0" if model.resblock_updown else ".0.op")
        place = 2 if level in model.attention_levels else 1
        return stage("up", level, per_level - 1) + (f".{place}" if model.resblock_updown else f".{place}.conv")

    def heads(channels):
        if new_order:
            return 1
        return channels // model.num_head_channels if model.num_head_channels else model.num_heads

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
        block=lambda side, level, i: f"{stage(side, level, i)}.0",
        attention=lambda side, level, i: f"{stage(side, level, i)}.1",
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
    upsampled = state_dicts.count(state, r"output_blocks\.(\d+)\.[12]\.(?:conv|in_layers)")
    levels = range(upsampled + 1)
    per_level = state_dicts.count(state, r"output_blocks\.(\d+)\.") // len(levels)
    channels = state["time_embed.0.weight"].shape[1]

    def first(level):
        return f"input_blocks.{1 + level * per_level}"

    widths = [len(state[f"{first(level)}.0.out_layers.3.bias"]) for level in levels]
    return models.UNet(
        base_channels=channels,
        channel_mults=tuple(width // channels for width in widths),
        num_res_blocks=per_level - 1,
        attention_levels=tuple(level for level in levels if f"{first(level)}.1.qkv.weight" in state),
        middle_attention="middle_block.1.qkv.weight" in state,
        num_heads=1 if num_heads is None else num_heads,
        num_head_channels=num_head_channels,
        out_channels=len(state["out.2.bias"]),
        norm_eps=1e-5,
        downsample_padding=(1, 1),
        time_embedding="cos_sin",
        freq_shift=0,
        use_scale_shift_norm=len(state["input_blocks.1.0.emb_layers.1.bias"]) == 2 * widths[0],
        resblock_updown=any(key.startswith(f"input_blocks.{per_level}.0.in_layers") for key in state),
        num_classes=len(state["label_emb.weight"]) if "label_emb.weight" in state else None,
    )
