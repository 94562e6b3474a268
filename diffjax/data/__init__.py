"""Data: sources of images, and the pipeline that turns one into batches."""

from diffjax.data import resident
from diffjax.data.images import prepare
from diffjax.data.pipeline import Batches, Prefetch, Prepare, batches
from diffjax.data.sources import (
    NO_LABEL,
    ArraySource,
    Folder,
    Prepared,
    Source,
    Subset,
    digits,
    folder,
    npz,
    split,
    tfds,
)

__all__ = [
    "NO_LABEL",
    "ArraySource",
    "Batches",
    "Folder",
    "Prefetch",
    "Prepare",
    "Prepared",
    "Source",
    "Subset",
    "batches",
    "digits",
    "folder",
    "npz",
    "prepare",
    "resident",
    "split",
    "tfds",
]
