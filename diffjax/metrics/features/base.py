"""`Extractor`, a function from images to features with the facts that belong to every figure computed from them.

The registry `EXTRACTORS` holds functions that return an `Extractor`. They may take `image_shape`, (H, W, C), and
`path`. An entry whose name is a suffix, such as ".pth", is used for files with that suffix, and takes their `path`.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from diffjax.registry import Registry

EXTRACTORS = Registry("feature extractor", package="diffjax.metrics.features")


class Features(NamedTuple):
    """Features of N images, float32."""

    features: np.ndarray
    """`[N, D]`."""
    logits: np.ndarray | None
    """`[N, classes]`; None if the extractor has no classes."""


@dataclasses.dataclass(frozen=True)
class Extractor:
    """`extractor(images)`: uint8 `[N, H, W, C]` → `Features`, in batches of one size, so that it compiles once.

    Raises:
      ValueError: images of another dtype or shape.
    """

    dim: int
    """D, the number of features."""
    protocol: dict[str, Any]
    """The facts: `extractor`, its name; `resize`, how it resizes images; and others where they matter."""
    function: Callable[[np.ndarray], tuple[Any, Any]]
    """uint8 `[batch_size, H, W, C]` → (features, logits or None)."""
    image_shape: tuple[int | None, int | None, int | None] = (None, None, None)
    """(H, W, C) of its images; None where any size is allowed."""
    batch_size: int = 100
    classes: str | None = None
    """The classes of its logits: "labels" for the labels of the images, or another set's name; None: no logits."""

    def __call__(self, images: np.ndarray) -> Features:
        """Returns the features of images, uint8 `[N, H, W, C]`, N ≥ 0."""
        self.check(images.shape[1:], images.dtype)
        parts = [self._padded(part) for part in batches(images, self.batch_size)]
        features, logits = zip(*parts, strict=True) if parts else ((np.empty((0, self.dim)),), (None,))
        joined = None if logits[0] is None else np.concatenate(logits).astype(np.float32)
        return Features(np.concatenate(features).astype(np.float32), joined)

    def check(self, image_shape: tuple[int, ...], dtype: Any = np.uint8) -> None:
        """Checks that it takes images of `image_shape`, (H, W, C).

        Raises:
          ValueError: images of another dtype or shape.
        """
        fits = len(image_shape) == 3 and all(
            want in (None, size) for want, size in zip(self.image_shape, image_shape, strict=True)
        )
        if dtype != np.uint8 or not fits:
            wanted = ", ".join(
                name if size is None else str(size) for name, size in zip("HWC", self.image_shape, strict=True)
            )
            raise ValueError(
                f"images must be uint8 [N, {wanted}] for the extractor {self.protocol['extractor']!r}, not "
                f"{np.dtype(dtype).name} [N, {', '.join(map(str, image_shape))}]"
            )

    def _padded(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns (features, logits) of a batch that may be too small, computed on a full one."""
        short = self.batch_size - len(images)
        padded = np.concatenate([images, np.zeros((short, *images.shape[1:]), np.uint8)]) if short else images
        features, logits = self.function(padded)
        return tuple(None if each is None else np.asarray(each)[: len(images)] for each in (features, logits))


def batches(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Returns an iterator over `images` in batches of `size`, the last one shorter."""
    return (images[start : start + size] for start in range(0, len(images), size))


@EXTRACTORS.register
def pixels(image_shape: tuple[int, int, int]) -> Extractor:
    """Returns an extractor whose features are the pixels themselves, in [0, 1].

    Args:
      image_shape: (H, W, C).
    """

    def function(images):
        return images.reshape(len(images), -1) / np.float32(255), None

    facts = {"extractor": "pixels in [0, 1]", "resize": "none"}
    return Extractor(int(np.prod(image_shape)), facts, function, tuple(image_shape))
