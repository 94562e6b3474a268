"""The registry of metrics: what each needs, which direction is better, and `measure`, which computes metrics by name.

    METRICS.register(Metric("kernel", kernel_distance))       # in the module that defines the formula

    measure(samples, reference, extract, ["kernel", "my_lab.metrics:sharpness"])

An import path names a `Metric`, or a function of any of `samples`, `reference`, `images`, `logits` and `labels` (see
`measure`) that returns a number. A function for which more is better has an attribute `higher_is_better = True`.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax.errors import UserError
from diffjax.metrics.features.base import EXTRACTORS, Extractor
from diffjax.metrics.floors import floor
from diffjax.metrics.records import Figure, mean_and_std
from diffjax.registry import Registry, call

METRICS = Registry("metric", package="diffjax.metrics")

USUAL = ("kernel", "frechet")
"""The default metrics."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """A function that measures images, with the facts that a caller must know about it."""

    name: str
    function: Callable[..., Any]
    """Returns a number, a tuple in the order of `Figure`'s fields, or an array `[N]` with one value per image."""
    _: dataclasses.KW_ONLY
    higher_is_better: bool = False
    min_count: int = 2
    """The least number of samples, and of real images where the function takes these."""
    more_than_dim: bool = False
    """Whether there must be more samples than the D features of each, as for a covariance of full rank."""
    advice: str = ""
    """What to do with fewer samples, for the error message."""
    min_size: int = 1
    """The least height and width of images."""
    uses_luma: bool = False
    """Whether it may be measured on the luma of colour images alone, as in papers on super-resolution."""
    summary: Callable[[np.ndarray], Figure] = mean_and_std
    """Turns values per image `[N]` into one figure."""

    @property
    def __name__(self) -> str:
        return self.name

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of the function's parameters that have no default."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(
            parameter.name
            for parameter in parameters
            if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        )

    def least(self, dim: int) -> int:
        """Returns the least number of samples for `dim` features."""
        return max(self.min_count, dim + 1 if self.more_than_dim else 1)

    def __call__(self, given: Mapping[str, Any]) -> Figure:
        """Returns the figure.

        Args:
          given: values by parameter name; those that the function does not name as parameters are ignored.
        """
        result = call(self.function, given, {})
        if isinstance(result, tuple):
            return Figure(*result)
        return self.summary(np.asarray(result)) if np.ndim(result) else Figure(float(result))


class Reference(NamedTuple):
    """Features of real images."""

    features: np.ndarray
    """`[M, D]`."""
    description: str
    """Which images, of which split, and how many."""


def find(name: str) -> Metric:
    """Returns the metric of a registered name or of an import path.

    Raises:
      ValueError: an unknown name, or an import path that leads to neither a `Metric` nor a function.
    """
    entry = METRICS[name]
    if isinstance(entry, Metric):
        return entry
    if not callable(entry):
        raise ValueError(f"{name!r} must be a Metric or a function, not {type(entry).__name__}")
    return Metric(name, entry, higher_is_better=getattr(entry, "higher_is_better", False))


def higher_is_better(name: str) -> bool:
    """Returns whether the highest value of a figure is the best; False for figures that are not metrics (seconds)."""
    try:
        return find(name).higher_is_better
    except ValueError:
        return False


def extractor(name: str, image_shape: tuple[int, int, int]) -> Extractor:
    """Returns the feature extractor of a registered name, of a file by its suffix, or of an import path.

    Args:
      name: "pixels", a classifier's `.safetensors` file, the `.pth` file of FID's Inception, or an import path to a
        function of `image_shape` that returns an `Extractor`.
      image_shape: (H, W, C).

    Raises:
      UserError: an unknown name, a file that is missing or damaged, or an extractor for other images.
    """
    suffix = Path(name).suffix
    key = suffix if suffix in EXTRACTORS else name
    if key not in EXTRACTORS and ":" not in key:
        names = ", ".join(f"a {each} file" if each.startswith(".") else repr(each) for each in sorted(EXTRACTORS)[::-1])
        raise UserError(f"extractor={name!r} must be {names} or an import path 'package.module:attribute'")
    try:
        found = call(EXTRACTORS[key], {"path": Path(name), "image_shape": image_shape}, {})
        if not isinstance(found, Extractor):
            raise ValueError(f"it returned a {type(found).__name__}, not an Extractor")
        found.check(image_shape)
    except ValueError as error:
        raise UserError(f"extractor={name!r}: {error}") from error
    return found


def check(num: int, reference_num: int, extract: Extractor, names: Sequence[str] = USUAL) -> None:
    """Checks that metrics can be computed.

    Args:
      num: the number of samples.
      reference_num: the number of real images.
      extract: the extractor of their features.
      names: the metrics, by registered names or import paths.

    Raises:
      UserError: no names, an unknown name, too few samples or real images, or a metric that needs values that
        are not available.
    """
    if not names:
        raise UserError(f"figures={tuple(names)} must be some of {', '.join(map(repr, METRICS))}")
    given = {"images", "samples", "reference"}
    given |= {"logits"} if extract.classes is not None else set()
    given |= {"labels"} if extract.classes == "labels" else set()
    for name in names:
        try:
            metric = find(name)
        except ValueError as error:
            raise UserError(f"figures={error}") from error
        _check_needs(name, metric, given, extract)
        least = metric.least(extract.dim)
        _check_count("num", num, "samples", least, metric)
        _check_count("reference_num", reference_num, "real images", least if "reference" in metric.needs else 1, metric)


def measure(
    samples: np.ndarray,
    reference: Reference,
    extract: Extractor,
    names: Sequence[str] = USUAL,
    *,
    floors: bool = True,
    labels: np.ndarray | None = None,
) -> dict[str, Figure]:
    """Measures samples against real images; returns the figures by the metrics' names.

    The functions of metrics may take: `images`, the samples as uint8 `[N, H, W, C]`; `samples` and `reference`, the
    features `[N, D]` of the samples and `[M, D]` of the real images; `logits` `[N, classes]`, if the extractor has
    classes; `labels`, if these are classes of the extractor.

    Args:
      samples: images, uint8 `[N, H, W, C]`.
      reference: features of real images.
      extract: the extractor that computed these features.
      names: the metrics, by registered names or import paths.
      floors: whether to compute also the figure that N real images get against the others, for metrics of two sets.
      labels: int `[N]`, the classes that the samples were conditioned on. Registered metrics that need labels, such as
        `accuracy`, are then computed as well, if the extractor's classes are such labels.

    Raises:
      UserError: as `check`, or a metric that needs labels where none are given.
    """
    check(len(samples), len(reference.features), extract, names)
    features, logits = extract(samples)
    given = {"images": samples, "samples": features, "reference": reference.features}
    if extract.classes is not None:
        given["logits"] = logits
    if labels is not None and extract.classes == "labels":
        given["labels"] = labels
        names = dict.fromkeys([*names, *(name for name, metric in METRICS.items() if "labels" in metric.needs)])
    figures = {}
    for name in names:
        metric = find(name)
        _check_needs(name, metric, given, extract)
        figures[name] = metric(given)
        if floors and set(metric.needs) == {"samples", "reference"}:
            figures[name] = figures[name]._replace(floor=_floor(metric, reference.features, len(samples)))
    return figures


def _floor(metric: Metric, real: np.ndarray, num: int) -> float | None:
    """Returns the figure of `num` real images against the others; None where either would be too few."""
    if not metric.least(real.shape[1]) <= num <= len(real) - metric.least(real.shape[1]):
        return None

    def distance(samples: np.ndarray, reference: np.ndarray) -> float:
        return metric({"samples": samples, "reference": reference}).value

    return floor(real, num, distance, splits=3)[0]  # the mean of a few splits shows the size of the noise


def _check_needs(name: str, metric: Metric, given: Iterable[str], extract: Extractor) -> None:
    if missing := sorted(set(metric.needs) - set(given)):
        raise UserError(
            f"figures={name!r} needs {', '.join(missing)}: not available for these samples and the extractor "
            f"{extract.protocol['extractor']!r}"
        )


def _check_count(field: str, count: int, what: str, least: int, metric: Metric) -> None:
    if count < least:
        advice = f"; {metric.advice}" if metric.advice else ""
        raise UserError(f"{field}={count} {what}: {metric.name!r} needs at least {least}{advice}")
