"""Packs small arrays into one: networks have hundreds, and each operation or all-reduce has a fixed cost per array."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax.flatten_util import ravel_pytree

LARGE = 1 << 16
"""The number of elements above which an array is left alone: packing would cost a copy and save little."""


class Packed(NamedTuple):
    """The arrays of a pytree, with the small ones joined."""

    small: jax.Array
    """`[N]`: the arrays of up to `LARGE` elements, flattened and concatenated."""
    large: list[jax.Array]


def pack(tree: Any) -> tuple[Packed, Callable[[Packed], Any]]:
    """Returns (the packed arrays of a pytree, a function that unpacks such arrays into the same tree).

    Small arrays of different dtypes are promoted to a common dtype while packed, and get their own back.
    """
    leaves, structure = jax.tree.flatten(tree)
    is_large = [leaf.size > LARGE for leaf in leaves]
    small, split = ravel_pytree([leaf for leaf, large in zip(leaves, is_large, strict=True) if not large])

    def unpack(packed: Packed) -> Any:
        parts = {False: iter(split(packed.small)), True: iter(packed.large)}
        return structure.unflatten([next(parts[large]) for large in is_large])

    return Packed(small, [leaf for leaf, large in zip(leaves, is_large, strict=True) if large]), unpack


def packed(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns the same optimizer working on packed arrays, of which its state consists too.

    Arrays that are `Packed` already, or shards of such (`sharding.Shards`), are not packed again. Valid if updates do
    not depend on which array an element belongs to, as in Adam and clipping by global norm; not valid for masks by name
    or shape, nor for factored moments.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params):
        return optimizer.init(pack(params)[0])

    def update(updates, state, params=None, **extra):
        if isinstance(updates, Packed):
            return optimizer.update(updates, state, params, **extra)
        updates, unpack = pack(updates)
        updates, state = optimizer.update(updates, state, None if params is None else pack(params)[0], **extra)
        return unpack(updates), state

    return optax.GradientTransformationExtraArgs(init, update)
