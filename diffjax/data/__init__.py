"""Data: sources of images, and the pipeline that turns one into batches."""

from diffjax.data.pipeline import batches
from diffjax.data.sources import ArraySource, Source, digits, split

__all__ = ["ArraySource", "Source", "batches", "digits", "split"]
