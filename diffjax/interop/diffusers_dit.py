"""Converts between `DiT` and diffusers' `DiTTransformer2DModel`: a pipeline's transformer folder, config and weights.

diffusers departs from DiT's code in two constants, which fields of `DiT` reproduce: the frequencies of the time
embedding end at 10⁻⁴ (`freq_shift=1`), and the norms before the MLPs add 1e-5 where the config gives no `norm_eps`
(`mlp_norm_eps`). It also holds a copy of the embeddings of t and of the label in every block; the copies must be equal.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from diffjax import models
from diffjax.errors import UserError, read_json
from diffjax.interop import mapping
from diffjax.interop.diffusers_configs import unsupported
from diffjax.interop.diffusers_weights import read_weights

_CLASSES = ("DiTTransformer2DModel", "Transformer2DModel")

# diffusers' defaults of fields that a config may leave out.
_DEFAULTS = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": None,
    "num_layers": 28,
    "dropout": 0.0,
    "norm_num_groups": 32,
    "attention_bias": True,
    "sample_size": 32,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "upcast_attention": False,
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-5,
}
_ALLOWED = {
    "activation_fn": ("gelu-approximate",),
    "norm_type": ("ada_norm_zero",),
    "norm_elementwise_affine": (False,),
    "upcast_attention": (False,),
}
# The norms before attention and output use this epsilon whatever the config's norm_eps is.
_NORM_EPS = 1e-6

_EMBEDDINGS = "norm1.emb."
_OUTER = {
    "patch": "pos_embed.proj",
    "time_1": "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1",
    "time_2": "transformer_blocks.0.norm1.emb.timestep_embedder.linear_2",
    "class": "transformer_blocks.0.norm1.emb.class_embedder.embedding_table",
    "modulation_out": "proj_out_1",
    "out": "proj_out_2",
}
_PARTS = {
    "modulation": "norm1.linear",
    "q": "attn1.to_q",
    "k": "attn1.to_k",
    "v": "attn1.to_v",
    "out": "attn1.to_out.0",
    "mlp_1": "ff.net.0.proj",
    "mlp_2": "ff.net.2",
}


def load_transformer(folder: Path) -> tuple[models.DiT, mapping.Params, int, tuple[int, int]]:
    """Reads a `DiTTransformer2DModel` from its folder, "transformer" in a pipeline's.

    Returns:
      (network, parameters, channels of an image, (height, width)).

    Raises:
      UserError: a file that is missing or damaged, a config that DiT does not support, or other tensors.
    """
    network, channels, image_size = read_transformer(folder / "config.json")
    state, path = read_weights(folder)
    return network, to_params(network, channels, state, str(path)), channels, image_size


def read_transformer(path: Path) -> tuple[models.DiT, int, tuple[int, int]]:
    """Reads the config of a `DiTTransformer2DModel`.

    Returns:
      (network, channels of an image, (height, width)).

    Raises:
      UserError: a file that is missing or damaged, or fields with values that DiT does not support; all are listed.
    """
    config = read_json(path, "diffusers saves it in the folder of a transformer")
    if (found := config.get("_class_name", _CLASSES[0])) not in _CLASSES:
        raise UserError(f"{path}: _class_name={found!r} must be one of {', '.join(map(repr, _CLASSES))}")
    config = _DEFAULTS | config
    problems = unsupported(config, _DEFAULTS, _ALLOWED)
    wholes = ("num_attention_heads", "attention_head_dim", "in_channels", "num_layers", "sample_size", "patch_size")
    problems += [
        f"{field}={config[field]!r} must be a whole number ≥ 1"
        for field in (*wholes, "num_embeds_ada_norm")
        if type(config[field]) is not int or config[field] < 1
    ]
    channels, out_channels = config["in_channels"], config["out_channels"]
    if not problems and out_channels not in (None, channels, 2 * channels):
        problems.append(f"out_channels={out_channels!r} must be in_channels={channels} or twice that")
    if problems:
        raise UserError(f"{path}: {'; '.join(problems)}")
    eps = config["norm_eps"]
    network = models.DiT(
        patch_size=config["patch_size"],
        hidden_size=config["num_attention_heads"] * config["attention_head_dim"],
        depth=config["num_layers"],
        num_heads=config["num_attention_heads"],
        num_classes=config["num_embeds_ada_norm"],
        out_channels=channels if out_channels is None else out_channels,
        dropout=config["dropout"],
        qkv_bias=config["attention_bias"],
        norm_eps=_NORM_EPS,
        mlp_norm_eps=None if eps == _NORM_EPS else eps,
        freq_shift=1,
    )
    size = config["sample_size"]
    try:
        mapping.param_shapes(network, channels, size=(size, size))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return network, channels, (size, size)


def write_transformer(network: models.DiT, channels: int, image_size: tuple[int, int]) -> dict[str, Any]:
    """Returns the config of a `DiTTransformer2DModel`.

    Args:
      network: a DiT without a condition image.
      channels: channels of an image.
      image_size: (height, width) of the images that it was trained on.

    Raises:
      UserError: fields that diffusers does not support; all are listed.
    """
    out_channels = network.out_channels or channels
    height, width = image_size
    lacking = {
        "num_classes=None": network.num_classes is None,
        f"mlp_ratio={network.mlp_ratio}": network.mlp_ratio != 4.0,
        f"norm_eps={network.norm_eps}": network.norm_eps != _NORM_EPS,
        f"freq_shift={network.freq_shift}": network.freq_shift != 1,
        f"image size {height}×{width}, which is not square": height != width,
        f"{out_channels} output channels for images of {channels}": out_channels not in (channels, 2 * channels),
    }
    if any(lacking.values()):
        listed = ", no ".join(name for name, is_lacking in lacking.items() if is_lacking)
        raise UserError(f"diffusers' DiTTransformer2DModel has no {listed}")
    return _DEFAULTS | {
        "num_attention_heads": network.num_heads,
        "attention_head_dim": network.hidden_size // network.num_heads,
        "in_channels": channels,
        "out_channels": out_channels,
        "num_layers": network.depth,
        "dropout": network.dropout,
        "attention_bias": network.qkv_bias,
        "sample_size": height,
        "patch_size": network.patch_size,
        "num_embeds_ada_norm": network.num_classes,
        "norm_eps": network.norm_eps if network.mlp_norm_eps is None else network.mlp_norm_eps,
    }


def to_params(network: models.DiT, channels: int, state: mapping.State, what: str = "the state dict") -> mapping.Params:
    """Returns the parameters of a network for images of `channels` channels; `what` names the state dict in errors.

    Raises:
      UserError: tensors that are missing, left over or of the wrong shape; blocks whose embeddings differ.
    """
    shapes = mapping.param_shapes(network, channels, size=(network.patch_size,) * 2)
    return mapping.to_params(_table(shapes), _without_copies(state, network.depth, what), what)


def to_state(params: mapping.Params) -> mapping.State:
    """Returns the state dict of the parameters; the inverse of `to_params`, bit for bit."""
    state = mapping.to_state(_table(params), params)
    depth = sum(module.startswith("block_") for module in params)
    shared = {key: tensor for key, tensor in state.items() if _EMBEDDINGS in key}
    for i in range(1, depth):
        state |= {_in_block(key, i): tensor for key, tensor in shared.items()}
    return state


def _table(shapes: mapping.Params) -> list[mapping.Rule]:
    return [mapping.rule(_key(path), path, leaf.shape) for path, leaf in flatten_dict(shapes).items()]


def _key(path: mapping.Path) -> str:
    """Returns diffusers' name of the parameter at `path`."""
    module = _OUTER.get(path[0])
    if module is None:
        module = f"transformer_blocks.{path[0].removeprefix('block_')}.{_PARTS[path[1]]}"
    return f"{module}.{mapping.LEAVES[path[-1]]}"


def _without_copies(state: mapping.State, depth: int, what: str) -> mapping.State:
    """Drops the embeddings of all blocks but the first, after checking that they are copies of its embeddings."""
    kept = dict(state)
    for key in [key for key in state if key.startswith(f"transformer_blocks.0.{_EMBEDDINGS}")]:
        for copy in (_in_block(key, i) for i in range(1, depth)):
            # A missing copy does no harm, since it would be equal.
            if copy in kept and not np.array_equal(kept.pop(copy), state[key]):
                raise UserError(f"{what}: {copy} differs from {key}, but the blocks of DiT share their embeddings")
    return kept


def _in_block(key: str, i: int) -> str:
    return re.sub(r"^transformer_blocks\.0\.", f"transformer_blocks.{i}.", key)
