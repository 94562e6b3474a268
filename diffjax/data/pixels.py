"""The two representations of pixels: uint8 0 … 255 in data sets and pictures, float32 [-1, 1] in networks."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffjax.errors import UserError


def to_float(image: jax.Array) -> jax.Array:
    """Converts uint8 0 … 255 to float32 [-1, 1], on the device."""
    return image.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(x: ArrayLike) -> np.ndarray:
    """Converts [-1, 1] to uint8 0 … 255 by rounding to nearest and clipping, on the host.

    Raises:
      UserError: values that are NaN or infinite.
    """
    x = np.asarray(x, np.float64)
    if bad := np.count_nonzero(~np.isfinite(x)):
        raise UserError(f"{bad} of the {x.size} values of these images are NaN or infinite: there is nothing to show")
    return np.clip(np.round((x + 1.0) * 127.5), 0, 255).astype(np.uint8)
