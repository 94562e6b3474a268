"""Being asked to stop: SIGTERM (a scheduler, a preemption) or SIGINT (Ctrl-C)."""

import os
import signal
import threading

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Catches the first SIGTERM or SIGINT, for the loop to ask about between steps; a second one acts as usual.

    Among several processes JAX catches SIGTERM and agrees with the others on a step to stop after: it is enough that
    one of them is asked. Use as a context manager, in the main thread (in another it catches nothing).
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
        """Whether to stop now that `steps` are done: the same answer in every process. Ask after every dispatch."""
        if jax.process_count() == 1:
            return self._caught
        # The processes agree on one step number, so each is asked about, even if several were done at once.
        answers = [multihost_utils.reached_preemption_sync_point(step) for step in steps]
        return any(answers)

    def _catch(self, *_) -> None:
        self._caught = True
        self.__exit__()

    def _pass_on(self, *_) -> None:
        self.__exit__()
        os.kill(os.getpid(), signal.SIGTERM)
