"""Samples beside real images: the same figures wherever samples come from."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffjax.errors import UserError
from diffjax.evaluation import classifier, features, frechet, inception, kernel
from diffjax.evaluation.features import Extractor
from diffjax.evaluation.figures import Figure
from diffjax.evaluation.inception_score import inception_score
from diffjax.evaluation.precision_recall import precision_recall

NEIGHBOURS = 3
"""k of precision and recall."""
SPLITS = 10
"""Parts of the samples, each with an Inception score of its own."""


def precision(samples: np.ndarray, real: np.ndarray) -> float:
    """`precision_recall`'s, of `NEIGHBOURS`."""
    return precision_recall(samples, real, k=NEIGHBOURS).precision


def recall(samples: np.ndarray, real: np.ndarray) -> float:
    """`precision_recall`'s, of `NEIGHBOURS`."""
    return precision_recall(samples, real, k=NEIGHBOURS).recall


COMPARISONS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "kernel": kernel.kernel_distance,
    "frechet": frechet.feature_distance,
    "precision": precision,
    "recall": recall,
}
"""Figure → what it is of features `[N, D]` of samples and `[M, D]` of real images."""
FIGURES = (*COMPARISONS, "inception_score")
USUAL = ("kernel", "frechet")


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


def check(num: int, reference_num: int, extract: Extractor, names: Sequence[str] = USUAL) -> None:
    """Whether so many samples and real images are enough for the figures called `names`, and the extractor has them.

    Raises:
      UserError: if not, or another name.
    """
    if not names or not set(names) <= set(FIGURES):
        raise UserError(f"figures={tuple(names)} must be some of {', '.join(map(repr, FIGURES))}")
    if "inception_score" in names:
        if extract.classes is None:
            raise UserError(f"figures: 'inception_score' needs classes; {extract.protocol['extractor']!r} has none")
        if num < SPLITS:
            raise UserError(f"num={num} samples: an Inception score is of {SPLITS} parts")
    for count, field, what in ((num, "num", "samples"), (reference_num, "reference_num", "real images")):
        if count < 2:
            raise UserError(f"{field}={count} {what}: at least 2 are needed")
        if count <= NEIGHBOURS and {"precision", "recall"} & set(names):
            raise UserError(f"{field}={count} {what}: precision and recall need at least {NEIGHBOURS + 1}")
        if "frechet" in names:
            try:
                frechet.check_count(count, extract.dim, what)
            except ValueError as error:
                raise UserError(f"{field}={error}; the kernel distance alone (figures) does with 2") from error


def figures(
    samples: np.ndarray,
    reference: Reference,
    extract: Extractor,
    names: Sequence[str] = USUAL,
    *,
    floors: bool = True,
    labels: np.ndarray | None = None,
) -> dict[str, Figure]:
    """The figures of samples, uint8 `[N, H, W, C]`, beside the reference.

    The unbiased kernel distance leads where N is small: the Fréchet distance grows with D/N.

    Args:
      samples: for a Fréchet distance N > D of them.
      reference: real images.
      extract: the extractor that the reference was made with.
      names: of `FIGURES`.
      floors: also what N real images of the reference would get, against the others (not of an Inception score).
      labels: int `[N]`, of what classes the samples ought to be: an extractor of labels tells the `accuracy`, the share
        of those that it takes for that.

    Raises:
      UserError: as `check`.
    """
    check(len(samples), len(reference.features), extract, names)
    found, logits = extract(samples)
    result = {}
    for name in names:
        if name == "inception_score":
            result[name] = Figure(*inception_score(logits, splits=SPLITS))
            continue
        compare, floor = COMPARISONS[name], None
        least = extract.dim + 1 if name == "frechet" else NEIGHBOURS + 1
        if floors and least <= len(samples) <= len(reference.features) - least:
            # A few draws tell what the noise of N samples is.
            floor, _ = frechet.floor(reference.features, len(samples), distance=compare, splits=3)
        result[name] = Figure(compare(found, reference.features), floor=floor)
    if labels is not None and extract.classes == "labels":
        result["accuracy"] = Figure(float(np.mean(logits.argmax(1) == labels)))
    return result
