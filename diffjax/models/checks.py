"""Checks of a network's fields and inputs, made before anything is computed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax import fields
from diffjax.models.layers import NO_LABEL

LARGEST_WIDTH = 65536
"""The most channels that a layer may have."""

EPSILON = {"low": 1e-12, "below": 1.0}
"""The range of a normalisation's epsilon, all of which float32 can represent."""


def check_fields(network: nn.Module, ranges: Mapping[str, Mapping[str, Any]]) -> None:
    """Checks the type and the range of every field of a network.

    Args:
      network: a module whose class annotates its fields with plain types.
      ranges: for each field name, the bounds as keyword arguments of `fields.Field`.

    Raises:
      ValueError: a value of another type or outside its range.
    """
    for name, field in fields.options(type(network)).items():
        if name == "dtype":
            _check_dtype(network.dtype)
            continue
        try:
            dataclasses.replace(field, **ranges.get(name, {})).check(getattr(network, name))
        except ValueError as error:
            raise ValueError(f"{name}={error}") from None


def check_inputs(
    x: jax.Array,
    t: jax.Array,
    label: jax.Array | None,
    image: jax.Array | None,
    num_classes: int | None,
    *,
    label_size: int = 0,
) -> None:
    """Checks the inputs of a network's call against each other and against the number of classes.

    Args:
      x: `[B, H, W, C]`.
      t: `[B]`.
      label: int `[B]` of a network with classes, float `[B, label_size]` of one that takes vectors, else None.
      image: `[B, H, W, Ci]`, or None.
      num_classes: the network's number of classes, or None.
      label_size: the size of the vectors that the network takes as labels; 0: none.

    Raises:
      ValueError: a wrong shape, a label that is missing or superfluous, or a label outside its range.
    """
    if x.ndim != 4:
        raise ValueError(f"x.shape={x.shape} must be (batch, height, width, channels)")
    if t.shape != x.shape[:1]:
        raise ValueError(f"t.shape={t.shape} must be {x.shape[:1]}, one number for each image of x")
    if label_size:
        _check_vectors(label, (x.shape[0], label_size))
    else:
        _check_label(label, num_classes, x.shape[0])
    if image is not None and image.shape[:-1] != x.shape[:-1]:
        raise ValueError(f"image.shape={image.shape} must agree with x.shape={x.shape} in all but the channels")


def check_channels(network: nn.Module, first: str, x: jax.Array, image: jax.Array | None) -> None:
    """Checks that x and the condition image together have as many channels as the parameters expect.

    Args:
      network: a bound module, inside its `__call__`; while it has no parameters (in `init`), nothing is checked.
      first: the name of its first convolution.
      x: `[B, H, W, C]`.
      image: `[B, H, W, Ci]`, or None.

    Raises:
      ValueError: another number of channels.
    """
    if network.has_variable("params", first):
        known = network.get_variable("params", first)["kernel"].shape[2]
        channels = (x.shape[-1], 0 if image is None else image.shape[-1])
        if sum(channels) != known:
            raise ValueError(
                f"channels={sum(channels)} ({channels[0]} of x, {channels[1]} of image) must be {known}, as in the "
                "parameters"
            )


def _check_dtype(dtype: Any) -> None:
    try:
        name = None if dtype is None else jnp.dtype(dtype).name  # NumPy takes None for float64
    except TypeError:
        name = None
    if name not in fields.DTYPES:
        raise ValueError(f"dtype={fields.shown(dtype)} must be one of {', '.join(map(repr, fields.DTYPES))}")
    if name == "float64" and not jax.config.jax_enable_x64:
        raise ValueError("dtype='float64' must be 'float32', or JAX_ENABLE_X64=1 be set: JAX has 64 bits only then")


def _check_label(label: jax.Array | None, num_classes: int | None, batch: int) -> None:
    if num_classes is None:
        if label is not None:
            raise ValueError(f"label={label.dtype}{list(label.shape)} must be None: the network has no classes")
        return
    if label is None:
        raise ValueError(f"label=None must be int[{batch}]: the network has {num_classes} classes")
    if label.shape != (batch,) or not jnp.issubdtype(label.dtype, jnp.integer):
        raise ValueError(f"label={label.dtype}{list(label.shape)} must be int[{batch}], one for each image of x")
    if not isinstance(label, jax.core.Tracer):
        known = np.asarray(label)
        if (wrong := known[(known < NO_LABEL) | (known >= num_classes)]).size:
            raise ValueError(f"label={wrong[0]} must be within 0 … {num_classes - 1}, or {NO_LABEL} for no class")


def _check_vectors(label: jax.Array | None, shape: tuple[int, int]) -> None:
    if label is None:
        raise ValueError(f"class_embedding='identity' needs label=, float{list(shape)}: a vector for each image of x")
    if label.shape != shape or not jnp.issubdtype(label.dtype, jnp.floating):
        raise ValueError(
            f"label={label.dtype}{list(label.shape)} must be float{list(shape)}, a vector for each image of x"
        )
