"""Reads the class-conditional network of abarankab/DDPM (`*-model.pth`): the state dict of its `GaussianDiffusion`.

The file holds the network twice, as trained and averaged (EMA), and the schedule as buffers.
"""

from pathlib import Path
from typing import Any

from diffjax import models, state_dicts
from diffjax.interop import imported, mapping
from diffjax.runs import Run

_BUFFERS = (
    *("betas", "alphas", "alphas_cumprod", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("reciprocal_sqrt_alphas", "remove_noise_coeff", "sigma"),
)


def recognised(saved: Any) -> bool:
    """Returns whether a file holds a network of this kind."""
    return isinstance(saved, dict) and "ema_model.init_conv.weight" in saved and "betas" in saved


def load(
    saved: Any,
    path: Path,
    *,
    ema: bool = True,
    num_groups: int = 32,
    image_size: int | tuple[int, int] | None = None,
) -> Run:
    """Returns a run of the network on its schedule, whose β the file holds in float32; x̂0 is not clipped.

    Args:
      saved: the content of the file.
      path: its path, for error messages.
      ema: whether to load the averaged parameters; otherwise the trained ones are loaded.
      num_groups: the number of groups of the normalisations in training.
      image_size: the height and width of the images, which the file does not contain.

    Raises:
      UserError: tensors that are not those of this network; a missing or invalid option.
      ValueError: an invalid option.
    """
    saved = state_dicts.state_dict(saved, path)
    others = {key: value for key, value in saved.items() if not key.startswith(("model.", "ema_model."))}
    state = state_dicts.under(saved, "ema_model." if ema else "model.")
    # Buffers follow from β; any other tensor is reported as left over.
    state |= {key: value for key, value in others.items() if key not in _BUFFERS}
    model = _model(state, num_groups)
    channels = state["init_conv.weight"].shape[1]
    table = mapping.rules(mapping.param_shapes(model, channels), names(model))
    return imported.generation(
        model,
        mapping.to_params(table, state, str(path)),
        path,
        imported.image_shape(path, image_size, channels),
        schedule_section=imported.betas(saved["betas"]),
        variance="fixed_large",
        sample={"clip": None},
    )


def names(model: models.UNet) -> mapping.Names:
    """Returns the names that this code gives to the modules of `model` (its `UNet`)."""
    last, blocks = len(model.channel_mults) - 1, model.num_res_blocks

    def layer(side, level, i):
        return f"downs.{level * (blocks + 1) + i}" if side == "down" else f"ups.{(last - level) * (blocks + 2) + i}"

    def resample(side, level):
        return (
            f"{layer('down', level, blocks)}.downsample"
            if side == "down"
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
        attention=lambda side, level, i: f"{layer(side, level, i)}.attention",
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
    levels = range(state_dicts.count(state, r"downs\.(\d+)\.downsample") + 1)
    blocks = (state_dicts.count(state, r"downs\.(\d+)\.") + 1) // len(levels) - 1
    channels, hidden = len(state["init_conv.bias"]), len(state["time_mlp.1.bias"])

    def first(level):
        return f"downs.{level * (blocks + 1)}"

    classes = state.get("downs.0.class_bias.weight")
    return models.UNet(
        base_channels=channels,
        channel_mults=tuple(len(state[f"{first(level)}.conv_1.bias"]) // channels for level in levels),
        num_res_blocks=blocks,
        attention_levels=tuple(level for level in levels if f"{first(level)}.attention.to_qkv.weight" in state),
        middle_attention="mid.0.attention.to_qkv.weight" in state,
        num_groups=groups,
        out_channels=len(state["out_conv.bias"]),
        norm_eps=1e-5,
        downsample_padding=(1, 1),
        freq_shift=0,
        time_channels=(channels, hidden, hidden),
        num_classes=None if classes is None else len(classes),
        class_embedding="block",
    )
