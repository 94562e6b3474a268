"""What makes features of images: an `Extractor`, a function with the facts that go beside every figure made with it."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np


class Features(NamedTuple):
    """Of N images, float32."""

    features: np.ndarray
    """`[N, D]`."""
    logits: np.ndarray | None
    """`[N, classes]`, where the extractor has classes."""


@dataclasses.dataclass(frozen=True)
class Extractor:
    """`extractor(images)`: uint8 `[N, H, W, C]` → `Features`, in batches of one size, so that it compiles once.

    Raises:
      ValueError: images of another dtype or shape.
    """

    dim: int
    """D."""
    protocol: dict[str, Any]
    """What it is and does: `extractor`, its name; `resize`; and more where there is more to say."""
    function: Callable[[np.ndarray], tuple[Any, Any]]
    """uint8 `[batch_size, H, W, C]` → (features, logits or None)."""
    image_shape: tuple[int | None, int | None, int | None] = (None, None, None)
    """(H, W, C) that it is for; None where any will do."""
    batch_size: int = 100
    classes: str | None = None
    """What its logits are of: "labels", by which such images are labelled, or others; None: it has none."""

    def __call__(self, images: np.ndarray) -> Features:
        """Of N images, 0 or more."""
        self.check(images.shape[1:], images.dtype)
        parts = [self._padded(part) for part in batches(images, self.batch_size)]
        features, logits = zip(*parts, strict=True) if parts else ((np.empty((0, self.dim)),), (None,))
        joined = None if logits[0] is None else np.concatenate(logits).astype(np.float32)
        return Features(np.concatenate(features).astype(np.float32), joined)

    def check(self, image_shape: tuple[int, ...], dtype: Any = np.uint8) -> None:
        """Raises a `ValueError` for images that it is not for."""
        fits = len(image_shape) == 3 and all(
            want in (None, size) for want, size in zip(self.image_shape, image_shape, strict=True)
        )
        if dtype != np.uint8 or not fits:
            wanted = ", ".join(
                name if size is None else str(size) for name, size in zip("HWC", self.image_shape, strict=True)
            )
            raise ValueError(
                f"the extractor {self.protocol['extractor']!r} takes uint8 [N, {wanted}]; these are "
                f"{np.dtype(dtype).name} [N, {', '.join(map(str, image_shape))}]"
            )

    def _padded(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        short = self.batch_size - len(images)
        padded = np.concatenate([images, np.zeros((short, *images.shape[1:]), np.uint8)]) if short else images
        features, logits = self.function(padded)
        return tuple(None if each is None else np.asarray(each)[: len(images)] for each in (features, logits))


def batches(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """`images` in parts of `size`, the last one shorter."""
    return (images[start : start + size] for start in range(0, len(images), size))


def pixels(image_shape: tuple[int, int, int]) -> Extractor:
    """Raw pixels in [0, 1], in rows."""

    def function(images):
        return images.reshape(len(images), -1) / np.float32(255), None

    facts = {"extractor": "pixels in [0, 1]", "resize": "none"}
    return Extractor(int(np.prod(image_shape)), facts, function, tuple(image_shape))
