"""The class-conditional network of abarankab/DDPM (`*-model.pth`): the state dict of its `GaussianDiffusion`.

It holds the network twice, as trained and as averaged, and the schedule as buffers.
"""

from pathlib import Path
from typing import Any

from diffjax import models, schedules
from diffjax.interop import files, mapping
from diffjax.interop.pretrained import Pretrained, Settings

_BUFFERS = (
    *("betas", "alphas", "alphas_cumprod", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("reciprocal_sqrt_alphas", "remove_noise_coeff", "sigma"),
)


def recognised(saved: Any) -> bool:
    """Whether a file holds such a network."""
    return isinstance(saved, dict) and "ema_model.init_conv.weight" in saved and "betas" in saved


def load(
    saved: Any, path: Path, *, ema: bool = True, num_groups: int = 32, image_size: int | None = None
) -> Pretrained:
    """The network and its schedule, whose β the file holds in float32.

    Args:
      saved: what the file holds.
      path: its name, for errors.
      ema: the averaged parameters, or those that were trained.
      num_groups: of the normalisations, as it was trained with.
      image_size: where it is to be known.

    Raises:
      UserError: tensors that are not this network's.
    """
    saved = files.state_dict(saved, path)
    betas = saved["betas"]
    others = {key: value for key, value in saved.items() if not key.startswith(("model.", "ema_model."))}
    state = files.under(saved, "ema_model." if ema else "model.")
    # Buffers follow from β; any other tensor is reported as left over.
    state |= {key: value for key, value in others.items() if key not in _BUFFERS}
    model = _model(state, num_groups)
    channels = state["init_conv.weight"].shape[1]
    table = mapping.rules(mapping.param_shapes(model, channels), names(model))
    return Pretrained(
        model=model,
        params=mapping.to_params(table, state, str(path)),
        schedule=schedules.from_betas(betas),
        settings=Settings(clip=None),
        channels=channels,
        image_size=None if image_size is None else (image_size, image_size),
    )


def names(model: models.UNet) -> mapping.Names:
    """What its `UNet` calls its parts."""
    last, blocks = len(model.multipliers) - 1, model.num_res_blocks

    def layer(way, level, i):
        return f"downs.{level * (blocks + 1) + i}" if way == "down" else f"ups.{(last - level) * (blocks + 2) + i}"

    def resample(way, level):
        return (
            f"{layer('down', level, blocks)}.downsample"
            if way == "down"
            else f"{layer('up', level, blocks + 1)}.upsample.1"
        )

    return mapping.Names(
        outer={
            "time_1": "time_mlp.1",
            "time_2": "time_mlp.3",
            "conv_in": "init_conv",
            "norm_out": "out_norm",
            "conv_out": "out_conv",
        },
        middle=("mid.0", "mid.0.attention", "mid.1"),
        block=layer,
        attention=lambda way, level, i: f"{layer(way, level, i)}.attention",
        resample=resample,
        parts={
            "norm1": "norm_1",
            "conv1": "conv_1",
            "emb": "time_bias",
            "class_bias": "class_bias",
            "norm2": "norm_2",
            "conv2": "conv_2.1",
            "shortcut": "residual_connection",
            "norm": "norm",
            "q": "to_qkv",
            "k": "to_qkv",
            "v": "to_qkv",
            "out": "to_out",
        },
        ranks=dict.fromkeys(("shortcut", "q", "k", "v", "out"), 4),
    )


def _model(state: mapping.State, groups: int) -> models.UNet:
    levels = range(files.count(state, r"downs\.(\d+)\.downsample") + 1)
    blocks = (files.count(state, r"downs\.(\d+)\.") + 1) // len(levels) - 1
    channels, hidden = len(state["init_conv.bias"]), len(state["time_mlp.1.bias"])

    def first(level):
        return f"downs.{level * (blocks + 1)}"

    classes = state.get("downs.0.class_bias.weight")
    return models.UNet(
        channels=channels,
        multipliers=tuple(len(state[f"{first(level)}.conv_1.bias"]) // channels for level in levels),
        num_res_blocks=blocks,
        attention_levels=tuple(level for level in levels if f"{first(level)}.attention.to_qkv.weight" in state),
        middle_attention="mid.0.attention.to_qkv.weight" in state,
        groups=groups,
        norm_eps=1e-5,
        downsample_padding=(1, 1),
        freq_shift=0,
        time_channels=(channels, hidden, hidden),
        num_classes=None if classes is None else len(classes),
        class_embedding="block",
    )
