"""Reads SR3's network as Janspiry's Image-Super-Resolution-via-Iterative-Refinement saves it (`I*_E*_gen.pth`).

The file is the state dict of its `GaussianDiffusion`: the network, and as buffers the schedule it last sampled on.
"""

from pathlib import Path
from typing import Any

from diffjax import models, state_dicts
from diffjax.errors import UserError
from diffjax.interop import imported, mapping
from diffjax.runs import Run
from diffjax.schedules import NoiseSchedule
from diffjax.tasks.noise_level import NoiseLevel
from diffjax.tasks.super_resolution import SuperResolution

_BUFFERS = (
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
    *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
)


def recognised(saved: Any) -> bool:
    """Returns whether a file holds a network of this kind."""
    return isinstance(saved, dict) and "denoise_fn.downs.0.weight" in saved


def load(
    saved: Any,
    path: Path,
    *,
    num_groups: int = 32,
    image_size: int | tuple[int, int] | None = None,
    schedule: NoiseSchedule | None = None,
) -> Run:
    """Returns a run of the network, conditioned on √ᾱ, on the schedule in the file's buffers (β in float32).

    Args:
      saved: the content of the file.
      path: its path, for error messages.
      num_groups: the number of groups of the normalisations, as in its JSON config: 32 for 16→128, 16 for 64→512.
      image_size: the height and width of the high-resolution images, which the file does not contain.
      schedule: a schedule to use instead of the file's.

    Raises:
      UserError: tensors that are not those of this network; a missing or invalid option; no schedule.
      ValueError: an invalid option.
    """
    saved = state_dicts.state_dict(saved, path)
    if schedule is None and "betas" not in saved:
        raise UserError(f"{path} holds no schedule: give schedule=")
    state = {key.removeprefix("denoise_fn."): value for key, value in saved.items() if key not in _BUFFERS}
    model = _model(state, num_groups)
    in_channels, channels = state["downs.0.weight"].shape[1], model.out_channels
    shapes = mapping.param_shapes(model, channels, in_channels - channels)
    params = mapping.to_params(mapping.rules(shapes, names(model, in_channels - channels)), state, str(path))
    section = imported.betas(saved["betas"] if schedule is None else schedule.betas)
    task = SuperResolution(
        network=model,
        schedule=imported.schedule(section),
        image_shape=imported.image_shape(path, image_size, channels),
        level=NoiseLevel("sqrt_alpha_bar", "sqrt_alpha_bar", 1.0),
    )
    return imported.run(task, params, path, schedule_section=section, variance="fixed_small")


def names(model: models.UNet, condition_channels: int) -> mapping.Names:
    """Returns the names that this code gives to the modules of `model` (its `UNet`)."""
    last, blocks = len(model.channel_mults) - 1, model.num_res_blocks

    def layer(side, level, i):
        if side == "down":
            return f"downs.{1 + level * (blocks + 1) + i}"
        return f"ups.{(last - level) * (blocks + 2) + i}"

    return mapping.Names(
        outer={
            "time_1": "noise_level_mlp.1",
            "time_2": "noise_level_mlp.3",
            "conv_in": "downs.0",
            "norm_out": "final_conv.block.0",
            "conv_out": "final_conv.block.3",
        },
        middle=("mid.0.res_block", "mid.0.attn", "mid.1.res_block"),
        block=lambda side, level, i: f"{layer(side, level, i)}.res_block",
        attention=lambda side, level, i: f"{layer(side, level, i)}.attn",
        resample=lambda side, level: f"{layer(side, level, blocks if side == 'down' else blocks + 1)}.conv",
        parts={
            "norm1": "block1.block.0",
            "conv1": "block1.block.3",
            "emb": "noise_func.noise_func.0",
            "norm2": "block2.block.0",
            "conv2": "block2.block.3",
            "shortcut": "res_conv",
            "norm": "norm",
            "q": "qkv",
            "k": "qkv",
            "v": "qkv",
            "out": "out",
        },
        ranks=dict.fromkeys(("shortcut", "q", "k", "v", "out"), 4),
        condition_first=condition_channels,
    )


def _model(state: mapping.State, groups: int) -> models.UNet:
    levels = range(state_dicts.count(state, r"downs\.(\d+)\.conv\.weight") + 1)
    blocks = state_dicts.count(state, r"downs\.(\d+)\.") // len(levels) - 1
    channels = len(state["downs.0.bias"])

    def first(level):
        return f"downs.{1 + level * (blocks + 1)}"

    return models.UNet(
        base_channels=channels,
        channel_mults=tuple(
            len(state[f"{first(level)}.res_block.block1.block.3.bias"]) // channels for level in levels
        ),
        num_res_blocks=blocks,
        attention_levels=tuple(level for level in levels if f"{first(level)}.attn.qkv.weight" in state),
        middle_attention="mid.0.attn.qkv.weight" in state,
        num_groups=groups,
        out_channels=len(state["final_conv.block.3.bias"]),
        norm_eps=1e-5,
        downsample_padding=(1, 1),
        freq_shift=0,
        time_channels=(channels, 4 * channels, channels),
        activate_embedding=False,
        qkv_bias=False,
    )
