"""Data: sources of images, their preparation, and the batch pipeline, which is imported on first use."""

import importlib
from typing import TYPE_CHECKING, Any

from diffjax.data import degradations, pixels, toys
from diffjax.data.images import prepare
from diffjax.data.sources import (
    NO_LABEL,
    SOURCES,
    ArraySource,
    Cached,
    Folder,
    Pairs,
    Prepared,
    Source,
    Subset,
    digits,
    folder,
    npz,
    pairs,
    split,
    tfds,
)
from diffjax.data.subsets import ClassSubset, of_classes

if TYPE_CHECKING:
    from diffjax.data import on_device
    from diffjax.data.pipeline import Batches, Prefetch, Prepare, batches, prepared, source_index

__all__ = [
    "NO_LABEL",
    "SOURCES",
    "ArraySource",
    "Batches",
    "Cached",
    "ClassSubset",
    "Folder",
    "Pairs",
    "Prefetch",
    "Prepare",
    "Prepared",
    "Source",
    "Subset",
    "batches",
    "degradations",
    "digits",
    "folder",
    "npz",
    "of_classes",
    "on_device",
    "pairs",
    "pixels",
    "prepare",
    "prepared",
    "source_index",
    "split",
    "tfds",
    "toys",
]

_PIPELINE = ("Batches", "Prefetch", "Prepare", "batches", "prepared", "source_index")


def __getattr__(name: str) -> Any:
    if name == "on_device":
        return importlib.import_module("diffjax.data.on_device")
    if name in _PIPELINE:
        return getattr(importlib.import_module("diffjax.data.pipeline"), name)
    raise AttributeError(f"module 'diffjax.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
