"""Images to be evaluated: a folder of files or an npz, in batches."""

import contextlib
import dataclasses
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from diffjax.errors import UserError
from diffjax.evaluation.features import batches

SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images of one shape, checked but not all read."""

    source: list[Path] | np.ndarray
    """Files in the order of their names, or uint8 `[N, H, W, C]`."""
    image_shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, size: int = 500) -> Iterator[np.ndarray]:
        """uint8 `[≤ size, H, W, C]`."""
        if isinstance(self.source, np.ndarray):
            return batches(self.source, size)
        return (
            np.stack([_read(path, self.image_shape) for path in self.source[start : start + size]])
            for start in range(0, len(self.source), size)
        )


def find(path: str | os.PathLike, *, num: int | None = None, name: str = "arr_0") -> ImageSet:
    """The images in a folder (PNG and JPEG, also in folders below) or in an npz.

    Of a folder all are grey if every file is (C = 1), else RGB; transparency is dropped. Files are sorted by path.

    Args:
      path: a folder, or a file `*.npz`.
      num: take the first so many; None takes all.
      name: of the npz's array, uint8 `[N, H, W, C]`, as `sample.py` writes it.

    Raises:
      UserError: nothing there, no images, files of different sizes, an array of another kind, or fewer than `num`.
    """
    path = Path(path)
    if path.is_dir():
        found = _folder(path, num)
    elif path.is_file() and path.suffix == ".npz":
        found = _npz(path, name, num)
    else:
        raise UserError(f"{path} is neither a folder of images nor an npz file")
    if num is not None and len(found) < num:
        raise UserError(f"{path} holds {len(found)} images, fewer than the {num} asked for")
    return found


def _folder(folder: Path, num: int | None) -> ImageSet:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())[:num]
    if not paths:
        raise UserError(f"{folder} holds no images ({', '.join(SUFFIXES)})")
    sizes, modes = zip(*(_header(path) for path in paths), strict=True)
    for path, size in zip(paths, sizes, strict=True):
        if size != sizes[0]:
            each = (f"{name} is {width}×{height}" for name, (width, height) in ((paths[0], sizes[0]), (path, size)))
            raise UserError(f"images must be of one size, but {' and '.join(each)}")
    width, height = sizes[0]
    return ImageSet(paths, (height, width, 1 if {*modes} <= {"1", "L"} else 3))


def _npz(path: Path, name: str, num: int | None) -> ImageSet:
    try:
        with np.load(path, allow_pickle=False) as file:
            if name not in file:
                raise UserError(f"{path} holds {', '.join(file) or 'nothing'}, no array {name!r}")
            images = file[name]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        raise UserError(f"{path}: {name} must be uint8 [N, H, W, C]; it is {images.dtype} {images.shape}")
    return ImageSet(images[:num], images.shape[1:])


def _header(path: Path) -> tuple[tuple[int, int], str]:
    """(width and height, mode); reads no pixels."""
    with _reading(path), Image.open(path) as image:
        if image.mode.startswith(("I", "F")):
            raise UserError(f"{path} has {image.mode!r} pixels: only 8 bits a channel are evaluated")
        return image.size, image.mode


def _read(path: Path, image_shape: tuple[int, int, int]) -> np.ndarray:
    with _reading(path), Image.open(path) as image:
        return np.asarray(image.convert("L" if image_shape[-1] == 1 else "RGB")).reshape(image_shape)


@contextlib.contextmanager
def _reading(path: Path):
    try:
        yield
    except (OSError, SyntaxError) as error:  # Pillow raises either for what is damaged
        raise UserError(f"cannot read {path}: {error}") from error
