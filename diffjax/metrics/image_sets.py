"""Reads sets of images from disk, a folder of files or an npz file, in batches, after checking their shapes."""

import dataclasses
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from diffjax import data
from diffjax.data import image_files
from diffjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """A set of images of one size; image files are read only when they are needed."""

    source: data.Source
    image_shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, size: int = 500) -> Iterator[np.ndarray]:
        """Yields the images in batches, uint8 `[≤ size, H, W, C]`.

        Raises:
          UserError: an image that cannot be decoded.
        """
        prepare = partial(data.prepare, shape=self.image_shape)
        for start in range(0, len(self), size):
            numbers = range(start, min(start + size, len(self)))
            try:
                parts = [data.prepared(self.source[n], None, prepare, None)["image"] for n in numbers]
            except ValueError as error:
                raise UserError(str(error)) from error
            yield np.stack(parts)


def find(path: str | os.PathLike, *, num: int | None = None, name: str = "arr_0") -> ImageSet:
    """Returns the images in a folder (`data.folder`) or in an npz file (`data.npz`), in their order.

    Images of a folder have one channel if all of them are grey, else three.

    Args:
      path: a folder, or a file `*.npz`.
      num: the number of images to take, from the first; None takes all.
      name: the name of the array in the npz file; `diffjax sample` writes "arr_0".

    Raises:
      UserError: a missing path, no images, files of different sizes, an invalid array, or fewer images than `num`.
    """
    path = Path(path)
    if not path.is_dir() and path.suffix != ".npz":
        raise UserError(f"{path} is neither a folder of images nor an npz file")
    try:
        source = data.folder(path) if path.is_dir() else data.npz(path, image_key=name)
    except ValueError as error:
        raise UserError(str(error).removeprefix("path=")) from error
    if len(source) < max(num or 0, 1):
        raise UserError(f"{path} holds {len(source)} images, fewer than num={num or 1}")
    shape = _common_shape(source.paths[:num]) if isinstance(source, data.Folder) else source.images.shape[1:]
    return ImageSet(source if num is None else data.Subset(source, range(num)), shape)


def _common_shape(paths: list[str]) -> tuple[int, int, int]:
    """Returns the (H, W, C) that all files have, from their headers alone."""
    try:
        shapes = [image_files.read_shape(path) for path in paths]
    except ValueError as error:
        raise UserError(str(error)) from error
    height, width, _ = shapes[0]
    for path, shape in zip(paths, shapes, strict=True):
        if shape[:2] != (height, width):
            raise UserError(
                f"images must be of one size, but {paths[0]} is {width}×{height} and {path} is {shape[1]}×{shape[0]}"
            )
    return height, width, max(channels for _, _, channels in shapes)
