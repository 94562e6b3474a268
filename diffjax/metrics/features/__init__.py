"""Feature extractors: functions of images, with the facts that belong to every figure computed from their features."""

from diffjax.metrics.features.base import EXTRACTORS, Extractor, Features, pixels

__all__ = ["EXTRACTORS", "Extractor", "Features", "pixels"]
