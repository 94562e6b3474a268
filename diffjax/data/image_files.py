"""Finds and decodes image files: the only place that lists a user's folder of images or opens one of them."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax.files import describe_content

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}

_GREY = ("1", "L", "LA", "La")
_ORIENTATION = 0x0112
"""The Exif tag of an image's orientation; 5 … 8 exchange height and width."""


def find_images(root: str | os.PathLike) -> list[Path]:
    """Finds the image files below a folder, and returns their paths relative to it, sorted.

    Links to files and folders are followed, except to a folder that they lie in. Hidden files and folders, whose names
    begin with ".", are left out; one warning counts them.

    Args:
      root: the folder.

    Raises:
      ValueError: no such folder, one that cannot be read, a broken link, or no images.
    """
    if not Path(root).is_dir():
        raise ValueError(f"path={str(root)!r} must be an existing folder")
    found = _Found([], [], [])
    try:
        _list(os.fspath(root), (), found)
    except OSError as error:
        raise ValueError(f"path={str(root)!r}: cannot read {error.filename}: {error.strerror}") from error
    if found.broken:
        first = min(found.broken)
        raise ValueError(
            f"path={str(root)!r} holds {len(found.broken)} broken links, such as {first} -> {os.readlink(first)}"
        )
    if found.hidden:
        warnings.warn(
            f"{root}: left out {len(found.hidden)} hidden files and folders, such as {min(found.hidden)}", stacklevel=2
        )
    if not found.images:
        raise ValueError(f"path={str(root)!r} must hold images, whose names end in {', '.join(sorted(SUFFIXES))}")
    return sorted(Path(file).relative_to(root) for file in found.images)


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Decodes an image file to uint8 `[H, W, C]`: grey images have one channel, all others become RGB.

    It is turned as its Exif orientation says. Where pixels are transparent, the image is composited over white. Of
    several frames the first is read, and of 16 bits per channel in RGB the upper 8.

    Args:
      path: the file.

    Raises:
      ValueError: a file that cannot be decoded, or grey pixels of more than 8 bits.
    """
    from PIL import ImageOps

    with _opened(path) as image:
        if image.format == "PNG":  # Pillow decodes pixels without comparing the file's checksums
            image.verify()
    with _opened(path) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(
                f"its pixels are {image.mode!r}, not 8 bits per channel: convert 16 bits with "
                "Image.fromarray((np.asarray(image) // 257).astype('uint8'))"
            )
        pixels = np.array(_without_alpha(ImageOps.exif_transpose(image)))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def read_shape(path: str | os.PathLike) -> tuple[int, int, int]:
    """Returns the shape (H, W, C) of `read_image`, from the header of the file alone.

    An orientation that a PNG file states after its pixels is not seen.

    Args:
      path: the file.

    Raises:
      ValueError: a file that cannot be identified.
    """
    from PIL import Image

    with _opened(path) as image:
        width, height = image.size
        # A PNG's own getexif would decode all of it; Pillow gives the size of a TIFF after its orientation.
        if image.format != "TIFF" and Image.Image.getexif(image).get(_ORIENTATION) in (5, 6, 7, 8):
            width, height = height, width
        return height, width, 1 if image.mode in _GREY else 3


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Any]:
    """Opens an image with Pillow; whatever goes wrong while it is open becomes a `ValueError` that names the file."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            yield image
    except UnidentifiedImageError as error:
        content = describe_content(path) or "damaged, or not an image of a known format"
        raise ValueError(f"cannot read {path}: it is {content}") from error
    except Image.DecompressionBombError as error:
        limit = f"{2 * Image.MAX_IMAGE_PIXELS:,} pixels"
        raise ValueError(f"cannot read {path}: it is larger than {limit}; make it smaller first") from error
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # Pillow's decoders raise many kinds for damaged files
        raise ValueError(f"cannot read {path}: {str(error) or type(error).__name__}") from error


def _without_alpha(image: Any) -> Any:
    """Returns a Pillow image in grey or RGB, composited over white if a pixel of it is transparent."""
    from PIL import Image

    mode = "L" if image.mode in _GREY else "RGB"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


class _Found(NamedTuple):
    """The paths that `_list` finds."""

    images: list[str]
    hidden: list[str]
    broken: list[str]


def _list(folder: str, above: tuple[str, ...], found: _Found) -> None:
    """Adds the paths below a folder to `found`.

    Args:
      folder: the folder.
      above: the real paths of the folders that it lies in; links to them are not followed.
      found: the paths so far.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                found.hidden.append(entry.path)
            elif entry.is_symlink() and not os.path.exists(entry.path):
                found.broken.append(entry.path)
            elif entry.is_dir():
                _list(entry.path, (*above, real), found)
            elif entry.is_file() and os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                found.images.append(entry.path)
