"""Animations of a sampling trajectory, as GIF or WebP files written by Pillow."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffjax.data.pixels import to_uint8
from diffjax.files import atomic, to_path
from diffjax.viz.pixels import BACKGROUND, grid, level

_HEAD, _TEXT, _BETWEEN = 22, 13, 12
_FORMATS = {".gif": "GIF", ".webp": "WEBP"}


def animation_frames(
    t: Sequence[int],
    x: np.ndarray,
    x0: np.ndarray | None = None,
    *,
    columns: int,
    tile: int = 64,
    gap: int = 2,
) -> list[np.ndarray]:
    """Returns frames `uint8[H, W, 3]` of one size: a grid of x_t below its level, and beside it one of x̂0, if given.

    Args:
      t: `[K]`, the levels.
      x, x0: `[K, B, H, W, C]` in [-1, 1] (x is clipped to it).

    Raises:
      ValueError: another number of levels than frames, and as `grid`.
    """
    if len(t) != len(x) or (x0 is not None and np.shape(x0) != np.shape(x)):
        raise ValueError(f"{len(t)} levels, x {np.shape(x)} and x0 {np.shape(x0)} must have the same number of frames")
    font = ImageFont.load_default(size=_TEXT)
    frames = []
    for k, index in enumerate(t):
        grids = [grid(to_uint8(part[k]), columns=columns, tile=tile, gap=gap) for part in (x, x0) if part is not None]
        height, width = grids[0].shape[:2]
        right = max(width, round(font.getlength(f"x_t, {level(max(t))}")) + 2 * gap) + _BETWEEN
        size = (right + max(width, 110) if len(grids) > 1 else right - _BETWEEN, height + _HEAD)
        canvas = Image.new("RGB", size, (BACKGROUND,) * 3)
        draw = ImageDraw.Draw(canvas)
        names = (f"x_t, {level(index)}", "x0 predicted")
        for left, picture, name in zip((0, right), grids, names, strict=False):
            canvas.paste(Image.fromarray(picture), (left, _HEAD))
            draw.text((left + gap, _HEAD / 2), name, fill=0, font=font, anchor="lm")
        frames.append(np.asarray(canvas))
    return frames


def save_animation(
    path: str | os.PathLike, frames: Sequence[np.ndarray], *, milliseconds: int = 80, hold: int = 2000
) -> Path:
    """Writes frames atomically as a looping GIF or lossless WebP, depending on the path's suffix.

    In a GIF, grey frames keep their values, and colours are reduced to 256 per frame. Consecutive equal frames may be
    stored as one frame with their total duration.

    Args:
      frames: `uint8[H, W, 3]`, of one size.
      path: the file to write, which ends in .gif or .webp.
      milliseconds: the time that each frame is shown; a GIF rounds it to a multiple of 10.
      hold: the time that the last frame is shown.

    Raises:
      ValueError: another suffix, no frames, frames of several sizes, a time under 10 ms.
    """
    path = to_path(path)
    if path.suffix not in _FORMATS:
        raise ValueError(f"{path}: an animation's suffix is one of {', '.join(map(repr, _FORMATS))}")
    sizes = sorted({np.shape(frame) for frame in frames})
    if len(sizes) != 1:
        raise ValueError(f"{len(frames)} frames of sizes {sizes}: one size is needed")
    if min(milliseconds, hold) < 10:
        raise ValueError(f"milliseconds={milliseconds} and hold={hold} must be ≥ 10")
    pictures = [Image.fromarray(frame) for frame in frames]
    if all(np.ptp(frame, axis=-1).max() == 0 for frame in frames):
        pictures = [picture.convert("L") for picture in pictures]
    options = {"duration": [milliseconds] * (len(frames) - 1) + [hold], "loop": 0}
    if path.suffix == ".webp":
        options["lossless"] = True
    with atomic(path) as part:
        pictures[0].save(part, _FORMATS[path.suffix], save_all=True, append_images=pictures[1:], **options)
    return path
