"""From a source to an endless, seeded, resumable stream of batches, by grain."""

import grain
import numpy as np

from diffjax.data.sources import Source


def batches(source: Source, *, batch_size: int, seed: int, start: dict | None = None) -> grain.DatasetIterator:
    """An iterator over `{"image": uint8[B, H, W, C], "label": int32[B]}` without end.

    Each epoch is one shuffle by (seed, epoch); a batch may span two epochs. `iterator.get_state()` is the position, a
    JSON-able dict, and `start` takes it up again: the batches that follow are the same.

    Raises:
      ValueError: an empty source, or a batch larger than it.
    """
    if not 1 <= batch_size <= len(source):
        raise ValueError(f"batch_size={batch_size} is out of range: allowed is 1 … {len(source)}, the source's length")
    dataset = grain.MapDataset.source(source).seed(seed).shuffle().repeat().map(_widen_label)
    iterator = iter(dataset.batch(batch_size).to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))
    if start is not None:
        iterator.set_state(start)
    return iterator


def _widen_label(example):
    return {"image": example["image"], "label": np.int32(example["label"])}
