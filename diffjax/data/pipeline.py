"""From a source to an endless, seeded, resumable stream of batches, by grain."""

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

from diffjax.data.sources import Example, Source

Prepare = Callable[[np.ndarray, np.random.Generator | None], np.ndarray]
"""(image, where chance comes from) → image; `functools.partial(images.prepare, …)` is one."""

_READ = grain.ReadOptions(num_threads=4, prefetch_buffer_size=8)


class Batches:
    """An iterator over `{"image": uint8[B, H, W, C], "label": int32[B], …}` without end; made by `batches`."""

    def __init__(self, dataset: grain.MapDataset, workers: int, start: dict[str, Any] | None):
        self._dataset, self._workers = dataset, workers
        self.close = lambda: None
        self.set_state(start or {"batches": 0})

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        batch = next(self._open[0])
        self._taken += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """The position, JSON-able: how many batches have been taken. It is the same on every host."""
        return {"batches": self._taken}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position: the batches that follow are those that followed it."""
        self.close()
        self._taken = state["batches"]
        # The dataset is cut rather than the iterator moved: that is the same for any number of workers.
        rest = self._dataset[self._taken :].to_iter_dataset(_READ)
        if self._workers:
            if not flags.FLAGS.is_parsed():  # grain's workers want absl's flags, which a notebook never parses
                flags.FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=2)
            rest = rest.mp_prefetch(options, worker_init_fn=_start_worker)
        self._open = [iter(rest)]
        self.close = weakref.finalize(self, _close, self._open)


class Prefetch:
    """An iterator over what a step takes, put on the devices one step ahead: the transfer hides behind the step.

    Args:
      batches: an iterator with `get_state`.
      put: a list of `count` batches → the same on the devices, without waiting for it.
      count: how many batches a step takes.
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
        """The position after what was last taken, as `Batches.get_state`; what was read ahead does not count."""
        return self._state

    def close(self) -> None:
        """Ends what reads ahead."""
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
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Batches of a source: this process's share of the n-th global batch, for n = 0, 1, …

    Each epoch is one shuffle by (seed, epoch); a batch may span two epochs. Example i of the whole stream, and what
    chance does to it, is a function of (seed, i) alone: neither workers nor processes change the global batch.

    Args:
      source: what is read.
      batch_size: of the global batch; each process gets `batch_size / process_count` of it, in order.
      seed: of the shuffle and of `prepare`.
      prepare: what is done to each image; None: nothing.
      degrade: what makes of that its "condition", uint8 `[B, H, W, C]`; None: there is none, unless the source has it.
      start: a position to go on from, as `get_state` gave it.
      workers: processes that read and prepare; 0: threads of this one, which do for images held in memory.
      process_index: which process this is (`jax.process_index()`).
      process_count: of how many.

    Raises:
      ValueError: a batch that is empty, larger than the source, or not a multiple of `process_count`.
    """
    if not 1 <= batch_size <= len(source):
        raise ValueError(f"batch_size={batch_size} is out of range: allowed is 1 … {len(source)}, the source's length")
    if batch_size % process_count:
        raise ValueError(f"batch_size={batch_size} is not a multiple of the {process_count} processes")
    if workers < 0:
        raise ValueError(f"workers={workers} must be ≥ 0")
    # As good as endless: 2⁶² examples. (grain's own endless repeat is one too long for batches of one.)
    examples = grain.MapDataset.source(source).seed(seed).shuffle().repeat(2**62 // len(source))
    prepared = examples.random_map(partial(_prepared, prepare, degrade))
    return Batches(prepared.batch(batch_size // process_count)[process_index::process_count], workers, start)


def _close(iterators: list[grain.DatasetIterator]) -> None:
    while iterators:
        iterators.pop().close()


def _start_worker(*_) -> None:
    """In a worker: leaves signals to the training process, and ends when that is killed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def prepared(
    example: Example, rng: np.random.Generator | None, prepare: Prepare | None, degrade: Prepare | None
) -> dict[str, np.ndarray]:
    """An example as a batch has it: `{"image", "label"}`, and its "condition" where there is one.

    A condition that the source itself has is cropped, flipped and turned as its image is.

    Args:
      rng: where chance comes from; None: none.
      prepare, degrade: as `batches` takes them.
    """
    prepare = prepare or (lambda image, rng: image)
    same_again = copy.deepcopy(rng)
    result = {"image": prepare(example["image"], rng), "label": np.int32(example["label"])}
    if "condition" in example:
        result["condition"] = prepare(example["condition"], same_again)
    elif degrade is not None:
        result["condition"] = degrade(result["image"], rng)
    return result


def _prepared(prepare, degrade, example: Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return prepared(example, rng, prepare, degrade)
