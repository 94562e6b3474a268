"""What happens to one image between its source and the batch: to the wanted shape, and augmented."""

import numpy as np

FITS = ("exact", "pad")


def prepare(
    image: np.ndarray,
    rng: np.random.Generator | None = None,
    *,
    shape: tuple[int, int, int],
    fit: str = "exact",
    flip: bool = False,
) -> np.ndarray:
    """The image as uint8 `[H, W, C]` of a given shape.

    Args:
      image: uint8 `[h, w, C]`.
      rng: where chance comes from; None: no chance, so no flips.
      shape: `(H, W, C)`.
      fit: "exact" (it has that shape already), or "pad" (black on all sides, as much before as after or one less).
      flip: whether one in two is mirrored, left to right.

    Raises:
      ValueError: an image that does not fit.
    """
    if fit not in FITS:
        raise ValueError(f"fit={fit!r} is not one of {', '.join(map(repr, FITS))}")
    fitted = _pad(image, shape) if fit == "pad" else image
    if fitted.shape != tuple(shape):
        raise ValueError(f"with fit={fit!r}, images of shape {image.shape} cannot be {tuple(shape)}")
    if flip and rng is not None and rng.random() < 0.5:
        fitted = fitted[:, ::-1]
    return fitted


def _pad(image: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    missing = [max(0, wanted - found) for wanted, found in zip(shape[:2], image.shape[:2], strict=True)]
    return np.pad(image, [(n // 2, n - n // 2) for n in missing] + [(0, 0)])
