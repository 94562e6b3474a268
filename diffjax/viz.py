"""Pictures: `uint8[H, W, 3]` arrays, and the files they go to; curves and maps, which need Matplotlib."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffjax.errors import UserError

BACKGROUND = 255


def to_uint8(x: np.ndarray) -> np.ndarray:
    """[-1, 1] → 0 … 255, rounded to nearest, clipped."""
    return np.clip(np.round((np.asarray(x, np.float64) + 1.0) * 127.5), 0, 255).astype(np.uint8)


def grid(images: np.ndarray, *, columns: int, tile: int = 64, gap: int = 2) -> np.ndarray:
    """Tiles side by side, row by row: `uint8[N, H, W, C]` → `uint8[·, ·, 3]`.

    Small images are enlarged by a whole factor, without blur, until their longer side is about `tile` pixels.

    Raises:
      ValueError: images of another dtype or rank, or neither 1 nor 3 channels.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"images must be uint8 [N, H, W, 1 or 3]; these are {images.dtype} {images.shape}")
    factor = max(1, round(tile / max(images.shape[1:3])))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    if images.shape[-1] == 1:
        images = images.repeat(3, axis=-1)
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), BACKGROUND, np.uint8)
    for n, image in enumerate(images):
        top, left = (gap + (n // columns) * (height + gap), gap + (n % columns) * (width + gap))
        canvas[top : top + height, left : left + width] = image
    return canvas


def denoising_strip(t: Sequence[int], x: np.ndarray, x0: np.ndarray, *, tile: int = 64, gap: int = 2) -> np.ndarray:
    """Two rows a sample, x_t above the x̂0 predicted from it, one column a frame, under the frame's true level.

    Args:
      t: `[K]`, the levels; -1 is written "clean".
      x, x0: `[K, B, H, W, C]` in [-1, 1] (x is clipped to it).
    """
    frames, batch = x.shape[:2]
    pairs = np.stack([x, x0], axis=1).transpose(2, 1, 0, *range(3, x.ndim + 1))
    picture = grid(to_uint8(pairs.reshape(batch * 2 * frames, *x.shape[2:])), columns=frames, tile=tile, gap=gap)
    margin, head = 34, 22
    canvas = Image.new("RGB", (picture.shape[1] + margin, picture.shape[0] + head), (BACKGROUND,) * 3)
    canvas.paste(Image.fromarray(picture), (margin, head))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    column, row = ((size - gap) / count for size, count in ((picture.shape[1], frames), (picture.shape[0], 2 * batch)))
    for k, level in enumerate(t):
        label = "clean" if level == -1 else f"t={level}"
        draw.text((margin + gap + (k + 0.5) * column, head / 2), label, fill=0, font=font, anchor="mm")
    for n in range(2 * batch):
        draw.text((margin / 2, head + gap + (n + 0.5) * row), ("x_t", "x0")[n % 2], fill=0, font=font, anchor="mm")
    return np.asarray(canvas)


def save_png(path: str | os.PathLike, picture: np.ndarray) -> Path:
    """Writes `uint8[H, W, 3]`, whole or not at all; makes the folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    Image.fromarray(np.asarray(picture)).save(part, format="PNG")
    part.replace(path)
    return path


def curves(path: str | os.PathLike, series: Mapping[str, tuple[Sequence, Sequence[float]]], *, x: str, y: str) -> Path:
    """A line for each name, (x, y) points of it, both axes logarithmic where all is above 0; x may be names.

    Raises:
      UserError: Matplotlib is not installed.
    """
    figure = _figure(6.4, 4.4)
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    numbers = all(isinstance(value, (int, float)) for xs, _ in series.values() for value in xs)
    for name, (xs, ys) in series.items():
        axes.plot(xs if numbers else list(map(str, xs)), ys, marker="o", label=name)
    if numbers and min(min(xs) for xs, _ in series.values()) > 0:
        axes.set_xscale("log")
        ticks = sorted({value for xs, _ in series.values() for value in xs})
        axes.set_xticks(ticks, list(map(str, ticks)), minor=False)
        axes.set_xticks([], minor=True)
    if min(min(ys) for _, ys in series.values()) > 0:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    if any(series):  # one without a name needs no legend
        axes.legend()
    return _save_figure(figure, path)


def heat_map(
    path: str | os.PathLike, values: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], title: str
) -> Path:
    """`values` `[rows, columns]` as colours, on a logarithmic scale where all are above 0, each with its number; NaN
    stays white.

    Raises:
      UserError: Matplotlib is not installed.
    """
    figure = _figure(1.6 + 0.9 * len(columns), 1.4 + 0.5 * len(rows))
    axes = figure.add_subplot(title=title)
    norm = "log" if np.nanmin(values) > 0 else "linear"
    axes.imshow(values, norm=norm, cmap="viridis_r", aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            box = {"facecolor": "white", "alpha": 0.6, "edgecolor": "none", "pad": 1}
            axes.text(column, row, f"{value:.3g}", ha="center", va="center", bbox=box)
    return _save_figure(figure, path)


def _figure(width: float, height: float):
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("this picture needs Matplotlib: pip install '.[plots]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def _save_figure(figure, path: str | os.PathLike) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
