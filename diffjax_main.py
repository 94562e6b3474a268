"""Starts the console script `diffjax`. It stands outside the package, whose import takes about a second.

Until the command's own handlers are there (`diffjax.cli.interrupts`), a signal ends the process with one line.
"""

import os
import signal
from collections.abc import Sequence


def entry_point(argv: Sequence[str] | None = None) -> None:
    """Runs the command line of this process and exits, as `diffjax.cli.main.entry_point`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    from diffjax.cli import main

    main.entry_point(argv)


def _end(number: int, _) -> None:
    # An exception would turn into others, or be lost, within the imports of extension modules.
    os.write(2, b"interrupted: nothing was begun\n")
    os._exit(128 + number)
