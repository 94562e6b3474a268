"""Ends a command on SIGINT (Ctrl-C) or SIGTERM with one line and status 130 or 143."""

import os
import signal
import sys
import threading

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_GRACE = 5.0
"""Seconds in which an interrupted command ends by itself; a compilation, for one, lasts until it is done."""


class Interrupts:
    """Raises `KeyboardInterrupt` at the first signal; ends the process at the second, or if the first had no effect.

    Training takes over the first signal while it has something to save (`training.preemption`). Make it in the main
    thread of a process of its own.

    Args:
      message: the line with which an interrupted command ends.
    """

    def __init__(self, message: str):
        self._message = message
        self._number: int | None = None
        self.is_ending = False
        """Whether a signal came that nothing took over: an error may be its consequence."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        for number in _NUMBERS:
            signal.signal(number, self._raise)
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._see_unraisable
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), name="signals", daemon=True).start()

    def end(self, *, before: str = "") -> None:
        """Prints the line, after `before`, and ends the process without waiting for what else is running in it."""
        print(f"{before}{self._message}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + (self._number or signal.SIGINT))

    def leave(self) -> None:
        """Lets a signal end the process at once, without a line: the command is done, and Python is shutting down."""
        for number in _NUMBERS:
            signal.signal(number, lambda number, _: os._exit(128 + number))

    def _raise(self, number: int, _) -> None:
        self._number, self.is_ending = number, True
        raise KeyboardInterrupt

    def _see_unraisable(self, error) -> None:
        """Ends the process if the exception was raised where Python drops it, such as in a callback."""
        if self.is_ending and issubclass(error.exc_type, KeyboardInterrupt):
            self.end()
        self._unraisable(error)

    def _watch(self, reading: int) -> None:
        """Sees each signal as it arrives, even while the main thread runs compiled code."""
        count = 0
        while received := os.read(reading, 1):
            if (number := received[0]) not in _NUMBERS:
                continue
            count += 1
            if count > 1:
                self.end(before="\n")  # there may be a progress bar
            self._number = number
            if signal.getsignal(number) == self._raise:
                timer = threading.Timer(_GRACE, self.end, kwargs={"before": "\n"})
                timer.daemon = True
                timer.start()
