"""Subsets of a source by class."""

from collections.abc import Sequence

import numpy as np

from diffjax.data.images import is_whole_number
from diffjax.data.sources import NO_LABEL, Example, Source
from diffjax.fields import shown


class ClassSubset:
    """The examples of some classes of a source, with new labels; made by `of_classes`.

    Args:
      source: The source.
      indices: The indices of the examples in the source, int `[N]`.
      labels: Their new labels, int `[N]`.
    """

    def __init__(self, source: Source, indices: np.ndarray, labels: np.ndarray):
        self.source, self.indices, self.labels = source, indices, labels

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return {**self.source[int(self.indices[index])], "label": int(self.labels[index])}


def of_classes(source: Source, classes: Sequence[int]) -> ClassSubset:
    """Returns the examples whose label is one of `classes`, in the source's order, relabelled 0 … n-1.

    The images of a source with an array `labels` are not read; any other source is read once from beginning to end.

    Args:
      source: The source.
      classes: The labels to keep, each once; the k-th of them becomes label k.

    Raises:
      ValueError: Invalid classes, a class that the source does not have, or a source without labels.
    """
    if (
        not isinstance(classes, tuple | list)
        or not classes
        or not all(is_whole_number(label) and label >= 0 for label in classes)
        or len(set(classes)) < len(classes)
    ):
        raise ValueError(f"classes={shown(classes)} must be one or more different whole numbers ≥ 0")
    labels = _labels(source)
    found = set(labels.tolist()) - {NO_LABEL}
    if not found:
        raise ValueError(f"classes={shown(classes)} needs a source with labels; this one has none")
    for label in classes:
        if label not in found:
            raise ValueError(f"classes={shown(classes)}: label {label} is not in the source; it has {_listed(found)}")
    new_labels = {label: number for number, label in enumerate(classes)}
    indices = np.flatnonzero(np.isin(labels, classes))
    return ClassSubset(source, indices, np.array([new_labels[label] for label in labels[indices].tolist()]))


def known_labels(source: Source) -> np.ndarray | None:
    """Returns the labels, int `[N]`, if the source stores them separately from its images, else None."""
    labels = getattr(source, "labels", None)
    return None if labels is None else np.asarray(labels, np.int64)


def known_num_classes(source: Source) -> int | None:
    """Returns the number of classes that the source declares; None if it declares none."""
    return getattr(source, "num_classes", None)


def _labels(source: Source) -> np.ndarray:
    labels = known_labels(source)
    if labels is None:
        labels = np.array([source[index]["label"] for index in range(len(source))], np.int64)
    return labels


def _listed(labels: set[int]) -> str:
    ordered = sorted(labels)
    if len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:
        return f"{ordered[0]} … {ordered[-1]}"
    return ", ".join(map(str, ordered[:20])) + (", …" if len(ordered) > 20 else "")
