"""The two ways in which evaluators bring uint8 images to Inception's size and range. Their figures do not compare.

Both are bilinear without antialiasing, in float32 (or wider) on uint8 `[B, H, W, C]`.
"""

import jax
import jax.numpy as jnp
import numpy as np


def tensorflow1(images: jax.Array, size: int, dtype: np.dtype = np.float32) -> jax.Array:
    """TensorFlow 1's `resize_bilinear`, then (x - 128)/128: torch-fidelity, and the FID of published tables.

    Pixel i of the result lies at i·H/size: there are no half-pixel centres, and so a shift by half a pixel.
    Not compiled it is torch-fidelity's bit for bit; compiled, XLA may fuse what it rounds (4e-7).
    """
    positions = [_grid(length, size, dtype) for length in images.shape[1:3]]
    return (_interpolate(images.astype(dtype), *positions) - 128.0) / 128.0


def pytorch(images: jax.Array, size: int, dtype: np.dtype = np.float32) -> jax.Array:
    """`torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` of x/255, then 2x - 1: pytorch-fid.

    Pixel i of the result lies at (i + ½)·H/size - ½, at least 0.
    """
    positions = [
        np.maximum((np.arange(size, dtype=dtype) + dtype(0.5)) * dtype(length / size) - dtype(0.5), dtype(0))
        for length in images.shape[1:3]
    ]
    return 2.0 * _interpolate(images.astype(dtype) / dtype(255), *positions) - 1.0


def _grid(length: int, size: int, dtype: np.dtype) -> np.ndarray:
    # The scale is float32 in TensorFlow, whatever the images are.
    return np.arange(size, dtype=dtype) * dtype(np.float32(length / size))


def _interpolate(images: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    """The images between pixels at the product of two ascending lists of positions ≥ 0."""
    return _along(_along(images, columns, 2), rows, 1)


def _along(images: jax.Array, positions: np.ndarray, axis: int) -> jax.Array:
    floor = np.floor(positions)
    low = floor.astype(np.int32)
    a, b = (jnp.take(images, np.minimum(index, images.shape[axis] - 1), axis=axis) for index in (low, low + 1))
    between = (positions - floor).reshape([-1 if each == axis else 1 for each in range(images.ndim)])
    return a + (b - a) * between


RESIZES = {"torch-fidelity": tensorflow1, "pytorch-fid": pytorch}
"""By the name of the evaluator."""
