"""The distance of samples to real images: the same figures wherever samples come from."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffjax.errors import UserError
from diffjax.evaluation import classifier, features, frechet, inception, kernel
from diffjax.evaluation.features import Extractor
from diffjax.evaluation.figures import Figure

DISTANCES = {"kernel": kernel.kernel_distance, "frechet": frechet.feature_distance}
"""Figure → distance of features `[N, D]` and `[M, D]`."""


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


def check_counts(num: int, reference_num: int, extract: Extractor, names: Sequence[str] = tuple(DISTANCES)) -> None:
    """Whether so many samples and real images are enough for the distances called `names`.

    Raises:
      UserError: if not, or another name.
    """
    if not names or not set(names) <= DISTANCES.keys():
        raise UserError(f"figures={tuple(names)} must be some of {', '.join(map(repr, DISTANCES))}")
    for count, field, what in ((num, "num", "samples"), (reference_num, "reference_num", "real images")):
        if count < 2:
            raise UserError(f"{field}={count} {what}: at least 2 are needed")
        if "frechet" in names:
            try:
                frechet.check_count(count, extract.dim, what)
            except ValueError as error:
                raise UserError(f"{field}={error}; the kernel distance alone (figures) does with 2") from error


def figures(
    samples: np.ndarray,
    reference: Reference,
    extract: Extractor,
    names: Sequence[str] = tuple(DISTANCES),
    *,
    floors: bool = True,
    labels: np.ndarray | None = None,
) -> dict[str, Figure]:
    """The distances of samples, uint8 `[N, H, W, C]`, to the reference.

    The unbiased kernel distance leads where N is small: the Fréchet distance grows with D/N.

    Args:
      samples: for a Fréchet distance N > D of them.
      reference: real images.
      extract: the extractor that the reference was made with.
      names: of `DISTANCES`.
      floors: also what N real images of the reference would get, against the others.
      labels: int `[N]`, of what classes the samples ought to be: an extractor that classifies tells the `accuracy`, the
        share of those that it takes for that.

    Raises:
      UserError: as `check_counts`.
    """
    check_counts(len(samples), len(reference.features), extract, names)
    found, logits = extract(samples)
    result = {}
    for name in names:
        distance, floor = DISTANCES[name], None
        least = extract.dim + 1 if name == "frechet" else 2
        if floors and least <= len(samples) <= len(reference.features) - least:
            # A few draws tell what the noise of N samples is.
            floor, _ = frechet.floor(reference.features, len(samples), distance=distance, splits=3)
        result[name] = Figure(distance(found, reference.features), floor=floor)
    if labels is not None and extract.classifies:
        result["accuracy"] = Figure(float(np.mean(logits.argmax(1) == labels)))
    return result
