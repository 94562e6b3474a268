"""Small arrays as one: networks have hundreds, and every operation on one, every all-reduce, has a price of its own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax.flatten_util import ravel_pytree

LARGE = 1 << 16
"""Elements of an array that is worth its own operations, and not worth a copy."""


class Packed(NamedTuple):
    """A pytree's arrays."""

    small: jax.Array
    """`[N]`: those of up to `LARGE` elements, one after the other."""
    large: list[jax.Array]


def pack(tree: Any) -> tuple[Packed, Callable[[Packed], Any]]:
    """(the arrays of a pytree, what makes that tree of such ones again).

    Small ones of several dtypes share their common one while they are packed, and have their own again afterwards.
    """
    leaves, structure = jax.tree.flatten(tree)
    is_large = [leaf.size > LARGE for leaf in leaves]
    small, split = ravel_pytree([leaf for leaf, large in zip(leaves, is_large, strict=True) if not large])

    def unpack(packed: Packed) -> Any:
        parts = {False: iter(split(packed.small)), True: iter(packed.large)}
        return structure.unflatten([next(parts[large]) for large in is_large])

    return Packed(small, [leaf for leaf, large in zip(leaves, is_large, strict=True) if large]), unpack


def packed(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same optimizer on packed arrays, its state made of such.

    For updates that are the same whatever array an element belongs to: Adam's and a clipped global norm are, masks by
    name or shape and factored moments are not.
    """

    def init(params):
        return optimizer.init(pack(params)[0])

    def update(updates, state, params=None):
        updates, unpack = pack(updates)
        updates, state = optimizer.update(updates, state, None if params is None else pack(params)[0])
        return unpack(updates), state

    return optax.GradientTransformation(init, update)
