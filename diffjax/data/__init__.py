"""Data: sources of images, and the pipeline that turns one into batches."""

from diffjax.data import degradations, resident
from diffjax.data.images import prepare
from diffjax.data.pipeline import Batches, Prefetch, Prepare, batches, prepared
from diffjax.data.sources import (
    NO_LABEL,
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

__all__ = [
    "NO_LABEL",
    "ArraySource",
    "Batches",
    "Cached",
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
    "pairs",
    "prepare",
    "prepared",
    "resident",
    "split",
    "tfds",
]
