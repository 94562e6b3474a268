"""Pictures of a network's output: grids of samples, and restored images beside their conditions."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from diffjax import viz
from diffjax.data.pixels import to_float, to_uint8
from diffjax.noise import sample_keys
from diffjax.tasks.base import Restore

_EACH = 8
"""The number of samples of each class in a grid; without classes, its number of rows and of columns."""


def grid_size(num_classes: int | None) -> int:
    """Returns the number of samples that fill a `grid`."""
    return _EACH * (num_classes if _has_rows(num_classes) else _EACH)


def grid(images: np.ndarray, num_classes: int | None) -> np.ndarray:
    """Returns the first samples, uint8 `[N, H, W, C]`, as a picture: one row per class (2 to 16), or rows of 8.

    Sample n is of the class n mod `num_classes`; the tile of a missing sample is black.
    """
    images = images[: grid_size(num_classes)]
    if not _has_rows(num_classes):
        return viz.grid(images, columns=_EACH)
    columns = -(-len(images) // num_classes)
    tiles = np.zeros((columns * num_classes, *images.shape[1:]), np.uint8)
    tiles[: len(images)] = images
    by_class = tiles.reshape(columns, num_classes, *images.shape[1:]).swapaxes(0, 1)
    return viz.grid(by_class.reshape(tiles.shape), columns=columns)


def restored(restore: Restore, examples: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns a picture, uint8 `[·, ·, 3]`, with one row per image: its condition, the restored image, the original."""
    keys = sample_keys(seed=0, start=0, count=len(examples["image"]))
    made = to_uint8(restore(to_float(jnp.asarray(examples["condition"])), keys))
    columns = np.stack([examples["condition"], made, examples["image"]], axis=1)
    return viz.grid(columns.reshape(-1, *columns.shape[2:]), columns=3)


def _has_rows(num_classes: int | None) -> bool:
    return num_classes is not None and 2 <= num_classes <= 16
