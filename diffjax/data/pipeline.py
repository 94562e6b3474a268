"""Endless, seeded, resumable streams of batches from a source, built on grain."""

import copy
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import grain
import numpy as np
from absl import flags

from diffjax.data.images import is_whole_number
from diffjax.data.sources import Example, Source
from diffjax.fields import shown

Prepare = Callable[[np.ndarray, np.random.Generator | None], np.ndarray]
"""(image, random generator or None) → image; `functools.partial(images.prepare, …)` is one."""

MAX_WORKERS = 256
"""The largest number of processes that read examples."""

_READ = grain.ReadOptions(num_threads=4, prefetch_buffer_size=8)


class Batches:
    """An endless iterator over `{"image": uint8[B, H, W, C], "label": int32[B], …}`; made by `batches`."""

    def __init__(self, dataset: grain.MapDataset, num_workers: int, start: dict[str, Any] | None):
        self._dataset, self._num_workers = dataset, num_workers
        self.close = lambda: None
        self.set_state(start or {"batches": 0})

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        batch = next(self._open[0])
        self._taken += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """Returns the position, the number of batches taken, for JSON; it is the same on every host."""
        return {"batches": self._taken}

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves to a position that `get_state` returned; the batches after it are the same as they were then."""
        self.close()
        self._taken = state["batches"]
        # Slicing the dataset, unlike moving the iterator, does not depend on the number of workers.
        rest = self._dataset[self._taken :].to_iter_dataset(_READ)
        if self._num_workers:
            if not flags.FLAGS.is_parsed():  # grain's workers need absl's flags, which a notebook never parses
                flags.FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(num_workers=self._num_workers, per_worker_buffer_size=2)
            rest = rest.mp_prefetch(options, worker_init_fn=_start_worker)
        self._open = [iter(rest)]
        self.close = weakref.finalize(self, _close, self._open)


class Prefetch:
    """An iterator that puts batches on the devices one call ahead, so that the transfer overlaps with the computation.

    Args:
      batches: The iterator over batches on the host.
      put: The function that starts to copy a list of `count` batches to the devices and returns the result.
      count: The number of batches that one call takes.
    """

    def __init__(self, batches: Batches, put: Callable[[list[dict[str, np.ndarray]]], Any], count: int = 1):
        self._batches, self._put, self._count = batches, put, count
        self._state = batches.get_state()
        self._ahead: tuple[Any, dict[str, Any]] | None = None

    def __iter__(self) -> "Prefetch":
        return self

    def __next__(self) -> Any:
        result, self._state = self._ahead or self._read()
        self._ahead = self._read()
        return result

    def get_state(self) -> dict[str, Any]:
        """Returns the position after the last batch taken, as `Batches.get_state`; those read ahead do not count."""
        return self._state

    def close(self) -> None:
        """Stops the threads and processes that read ahead."""
        self._batches.close()

    def _read(self) -> tuple[Any, dict[str, Any]]:
        batch = self._put([next(self._batches) for _ in range(self._count)])
        return batch, self._batches.get_state()


def batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    prepare: Prepare | None = None,
    degrade: Prepare | None = None,
    start: dict[str, Any] | None = None,
    num_workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Returns batches of a source: this process's share of the n-th global batch, for n = 0, 1, …

    Each epoch is shuffled by (seed, epoch); a batch may span two epochs. Example i of the whole stream, and its random
    augmentation, is a function of (seed, i) alone: the global batch does not depend on the number of workers or
    processes.

    Args:
      source: The source.
      batch_size: The size of the global batch; each process gets `batch_size / process_count` of it, in order.
      seed: The seed of the shuffle, of `prepare` and of `degrade`.
      prepare: The function applied to each image; None keeps images as they are.
      degrade: The function that makes a prepared image's "condition", uint8 `[B, H, W, C]`, unless the source has
        conditions; None for no condition.
      start: The position to resume from, as `Batches.get_state` returned it.
      num_workers: The number of processes that read and prepare; 0 uses threads of this process, which are enough for
        images in memory.
      process_index: The index of this process (`jax.process_index()`).
      process_count: The number of processes.

    Raises:
      ValueError: A batch size that is < 1, larger than the source or not a multiple of `process_count`, or an invalid
        seed or number of workers.
    """
    if not (is_whole_number(batch_size) and 1 <= batch_size <= len(source)):
        raise ValueError(
            f"batch_size={shown(batch_size)} is out of range: allowed is 1 … {len(source)}, the source's length"
        )
    if batch_size % process_count:
        raise ValueError(f"batch_size={batch_size} is not a multiple of the {process_count} processes")
    if not (is_whole_number(seed) and seed >= 0):
        raise ValueError(f"seed={shown(seed)} must be a whole number ≥ 0")
    if not (is_whole_number(num_workers) and 0 <= num_workers <= MAX_WORKERS):
        raise ValueError(f"num_workers={shown(num_workers)} is out of range: allowed is 0 … {MAX_WORKERS}")
    examples = _shuffled(source, seed)
    prepared = examples.random_map(partial(_prepared, prepare, degrade))
    return Batches(prepared.batch(batch_size // process_count)[process_index::process_count], num_workers, start)


def source_index(source: Source, *, seed: int, number: int) -> int:
    """Returns the index in the source of example `number` of the stream of `batches`: i + B·n for example i of batch n.

    Args:
      source: The source.
      seed: The seed of `batches`.
      number: The number of the example, from 0.
    """
    return int(_shuffled(range(len(source)), seed)[number])


def _shuffled(source: Source, seed: int) -> grain.MapDataset:
    # 2⁶² examples are as good as endless. (grain's own endless repeat is one too long for batches of one.)
    return grain.MapDataset.source(source).seed(seed).shuffle().repeat(2**62 // len(source))


def _close(iterators: list[grain.DatasetIterator]) -> None:
    while iterators:
        iterators.pop().close()


def _start_worker(*_) -> None:
    """Makes a worker ignore signals, which the training process handles, and end when that process ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def prepared(
    example: Example, rng: np.random.Generator | None, prepare: Prepare | None, degrade: Prepare | None
) -> dict[str, np.ndarray]:
    """Returns an example as batches contain it: `{"image", "label"}`, and "condition" if there is one.

    A condition that comes from the source is cropped, flipped and rotated exactly as its image.

    Args:
      example: The example, as the source returns it.
      rng: The random generator; None for no randomness.
      prepare: The function applied to the image; None keeps it as it is.
      degrade: The function that makes the condition of an example that has none; None for no condition.

    Raises:
      ValueError: An image that does not fit, whose file the message names, or a condition of another size.
    """
    prepare = prepare or (lambda image, rng: image)
    condition_rng = copy.deepcopy(rng)
    try:
        result = {"image": prepare(example["image"], rng), "label": np.int32(example["label"])}
    except ValueError as error:
        raise ValueError(f"{error}; the image is {example['file']}" if "file" in example else str(error)) from error
    if "condition" in example:
        shapes = example["image"].shape, example["condition"].shape
        if shapes[0][:2] != shapes[1][:2]:
            raise ValueError(f"an image of shape {shapes[0]} has a condition of another size, {shapes[1]}")
        result["condition"] = prepare(example["condition"], condition_rng)
    elif degrade is not None:
        result["condition"] = degrade(result["image"], rng)
    return result


def _prepared(prepare, degrade, example: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return prepared(example, rng, prepare, degrade)
