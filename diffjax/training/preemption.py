"""Handles requests to stop: SIGTERM (from a scheduler or a preemption) and SIGINT (Ctrl-C)."""

import os
import signal
import threading

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Catches the first SIGTERM or SIGINT, which the loop checks for between steps; a second one acts as usual.

    It begins with the first call of `reached`: before a step is done there is nothing to save, and signals act as
    usual. With several processes, JAX catches SIGTERM and the processes agree on a step to stop after; a signal to one
    of them is enough. Use as a context manager in the main thread; in another thread it catches nothing.
    """

    def __enter__(self) -> "Preemption":
        self._caught = self._has_begun = False
        self._before = {}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @property
    def caught(self) -> bool:
        """Whether this process has caught a signal."""
        return self._caught

    def reached(self, steps: range) -> bool:
        """Returns whether to stop after `steps`, the same in every process. Call it after each call of the step."""
        alone = jax.process_count() == 1
        if not self._has_begun:
            self._begin(alone)
        if alone:
            return self._caught
        # The processes agree on one step number, so each number is checked, even if several were done at once.
        answers = [multihost_utils.reached_preemption_sync_point(step) for step in steps]
        return any(answers)

    def _begin(self, alone: bool) -> None:
        self._has_begun = True
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT) if alone else (signal.SIGINT,):
                self._before[number] = signal.signal(number, self._catch if alone else self._pass_on)

    def _catch(self, number: int, _) -> None:
        if self._caught:
            self.__exit__()
            signal.raise_signal(number)
        self._caught = True

    def _pass_on(self, *_) -> None:
        self.__exit__()
        os.kill(os.getpid(), signal.SIGTERM)
