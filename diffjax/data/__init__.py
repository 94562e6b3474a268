"""Data: sources of images, and the pipeline that turns one into batches."""

from diffjax.data.images import prepare
from diffjax.data.pipeline import Batches, Prepare, batches
from diffjax.data.sources import NO_LABEL, ArraySource, Source, Subset, digits, npz, split

__all__ = [
    "NO_LABEL",
    "ArraySource",
    "Batches",
    "Prepare",
    "Source",
    "Subset",
    "batches",
    "digits",
    "npz",
    "prepare",
    "split",
]
