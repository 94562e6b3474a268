"""Pictures made of pixels: grids, tables and strips of images, `uint8[H, W, 3]`."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffjax.data.pixels import to_uint8
from diffjax.files import atomic, to_path

BACKGROUND = 255
_HEAD = 22  # pixels above a table, for the columns' names
_TEXT, _SMALL = 13, 11


def shrink(images: np.ndarray, size: int) -> np.ndarray:
    """Shrinks images `[…, H, W, C]` until no side exceeds `size`, by averaging square blocks, as small as possible.

    Pixels at the right and the bottom that do not fill a block are left out. uint8 stays uint8.

    Raises:
      ValueError: `size` < 1.
    """
    if size < 1:
        raise ValueError(f"size={size} must be ≥ 1")
    images = np.asarray(images)
    height, width = images.shape[-3:-1]
    block = -(-max(height, width) // size)
    if block == 1:
        return images
    rows, columns = max(1, height // block), max(1, width // block)
    blocks = images[..., : rows * block, : columns * block, :]
    blocks = blocks.reshape(*images.shape[:-3], rows, min(block, height), columns, min(block, width), images.shape[-1])
    means = blocks.mean(axis=(-4, -2))
    return means.round().astype(np.uint8) if images.dtype == np.uint8 else means.astype(images.dtype)


def grid(images: np.ndarray, *, columns: int, tile: int = 64, gap: int = 2) -> np.ndarray:
    """Lays out images row by row: `uint8[N, H, W, C]` → `uint8[·, ·, 3]`.

    Small images are enlarged by a whole factor, without blur, until their longer side is about `tile` pixels.

    Raises:
      ValueError: images of another dtype or rank, neither 1 nor 3 channels, or no columns.
    """
    return _lay_out(_tiles(images, tile), columns, gap)


def captioned(images: np.ndarray, captions: Sequence[str], *, columns: int, tile: int = 64, gap: int = 2) -> np.ndarray:
    """Lays out images as `grid` does, each above its caption, far enough apart for the widest caption.

    Raises:
      ValueError: another number of captions than images, and as `grid`.
    """
    tiles = _tiles(images, tile)
    if len(captions) != len(tiles):
        raise ValueError(f"{len(captions)} captions for {len(tiles)} images")
    font = ImageFont.load_default(size=_SMALL)
    tiles = _widened(tiles, captions, font)
    height, width = tiles.shape[1:3]
    cells = []
    for picture, caption in zip(tiles, captions, strict=True):
        cell = Image.new("RGB", (width, height + _SMALL + 4), (BACKGROUND,) * 3)
        cell.paste(Image.fromarray(picture))
        ImageDraw.Draw(cell).text((width / 2, height + _SMALL / 2 + 1), caption, fill=0, font=font, anchor="mm")
        cells.append(np.asarray(cell))
    return _lay_out(np.stack(cells), columns, gap)


def table(
    images: np.ndarray, *, columns: Sequence[str], rows: Sequence[str], tile: int = 64, gap: int = 2
) -> np.ndarray:
    """Lays out images `uint8[R, C, H, W, c]` below the names of the columns and beside those of the rows.

    Raises:
      ValueError: another number of names than rows and columns, and as `grid`.
    """
    images = np.asarray(images)
    if images.shape[:2] != (len(rows), len(columns)):
        raise ValueError(f"{len(rows)} rows and {len(columns)} columns are named; the images are {images.shape[:2]}")
    font = ImageFont.load_default(size=_TEXT)
    tiles = _widened(_tiles(images.reshape(-1, *images.shape[2:]), tile), columns, font)
    picture = _lay_out(tiles, len(columns), gap)
    margin = max(_width(name, font) for name in rows) + 10
    canvas = Image.new("RGB", (picture.shape[1] + margin, picture.shape[0] + _HEAD), (BACKGROUND,) * 3)
    canvas.paste(Image.fromarray(picture), (margin, _HEAD))
    draw = ImageDraw.Draw(canvas)
    height, width = (size + gap for size in tiles.shape[1:3])
    for k, name in enumerate(columns):
        draw.text((margin + gap / 2 + (k + 0.5) * width, _HEAD / 2), name, fill=0, font=font, anchor="mm")
    for n, name in enumerate(rows):
        draw.text((margin / 2, _HEAD + gap / 2 + (n + 0.5) * height), name, fill=0, font=font, anchor="mm")
    return np.asarray(canvas)


def level(t: int) -> str:
    """Returns the label of a noise level; that of -1 is "clean"."""
    return "clean" if t == -1 else f"t={t}"


def denoising_strip(t: Sequence[int], x: np.ndarray, x0: np.ndarray, *, tile: int = 64, gap: int = 2) -> np.ndarray:
    """Lays out two rows per sample, x_t above the x̂0 predicted from it, and one column per frame, below its level.

    Args:
      t: `[K]`, the levels; -1 is shown as "clean".
      x, x0: `[K, B, H, W, C]` in [-1, 1] (x is clipped to it).
    """
    pairs = to_uint8(np.stack([x, x0], axis=1)).transpose(2, 1, 0, *range(3, np.ndim(x) + 1))
    rows = ("x_t", "x0") * len(pairs)
    return table(pairs.reshape(-1, *pairs.shape[2:]), columns=list(map(level, t)), rows=rows, tile=tile, gap=gap)


def frame_grid(t: Sequence[int], frames: np.ndarray, *, columns: int = 16, tile: int = 40, gap: int = 2) -> np.ndarray:
    """Lays out the frames of one sample, `[K, H, W, C]` in [-1, 1], row by row, above their levels (256 fill 16×16)."""
    return captioned(to_uint8(frames), list(map(level, t)), columns=columns, tile=tile, gap=gap)


def neighbours(
    samples: np.ndarray, references: np.ndarray, distances: np.ndarray, *, tile: int = 64, gap: int = 2
) -> np.ndarray:
    """Lays out one row per sample: the sample, then its nearest references, nearest first, each above its distance.

    Args:
      samples: uint8 `[N, H, W, C]`.
      references: uint8 `[N, k, H, W, C]`.
      distances: `[N, k]`.

    Raises:
      ValueError: as `captioned`.
    """
    images = np.concatenate([np.asarray(samples)[:, None], references], axis=1)
    texts = [["sample", *(f"{value:#.3g}".rstrip(".") for value in row)] for row in np.asarray(distances)]
    captions = [text for row in texts for text in row]
    return captioned(images.reshape(-1, *images.shape[2:]), captions, columns=images.shape[1], tile=tile, gap=gap)


def save_png(path: str | os.PathLike, picture: np.ndarray) -> Path:
    """Writes a picture, `uint8[H, W, 3]`, atomically; creates the folder."""
    with atomic(path) as part:
        Image.fromarray(np.asarray(picture)).save(part, format="PNG", optimize=True)
    return to_path(path)


def _tiles(images: np.ndarray, tile: int) -> np.ndarray:
    """Checks images and returns them enlarged and in RGB: uint8 `[N, ·, ·, 3]`."""
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"images must be uint8 [N, H, W, 1 or 3]; these are {images.dtype} {images.shape}")
    factor = max(1, round(tile / max(images.shape[1:3])))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    return images.repeat(3, axis=-1) if images.shape[-1] == 1 else images


def _widened(tiles: np.ndarray, texts: Sequence[str], font) -> np.ndarray:
    """Returns tiles with as much background added on both sides as the widest text needs."""
    missing = max((_width(text, font) for text in texts), default=0) + 4 - tiles.shape[2]
    side = max(0, -(-missing // 2))
    return np.pad(tiles, ((0, 0), (0, 0), (side, side), (0, 0)), constant_values=BACKGROUND)


def _width(text: str, font) -> int:
    return int(np.ceil(font.getlength(text)))


def _lay_out(tiles: np.ndarray, columns: int, gap: int) -> np.ndarray:
    if columns < 1:
        raise ValueError(f"columns={columns} must be ≥ 1")
    count, height, width, _ = tiles.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), BACKGROUND, np.uint8)
    for n, image in enumerate(tiles):
        top, left = (gap + (n // columns) * (height + gap), gap + (n % columns) * (width + gap))
        canvas[top : top + height, left : left + width] = image
    return canvas
