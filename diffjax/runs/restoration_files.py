"""Writes the files of `diffjax restore`: restored images, a picture of them, a plot of one metric against PSNR."""

import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from diffjax import data, viz
from diffjax.errors import UserError
from diffjax.files import write_arrays

_ROWS = 8
"""The largest number of images that the picture shows."""
_LARGEST = 160
"""Height and width, in pixels, of the part of a whole image that the picture shows."""

Point = tuple[float, float]
"""(PSNR, value of another metric) of a method."""


def picture(columns: Mapping[str, Sequence[np.ndarray]], titles: Mapping[str, str], *, crop: bool) -> np.ndarray:
    """Returns a table of images, uint8 `[·, ·, 3]`: a row for each of the first images, a column for each method.

    Args:
      columns: the images, uint8 `[H, W, C]`, by the name of the method.
      titles: the columns' titles, where they differ from the names.
      crop: whether images may have different sizes, so that only the middle of each is shown.
    """
    shown = [column[:_ROWS] for column in columns.values()]
    if crop:
        size = min(_LARGEST, *(min(image.shape[:2]) for column in shown for image in column))
        middle = partial(data.prepare, shape=(size, size, shown[0][0].shape[2]), resize="crop")
        shown = [[middle(image) for image in column] for column in shown]
    tiles = np.stack([np.stack(column) for column in shown], axis=1)
    rows = [str(n) for n in range(len(tiles))]
    return viz.table(tiles, columns=[titles.get(name, name) for name in columns], rows=rows)


def save_images(folder: Path, images: Sequence[np.ndarray], *, separate: bool) -> None:
    """Writes `restored.npz` (arr_0, uint8 `[N, H, W, C]`), or PNG files `images/00000.png`, … if `separate`."""
    if separate:
        for n, image in enumerate(images):
            viz.save_png(folder / "images" / f"{n:05d}.png", image.squeeze())
        return
    write_arrays(folder / "restored.npz", arr_0=np.stack(images))


def save_curve(path: Path, metric: str, baselines: Mapping[str, Point], samples: Mapping[str, Point]) -> None:
    """Plots a metric against PSNR, with one line through the samples that set the same fields; prints the path.

    Without Matplotlib it prints instead that Matplotlib is missing.

    Args:
      path: the file.
      metric: its name.
      baselines: points by name.
      samples: points by "FIELD=VALUE,…".
    """
    lines: dict[tuple, list[str]] = {}
    for text in sorted(samples, key=lambda text: samples[text]):
        lines.setdefault(tuple(part.partition("=")[0] for part in text.split(",")), []).append(text)
    series = {name: ([point[0]], [point[1]]) for name, point in baselines.items()}
    for texts in lines.values():
        points = [samples[text] for text in texts]
        ends = (textwrap.fill(text.replace(",", ", "), width=40) for text in dict.fromkeys((texts[0], texts[-1])))
        series[" …\n".join(ends)] = tuple(map(list, zip(*points, strict=True)))
    try:
        print(viz.save_figure(path, viz.curves(series, x="PSNR, dB", y=metric)))
    except UserError as error:
        print(error)
