"""SR3's network as Janspiry's Image-Super-Resolution-via-Iterative-Refinement saves it (`I*_E*_gen.pth`).

The file is the state dict of its `GaussianDiffusion`: the network, and the schedule it last sampled on as buffers.
"""

from pathlib import Path
from typing import Any

from diffjax import models, schedules
from diffjax.errors import UserError
from diffjax.interop import files, mapping
from diffjax.interop.pretrained import Pretrained, Settings
from diffjax.schedules import NoiseSchedule

_BUFFERS = (
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
    *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
)


def recognised(saved: Any) -> bool:
    """Whether a file holds such a network."""
    return isinstance(saved, dict) and "denoise_fn.downs.0.weight" in saved


def load(
    saved: Any,
    path: Path,
    *,
    norm_groups: int = 32,
    image_size: int | None = None,
    schedule: NoiseSchedule | None = None,
) -> Pretrained:
    """The network, told √ᾱ, and the schedule of the file's buffers (β in float32).

    Args:
      saved: what the file holds.
      path: its name, for errors.
      norm_groups: as in the JSON config it was trained with: 32 for 16→128, 16 for 64→512.
      image_size: of the high resolution, where it is to be known.
      schedule: in place of the file's.

    Raises:
      UserError: tensors that are not this network's; no schedule.
    """
    saved = files.state_dict(saved, path)
    if schedule is None and "betas" not in saved:
        raise UserError(f"{path} holds no schedule: give one")
    state = {key.removeprefix("denoise_fn."): value for key, value in saved.items() if key not in _BUFFERS}
    model = _model(state, norm_groups)
    in_channels, channels = state["downs.0.weight"].shape[1], model.out_channels
    shapes = mapping.param_shapes(model, channels, in_channels - channels)
    table = mapping.rules(shapes, names(model, in_channels - channels))
    return Pretrained(
        model=model,
        params=mapping.to_params(table, state, str(path)),
        schedule=schedule or schedules.from_betas(saved["betas"]),
        settings=Settings(variance="fixed_small", time="sqrt_alpha_bar"),
        channels=channels,
        condition_channels=in_channels - channels,
        image_size=None if image_size is None else (image_size, image_size),
    )


def names(model: models.UNet, condition_channels: int) -> mapping.Names:
    """What its `UNet` calls its parts."""
    last, blocks = len(model.multipliers) - 1, model.num_res_blocks

    def layer(way, level, i):
        if way == "down":
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
        block=lambda way, level, i: f"{layer(way, level, i)}.res_block",
        attention=lambda way, level, i: f"{layer(way, level, i)}.attn",
        resample=lambda way, level: f"{layer(way, level, blocks if way == 'down' else blocks + 1)}.conv",
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
    levels = range(files.count(state, r"downs\.(\d+)\.conv\.weight") + 1)
    blocks = files.count(state, r"downs\.(\d+)\.") // len(levels) - 1
    channels = len(state["downs.0.bias"])

    def first(level):
        return f"downs.{1 + level * (blocks + 1)}"

    return models.UNet(
        channels=channels,
        multipliers=tuple(len(state[f"{first(level)}.res_block.block1.block.3.bias"]) // channels for level in levels),
        num_res_blocks=blocks,
        attention_levels=tuple(level for level in levels if f"{first(level)}.attn.qkv.weight" in state),
        middle_attention="mid.0.attn.qkv.weight" in state,
        groups=groups,
        out_channels=len(state["final_conv.block.3.bias"]),
        norm_eps=1e-5,
        downsample_padding=(1, 1),
        freq_shift=0,
        time_channels=(channels, 4 * channels, channels),
        activate_embedding=False,
        qkv_bias=False,
    )
