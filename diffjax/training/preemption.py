"""Handles requests to stop: SIGTERM (from a scheduler or a preemption) and SIGINT (Ctrl-C)."""

import os
import signal
import threading

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Catches the first SIGTERM or SIGINT, which the loop checks for between steps; a second one acts as usual.

    With several processes, JAX catches SIGTERM and the processes agree on a step to stop after; a signal to one of them
    is enough. Use as a context manager in the main thread; in another thread it catches nothing.
    """

    def __enter__(self) -> "Preemption":
        self._caught = False
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            alone = jax.process_count() == 1
            for number in (signal.SIGTERM, signal.SIGINT) if alone else (signal.SIGINT,):
                self._before[number] = signal.signal(number, self._catch if alone else self._pass_on)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def reached(self, steps: range) -> bool:
        """Returns whether to stop after `steps`, the same in every process. Call it after each call of the step."""
        if jax.process_count() == 1:
            return self._caught
        # The processes agree on one step number, so each number is checked, even if several were done at once.
        answers = [multihost_utils.reached_preemption_sync_point(step) for step in steps]
        return any(answers)

    def _catch(self, *_) -> None:
        self._caught = True
        self.__exit__()

    def _pass_on(self, *_) -> None:
        self.__exit__()
        os.kill(os.getpid(), signal.SIGTERM)
