"""The mapping between a network's parameters and a PyTorch state dict: names and transposes, in both directions.

The rules of a UNet come from `rules` and the names of its modules in PyTorch (`Names`); another network's are one
`rule` per parameter.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from diffjax import models
from diffjax.errors import UserError

Params = dict[str, Any]
State = dict[str, np.ndarray]
Path = tuple[str, ...]

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}
"""PyTorch's names of Flax's parameters."""


class Names(NamedTuple):
    """The names in PyTorch of a UNet's modules.

    A block is identified by its side ("down" or "up"), its level (0 at full resolution) and its number within it.
    """

    outer: dict[str, str]
    """Modules outside blocks."""
    middle: tuple[str, str, str]
    """Block, attention, block."""
    block: Callable[[str, int, int], str]
    attention: Callable[[str, int, int], str]
    resample: Callable[[str, int], str]
    """The module that halves or doubles the size, given side and level: a residual block, or a convolution."""
    parts: dict[str, str]
    """Modules inside blocks. q, k and v may share a name: they are then one weight, joined along its first axis."""
    ranks: dict[str, int]
    """The number of axes of PyTorch's weight where a linear map is a 1×1 convolution, by part: 4, or 3 in 1-D."""
    heads: Callable[[int], int] = lambda channels: 1
    """The heads of a joined weight `[heads, 3, C/heads, …]`, given C; 1 also if it is `[3, heads, C/heads, …]`."""
    condition_first: int = 0
    """The input channels of the first convolution that are a condition image before x; in `UNet` they come after x."""


class Rule(NamedTuple):
    """One tensor of the state dict, and the parameters that it holds: one, or q, k and v."""

    key: str
    paths: tuple[Path, ...]
    shape: tuple[int, ...]
    """The shape of the tensor."""
    to_params: Callable[[np.ndarray], Sequence[np.ndarray]]
    to_tensor: Callable[[Sequence[np.ndarray]], np.ndarray]


def param_shapes(
    network: models.Network, channels: int, condition_channels: int = 0, *, size: tuple[int, int] = (1, 1)
) -> Params:
    """Returns the shapes of a network's parameters; nothing is computed.

    Args:
      network: the network.
      channels: channels of x.
      condition_channels: channels of the condition image; 0: none.
      size: height and width of an image that the network accepts. The shapes do not depend on it, but a network that is
        built for images of the same size later is not traced again.
    """

    def init(key):
        return models.init_params(
            network,
            (*size, channels),
            key,
            image_channels=condition_channels,
            label_size=network.label_size if isinstance(network, models.UNet) else 0,
        )

    return jax.eval_shape(init, jax.random.key(0))


def rules(shapes: Params, names: Names) -> list[Rule]:
    """Returns the table of a UNet whose parameters have these shapes."""
    by_key: dict[str, list[Path]] = {}
    flat = flatten_dict(shapes)
    for path in flat:
        by_key.setdefault(_key(path, names), []).append(path)
    table = []
    for key, paths in by_key.items():
        weight_rank = names.ranks.get(_part(paths[0]), 2)
        if len(paths) == 3:
            paths = sorted(paths, key=lambda path: "qkv".index(_part(path)))
            heads = names.heads(flat[paths[0]].shape[-1])
            table.append(_joined_rule(key, paths, [flat[path].shape for path in paths], heads, weight_rank))
        else:
            first = names.condition_first if paths[0][0] == "conv_in" else 0
            table.append(rule(key, paths[0], flat[paths[0]].shape, weight_rank=weight_rank, condition_first=first))
    return table


def rule(key: str, path: Path, shape: tuple[int, ...], *, weight_rank: int = 2, condition_first: int = 0) -> Rule:
    """Returns the rule of a tensor that holds one parameter.

    Args:
      key: the tensor's name.
      path: the parameter's path.
      shape: the parameter's shape.
      weight_rank: the number of axes of the tensor of a linear map.
      condition_first: the number of first input channels of a convolution that are moved behind the others.
    """
    forth, back = _transposes(path, len(shape), weight_rank, condition_first)
    tensor = back(np.broadcast_to(np.float32(0), shape))
    return Rule(key, (path,), tensor.shape, lambda tensor: [forth(tensor)], lambda values: back(values[0]))


def to_params(table: list[Rule], state: State, what: str) -> Params:
    """Returns the parameters that a state dict holds.

    Args:
      table: the rules of the network.
      state: the tensors by name.
      what: the file's name, for error messages.

    Raises:
      UserError: tensors that are missing, left over or of the wrong shape; the message lists them all.
    """
    expected = {entry.key: entry.shape for entry in table}
    found = {key: tensor.shape for key, tensor in state.items()}
    wrong = [
        f"{key} is {list(found[key])}, must be {list(shape)}"
        for key, shape in expected.items()
        if found.get(key, shape) != shape
    ]
    problems = {
        "missing": [key for key in expected if key not in found],
        "left over": [key for key in found if key not in expected],
        "of the wrong shape": wrong,
    }
    if any(problems.values()):
        listed = "; ".join(f"{kind}: {', '.join(sorted(keys))}" for kind, keys in problems.items() if keys)
        raise UserError(f"the tensors of {what} are not those of this network: {listed}")
    flat = {}
    for entry in table:
        for path, value in zip(entry.paths, entry.to_params(state[entry.key]), strict=True):
            flat[path] = np.ascontiguousarray(value)
    return unflatten_dict(flat)


def to_state(table: list[Rule], params: Params) -> State:
    """Returns the state dict of the parameters; the inverse of `to_params`, bit for bit."""
    flat = flatten_dict(params)
    return {
        entry.key: np.ascontiguousarray(entry.to_tensor([np.asarray(flat[path]) for path in entry.paths]))
        for entry in table
    }


_BLOCK = re.compile(r"(down|up)_(\d+)_(\d+)(_attention)?")
_RESAMPLE = re.compile(r"(down|up)_(\d+)_(?:down|up)sample")
_MIDDLE = ("middle_0", "middle_attention", "middle_1")


def _key(path: Path, names: Names) -> str:
    """Returns PyTorch's name of the parameter at `path`."""
    block, part = path[0], _part(path)
    if found := _BLOCK.fullmatch(block):
        side, level, number, attention = found.groups()
        prefix = (names.attention if attention else names.block)(side, int(level), int(number))
    elif found := _RESAMPLE.fullmatch(block):
        prefix = names.resample(found[1], int(found[2]))
    else:
        prefix = names.middle[_MIDDLE.index(block)] if block in _MIDDLE else names.outer[block]
    return ".".join([prefix, *([names.parts[part]] if part else []), LEAVES[path[-1]]])


def _part(path: Path) -> str:
    """Returns the name of the module inside a block; empty if the block itself is the module."""
    part = path[1] if len(path) > 2 else ""
    # A norm's parameters are in a submodule, and a resampling block may hold a single convolution.
    return "" if part == "conv" or path[0] == "norm_out" else part


def _joined_rule(key: str, paths: list[Path], shapes: list[tuple[int, ...]], heads: int, weight_rank: int) -> Rule:
    """Returns the rule of a tensor that holds q, k and v."""
    forth, back = _transposes(paths[0], len(shapes[0]), weight_rank, 0)

    def to_params(tensor):
        parts = tensor.reshape(heads, 3, -1, *tensor.shape[1:]).swapaxes(0, 1)
        return [forth(part.reshape(-1, *tensor.shape[1:])) for part in parts]

    def to_tensor(values):
        parts = np.stack([back(value) for value in values])
        parts = parts.reshape(3, heads, -1, *parts.shape[2:]).swapaxes(0, 1)
        return parts.reshape(-1, *parts.shape[3:])

    shape = to_tensor([np.broadcast_to(np.float32(0), size) for size in shapes]).shape
    return Rule(key, tuple(paths), shape, to_params, to_tensor)


def _transposes(path: Path, rank: int, weight_rank: int, condition_first: int):
    """Returns (PyTorch's array → Flax's, and the inverse) for a parameter with `rank` axes."""
    if path[-1] != "kernel":
        return (lambda w: w), (lambda w: w)
    if rank == 2:
        ones = (1,) * (weight_rank - 2)
        return (lambda w: w.reshape(w.shape[:2]).T), (lambda w: w.T.reshape(*w.shape[::-1], *ones))
    # OIHW and HWIO; a condition before x is moved behind it.
    return (
        lambda w: np.roll(w, -condition_first, axis=1).transpose(2, 3, 1, 0),
        lambda w: np.roll(w.transpose(3, 2, 0, 1), condition_first, axis=1),
    )
