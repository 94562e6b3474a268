"""The table between a UNet's parameters and a PyTorch state dict: names and transposes, the same one both ways."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from diffjax.errors import UserError
from diffjax.models import UNet

Params = dict[str, Any]
State = dict[str, np.ndarray]


class Names(NamedTuple):
    """What a network calls in PyTorch what the UNet calls otherwise.

    A block is told by its way ("down" or "up"), its level (0 at full resolution) and its number there.
    """

    outer: dict[str, str]
    """Modules outside of blocks."""
    middle: tuple[str, str, str]
    """Block, attention, block."""
    block: Callable[[str, int, int], str]
    attention: Callable[[str, int, int], str]
    resample: Callable[[str, int], str]
    """What halves or doubles the size, of a way and a level: a residual block, or a convolution."""
    parts: dict[str, str]
    """Modules inside of blocks. q, k and v may share a name: one weight, joined along its first axis."""
    ranks: dict[str, int]
    """How many axes PyTorch's weight of a linear map has where it is a 1×1 convolution, by part: 4, or 3 in 1-D."""
    heads: Callable[[int], int] = lambda channels: 1
    """Of a joint weight `[heads, 3, C/heads, …]`, by C; 1 also if it is `[3, heads, C/heads, …]`."""
    condition_first: int = 0
    """How many of the first convolution's inputs are a condition image in front of x; the UNet has it behind."""


class Rule(NamedTuple):
    """One tensor of the state dict, and the parameters it is made of: one, or q, k and v."""

    key: str
    paths: tuple[tuple[str, ...], ...]
    shape: tuple[int, ...]
    """The tensor's."""
    to_params: Callable[[np.ndarray], Sequence[np.ndarray]]
    to_tensor: Callable[[Sequence[np.ndarray]], np.ndarray]


def param_shapes(model: UNet, channels: int, condition_channels: int = 0) -> Params:
    """Shapes of the parameters of a network for images of so many channels, and a condition image's; no device work."""
    # The size does not matter where attention goes by level.
    x = jnp.zeros((1, 1, 1, channels))
    image = jnp.zeros((1, 1, 1, condition_channels)) if condition_channels else None
    label = jnp.zeros(1, jnp.int32) if model.num_classes else None
    # Under x64 `init` would still give float32: what matters is the shape.
    shapes = jax.eval_shape(lambda key: model.init(key, x, jnp.zeros(1), label, image), jax.random.key(0))
    return shapes["params"]


def rules(shapes: Params, names: Names) -> list[Rule]:
    """The table of a UNet whose parameters have these shapes."""
    by_key: dict[str, list[tuple[str, ...]]] = {}
    flat = flatten_dict(shapes)
    for path in flat:
        by_key.setdefault(_key(path, names), []).append(path)
    return [_rule(key, paths, [flat[path].shape for path in paths], names) for key, paths in by_key.items()]


def to_params(table: list[Rule], state: State, what: str) -> Params:
    """The parameters that a state dict holds; `what` names it in errors.

    Raises:
      UserError: every tensor that is missing, left over or of the wrong shape, by name.
    """
    expected = {rule.key: rule.shape for rule in table}
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
        raise UserError(f"the tensors of {what} are not those of this UNet: {listed}")
    flat = {}
    for rule in table:
        for path, value in zip(rule.paths, rule.to_params(state[rule.key]), strict=True):
            flat[path] = np.ascontiguousarray(value)
    return unflatten_dict(flat)


def to_state(table: list[Rule], params: Params) -> State:
    """The state dict of the parameters; the inverse of `to_params`, bit for bit."""
    flat = flatten_dict(params)
    return {
        rule.key: np.ascontiguousarray(rule.to_tensor([np.asarray(flat[path]) for path in rule.paths]))
        for rule in table
    }


_BLOCK = re.compile(r"(down|up)_(\d+)_(\d+)(_attention)?")
_RESAMPLE = re.compile(r"(down|up)_(\d+)_(?:down|up)sample")
_MIDDLE = ("middle_0", "middle_attention", "middle_1")
_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}


def _key(path: tuple[str, ...], names: Names) -> str:
    """PyTorch's name of the parameter at `path`."""
    block, part = path[0], _part(path)
    if found := _BLOCK.fullmatch(block):
        way, level, number, attention = found.groups()
        prefix = (names.attention if attention else names.block)(way, int(level), int(number))
    elif found := _RESAMPLE.fullmatch(block):
        prefix = names.resample(found[1], int(found[2]))
    else:
        prefix = names.middle[_MIDDLE.index(block)] if block in _MIDDLE else names.outer[block]
    return ".".join([prefix, *([names.parts[part]] if part else []), _LEAVES[path[-1]]])


def _part(path: tuple[str, ...]) -> str:
    """The module inside of a block; empty where the block is the module."""
    part = path[1] if len(path) > 2 else ""
    # The UNet's normalisation holds Flax's, its resampling convolution is all that its block holds.
    return "" if part == "conv" or path[0] == "norm_out" else part


def _rule(key: str, paths: list[tuple[str, ...]], shapes: list[tuple[int, ...]], names: Names) -> Rule:
    forth, back = _transposes(paths[0], len(shapes[0]), names)
    if len(paths) == 3:
        order = sorted(range(3), key=lambda i: "qkv".index(_part(paths[i])))
        paths, heads = [paths[i] for i in order], names.heads(shapes[0][-1])

        def to_params(tensor):
            parts = tensor.reshape(heads, 3, -1, *tensor.shape[1:]).swapaxes(0, 1)
            return [forth(part.reshape(-1, *tensor.shape[1:])) for part in parts]

        def to_tensor(values):
            parts = np.stack([back(value) for value in values])
            parts = parts.reshape(3, heads, -1, *parts.shape[2:]).swapaxes(0, 1)
            return parts.reshape(-1, *parts.shape[3:])
    else:

        def to_params(tensor):
            return [forth(tensor)]

        def to_tensor(values):
            return back(values[0])

    shape = to_tensor([np.broadcast_to(np.float32(0), size) for size in shapes]).shape
    return Rule(key, tuple(paths), shape, to_params, to_tensor)


def _transposes(path: tuple[str, ...], rank: int, names: Names):
    """(PyTorch's array → Flax's, and back) of one parameter."""
    if path[-1] != "kernel":
        return (lambda w: w), (lambda w: w)
    if rank == 2:
        ones = (1,) * (names.ranks.get(_part(path), 2) - 2)
        return (lambda w: w.reshape(w.shape[:2]).T), (lambda w: w.T.reshape(*w.shape[::-1], *ones))
    # OIHW and HWIO; on the way, a condition in front of x goes behind it.
    first = names.condition_first if path[0] == "conv_in" else 0
    return (
        lambda w: np.roll(w, -first, axis=1).transpose(2, 3, 1, 0),
        lambda w: np.roll(w.transpose(3, 2, 0, 1), first, axis=1),
    )
