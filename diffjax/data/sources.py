"""Sources: random access to labelled images, whatever they are stored in."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypedDict

import numpy as np

NO_LABEL = -1
"""The label of an image that has none."""


class Example(TypedDict):
    """One labelled image."""

    image: np.ndarray
    """uint8 `[H, W, C]`."""
    label: int


class Source(Protocol):
    """Anything with a length and `source[i] → Example`; sizes may differ from image to image."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


class ArraySource:
    """A source held in memory.

    Args:
      images: uint8 `[N, H, W, C]`.
      labels: int `[N]`; None: `NO_LABEL` for each.

    Raises:
      ValueError: another dtype or shape.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray | None = None):
        labels = np.full(len(images), NO_LABEL) if labels is None else labels
        if (
            images.dtype != np.uint8
            or images.ndim != 4
            or labels.shape != images.shape[:1]
            or labels.dtype.kind not in "iu"
        ):
            raise ValueError(
                f"images must be uint8 [N, H, W, C] and labels whole numbers [N]; these are {images.dtype} "
                f"{images.shape} and {labels.dtype} {labels.shape}"
            )
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        return {"image": self.images[index], "label": int(self.labels[index])}


class Subset:
    """The examples of a source at some indices."""

    def __init__(self, source: Source, indices: Sequence[int]):
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return self.source[int(self.indices[index])]


def digits() -> ArraySource:
    """scikit-learn's bundled digits: 1,797 handwritten digits, 8×8×1, from 16 grey levels to 0 … 255."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    return ArraySource(np.round(bundle.images * (255 / 16)).astype(np.uint8)[..., None], bundle.target)


def npz(path: str | os.PathLike, *, images: str = "x_train", labels: str | None = None) -> ArraySource:
    """Arrays of a NumPy archive.

    Args:
      path: the `.npz` file.
      images: the name of the images in it, uint8 `[N, H, W, C]`, or `[N, H, W]` for one channel.
      labels: the name of the labels, int `[N]` or `[N, 1]`; None: none.

    Raises:
      ValueError: a file or a name that is not there, or arrays of another dtype or shape.
    """
    if not Path(path).is_file():
        raise ValueError(f"path={str(path)!r} is no file")
    with np.load(path) as archive:
        for name in filter(None, (images, labels)):
            if name not in archive:
                raise ValueError(f"{name!r} is not in {path}, which holds {', '.join(map(repr, archive.files))}")
        pixels, numbers = archive[images], None if labels is None else archive[labels]
    if numbers is not None and numbers.ndim == 2:
        numbers = numbers.squeeze(1)
    return ArraySource(pixels[..., None] if pixels.ndim == 3 else pixels, numbers)


def split(source: Source, holdout: float, seed: int) -> tuple[Source, Source]:
    """(what is trained on, what is held out): a random share `holdout` of the source, the same for the same seed.

    Raises:
      ValueError: `holdout` outside [0, 1), or nothing left to train on.
    """
    if not 0.0 <= holdout < 1.0:
        raise ValueError(f"holdout={holdout} must lie within [0, 1)")
    order = np.random.default_rng(seed).permutation(len(source))
    held, kept = np.split(order, [round(holdout * len(source))])
    if not len(kept):
        raise ValueError(f"holdout={holdout} leaves none of the {len(source)} images to train on")
    return Subset(source, np.sort(kept)), Subset(source, np.sort(held))
