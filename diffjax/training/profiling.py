"""Traces a few training steps with JAX's profiler."""

import contextlib
import os
import tempfile
import warnings
from pathlib import Path

import jax

from diffjax.files import in_bucket, to_path, upload

# The first steps of a process compile and fill queues.
_WARM_UP = 10
_TRACED = 5


class Profiler:
    """Traces steps 11 … 15 of this process to `folder`, for xprof. Use as a context manager.

    Args:
      folder: the folder to write the trace to, which may lie in a bucket; None for no trace.
    """

    def __init__(self, folder: str | os.PathLike | None):
        self._folder, self._count, self._running = None if folder is None else to_path(folder), 0, False
        self._temporary = None

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_) -> None:
        if self._running:
            self._stop()
        elif self._folder is not None and self._count <= _WARM_UP:
            warnings.warn(
                f"no profile: {self._count} steps were done, and tracing begins after {_WARM_UP}", stacklevel=2
            )

    @contextlib.contextmanager
    def step(self, number: int):
        """Wraps the step with this number, as a context manager."""
        if self._folder is not None and self._count == _WARM_UP:
            self._temporary = tempfile.TemporaryDirectory() if in_bucket(self._folder) else None
            jax.profiler.start_trace(self._temporary.name if self._temporary else self._folder)
            self._running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        self._count += 1
        if self._running and self._count == _WARM_UP + _TRACED:
            self._stop()

    def _stop(self) -> None:
        jax.effects_barrier()
        jax.profiler.stop_trace()
        self._running = False
        if self._temporary and self._folder:
            upload(Path(self._temporary.name), self._folder)
            self._temporary.cleanup()
