"""The two methods by which evaluators resize uint8 images for Inception. Their figures are not comparable.

Both are bilinear without antialiasing, in float32 or float64, for uint8 images `[B, H, W, C]`.
"""

import jax
import jax.numpy as jnp
import numpy as np


def tensorflow1(images: jax.Array, size: int, dtype: np.dtype = np.float32) -> jax.Array:
    """Resizes with TensorFlow 1's `resize_bilinear`, then (x - 128)/128, as torch-fidelity and published FIDs.

    Pixel i of the result lies at i·H/size: there are no half-pixel centres, and therefore a shift by half a pixel.
    Without compilation the result equals torch-fidelity's bit for bit; compiled, XLA may round differently (4e-7).

    Args:
      images: uint8 `[B, H, W, C]`.
      size: the height and width of the result.
      dtype: the dtype of the result.

    Returns:
      `[B, size, size, C]` in [-1, 1).
    """
    positions = [_grid(length, size, dtype) for length in images.shape[1:3]]
    return (_interpolate(images.astype(dtype), *positions) - 128.0) / 128.0


def pytorch(images: jax.Array, size: int, dtype: np.dtype = np.float32) -> jax.Array:
    """Resizes x/255 with PyTorch's `interpolate(mode="bilinear", align_corners=False)`, then 2x - 1, as pytorch-fid.

    Pixel i of the result lies at (i + ½)·H/size - ½, at least 0.

    Args:
      images: uint8 `[B, H, W, C]`.
      size: the height and width of the result.
      dtype: the dtype of the result.

    Returns:
      `[B, size, size, C]` in [-1, 1].
    """
    positions = [
        np.maximum((np.arange(size, dtype=dtype) + dtype(0.5)) * dtype(length / size) - dtype(0.5), dtype(0))
        for length in images.shape[1:3]
    ]
    return 2.0 * _interpolate(images.astype(dtype) / dtype(255), *positions) - 1.0


def _grid(length: int, size: int, dtype: np.dtype) -> np.ndarray:
    """Returns TensorFlow 1's positions of pixels, `[size]`."""
    # The scale is float32 in TensorFlow, whatever the dtype of the images.
    return np.arange(size, dtype=dtype) * dtype(np.float32(length / size))


def _interpolate(images: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    """Returns the images at every pair of the row and column positions, which are ascending and ≥ 0."""
    return _along(_along(images, columns, 2), rows, 1)


def _along(images: jax.Array, positions: np.ndarray, axis: int) -> jax.Array:
    """Interpolates linearly at positions along one axis."""
    floor = np.floor(positions)
    low = floor.astype(np.int32)
    a, b = (jnp.take(images, np.minimum(index, images.shape[axis] - 1), axis=axis) for index in (low, low + 1))
    between = (positions - floor).reshape([-1 if each == axis else 1 for each in range(images.ndim)])
    return a + (b - a) * between


RESIZES = {"torch-fidelity": tensorflow1, "pytorch-fid": pytorch}
"""Resize functions by the name of the evaluator."""
