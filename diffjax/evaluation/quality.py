"""The distance of samples to real images: the same figures wherever samples come from."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffjax.errors import UserError
from diffjax.evaluation import classifier, features, frechet, inception, kernel
from diffjax.evaluation.features import Extractor
from diffjax.evaluation.figures import Figure


class Reference(NamedTuple):
    """Real images, as an extractor sees them."""

    features: np.ndarray
    """`[M, D]`."""
    description: str
    """Which images, of which split, and how many."""


def extractor(name: str, image_shape: tuple[int, int, int]) -> Extractor:
    """What `name` stands for: "pixels", a classifier's `.safetensors` file, or FID's Inception's `.pth` file.

    Raises:
      UserError: another name, or a file that is not there or cannot be read.
    """
    suffix = Path(name).suffix
    if name == "pixels":
        found = features.pixels(image_shape)
    elif suffix == ".safetensors":
        found = classifier.load(name).extractor()
    elif suffix == ".pth":
        found = inception.extractor(name)
    else:
        raise UserError(f"extractor={name!r} must be 'pixels', a classifier's .safetensors or Inception's .pth file")
    try:
        found.check(image_shape)
    except ValueError as error:
        raise UserError(f"extractor={name!r}: {error}") from error
    return found


def check_num(num: int, extract: Extractor) -> None:
    """Whether so many samples are enough for a Fréchet distance.

    Raises:
      UserError: if not.
    """
    try:
        frechet.check_count(num, extract.dim)
    except ValueError as error:
        raise UserError(f"num={error}") from error


def figures(
    samples: np.ndarray,
    reference: Reference,
    extract: Extractor,
    *,
    floors: bool = True,
    labels: np.ndarray | None = None,
) -> dict[str, Figure]:
    """The Fréchet and the kernel distance of samples, uint8 `[N, H, W, C]`, to the reference.

    The unbiased kernel distance leads where N is small: the Fréchet distance grows with D/N.

    Args:
      samples: N > D of them.
      reference: real images.
      extract: the extractor that the reference was made with.
      floors: also what N real images of the reference would get, against the others.
      labels: int `[N]`, of what classes the samples ought to be: an extractor that classifies tells the `accuracy`, the
        share of those that it takes for that.

    Raises:
      UserError: too few samples for the extractor's dimensions.
    """
    check_num(len(samples), extract)
    found, logits = extract(samples)
    distances = {"kernel": kernel.kernel_distance, "frechet": frechet.feature_distance}
    result = {}
    for name, distance in distances.items():
        floor = None
        if floors and extract.dim < len(samples) < len(reference.features) - extract.dim:
            # A few draws tell what the noise of N samples is.
            floor, _ = frechet.floor(reference.features, len(samples), distance=distance, splits=3)
        result[name] = Figure(distance(found, reference.features), floor=floor)
    if labels is not None and extract.classifies:
        result["accuracy"] = Figure(float(np.mean(logits.argmax(1) == labels)))
    return result
