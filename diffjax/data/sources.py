"""Sources: random access to labelled images, whatever they are stored in."""

from typing import Protocol, TypedDict

import numpy as np


class Example(TypedDict):
    """One labelled image."""

    image: np.ndarray
    """uint8 `[H, W, C]`."""
    label: int


class Source(Protocol):
    """Anything with a length and `source[i] → Example`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


class ArraySource:
    """A source held in memory.

    Args:
      images: uint8 `[N, H, W, C]`.
      labels: int `[N]`.

    Raises:
      ValueError: another dtype or shape.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        if images.dtype != np.uint8 or images.ndim != 4 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"images must be uint8 [N, H, W, C] and labels [N]; these are {images.dtype} {images.shape} and "
                f"{labels.shape}"
            )
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        return {"image": self.images[index], "label": int(self.labels[index])}


def digits() -> ArraySource:
    """scikit-learn's bundled digits: 1,797 handwritten digits, 8×8×1, from 16 grey levels to 0 … 255."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    return ArraySource(np.round(bundle.images * (255 / 16)).astype(np.uint8)[..., None], bundle.target)


def split(source: ArraySource, holdout: float, seed: int) -> tuple[ArraySource, ArraySource]:
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
    return tuple(ArraySource(source.images[np.sort(part)], source.labels[np.sort(part)]) for part in (kept, held))
