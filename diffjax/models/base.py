"""The registry of networks, the protocol that a network follows, and functions that work with any of them."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from diffjax.registry import Registry

NETWORKS = Registry("network", package="diffjax.models")


class Network(Protocol):
    """A Flax Linen module that predicts ε (or x_0, v, and a variance) from x_t and t.

    Two more fields are optional. `num_classes` (int or None): a module without the field, or with None, is
    unconditional and is never called with a label. `dtype`: the type of the arithmetic; a module without the field
    computes in float32.
    """

    out_channels: int | None
    """Channels of the output; None: as many as x has. A learned variance needs twice the channels of x."""

    def __call__(
        self,
        x: jax.Array,
        t: jax.Array,
        label: jax.Array | None = None,
        image: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array:
        """Returns the prediction, `[B, H, W, out_channels]`, in float32 or wider.

        Args:
          x: noisy images, `[B, H, W, C]`.
          t: timesteps or noise levels, `[B]`, int or float.
          label: int `[B]`, each within 0 … num_classes - 1, or -1 (`NO_LABEL`) for no class; a network without classes
            may take a vector for each image, float `[B, E]`, instead.
          image: a condition image, `[B, H, W, Ci]`.
          train: whether dropout is applied, with the key `rngs={"dropout": key}` of `apply`.
        """

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Linen's `init`: the parameters are under "params"."""

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Linen's `apply`."""


def num_classes(network: Network) -> int | None:
    """Returns the number of classes of a network, or None if it has none."""
    return getattr(network, "num_classes", None)


def init_params(
    network: Network, image_shape: Sequence[int], key: jax.Array, *, image_channels: int = 0, label_size: int = 0
) -> Any:
    """Initialises the parameters of a network: float32, or wider for a network that computes in a wider type.

    It runs as one compiled program. `jax.eval_shape` of it returns shapes alone, and traces each network once.

    Args:
      network: the network.
      image_shape: (height, width, channels) of x.
      key: a random key.
      image_channels: the channels of the condition image; 0 for a network that is not conditioned on an image.
      label_size: the size of the vectors that the network takes as labels; 0 for one that takes none.
    """
    # A network whose fields cannot be hashed (lists, arrays) cannot be an argument of a compiled function.
    init = _compiled_init if _is_hashable(network) else _init
    return init(network, _fields_text(network), tuple(image_shape), image_channels, label_size, key)


def _init(
    network: Network, fields: str, image_shape: tuple[int, ...], image_channels: int, label_size: int, key: jax.Array
) -> Any:
    zero = jnp.zeros((1,), jnp.int32)
    condition = {} if num_classes(network) is None else {"label": zero}
    if label_size:
        condition["label"] = jnp.zeros((1, label_size))
    if image_channels:
        condition["image"] = jnp.zeros((1, *image_shape[:-1], image_channels))
    params = network.init(key, jnp.zeros((1, *image_shape)), zero, **condition)["params"]
    dtype = getattr(network, "dtype", jnp.float32)
    return jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, dtype)), params)


_compiled_init = jax.jit(_init, static_argnums=(0, 1, 2, 3, 4))


def _fields_text(network: Network) -> str:
    """The fields as text: networks with the fields 2, 2.0 and True are equal, but one may be valid and another not."""
    return repr([getattr(network, name) for name in _field_names(network)])


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def count_params(shapes: Any) -> int:
    """Returns the number of scalar parameters in a pytree of arrays, or of their shapes (`jax.eval_shape`)."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def _field_names(network: Any) -> dict[str, Any]:
    """The names and defaults of a network's own fields, without those of every Linen module; {} without fields."""
    fields = dataclasses.fields(network) if dataclasses.is_dataclass(network) else ()
    return {field.name: field.default for field in fields if field.name not in ("parent", "name")}


def short_repr(network: Any) -> str:
    """Returns "Class(field=value, …)" on one line, with the fields that differ from their defaults.

    The networks use it as their `__repr__`, because Linen's own lists every submodule.
    """
    names = _field_names(network)
    texts = {name: (_text(name, getattr(network, name)), default) for name, default in names.items()}
    changed = [f"{name}={text}" for name, (text, default) in texts.items() if text != _text(name, default)]
    return f"{type(network).__name__}({', '.join(changed)})"


def _text(name: str, value: Any) -> str:
    if name == "dtype":
        try:
            return jnp.dtype(value).name
        except TypeError:
            pass
    return " ".join(repr(value).split())
