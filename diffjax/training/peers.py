"""Detects other processes of a run that have ended.

Each process increments a counter in the key-value store of JAX's coordination service; a process whose counter stands
still has ended. JAX itself notices only after the heartbeat timeout, and then aborts without raising an error.
"""

import concurrent.futures
import contextlib
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax._src import distributed  # the service has no public client

from diffjax.errors import UserError

_KEY = "diffjax/alive"
_PERIOD = 1.0
"""Seconds between two increments of the counter."""
_SILENCE = 20.0
"""Seconds without an increment after which this process ends, if it waits for that one; below JAX's own timeout too."""
_CLOSED = "closed"
"""The counter of a process that has finished."""
_AGREEMENT_SECONDS = 600
"""Seconds that a process waits for the others at the start: some may read their data more slowly."""
_PATIENCE = 10.0
"""Seconds without an increment after which a process has ended; below the heartbeat timeout (`cli.launch.start`)."""


class Peers:
    """Increments this process's counter and watches the others' until it is closed; does nothing for one process."""

    def __init__(self):
        self._others = set(range(jax.process_count())) - {jax.process_index()}
        self._lost: list[int] = []
        self._closed = threading.Event()
        self._last_change: dict[int, tuple[str, float]] = {}
        if self._others:
            self._client = distributed.global_state.client
            threading.Thread(target=self._count, name="alive", daemon=True).start()
            threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def close(self) -> None:
        """Stops incrementing the counter and watching the others', who are told that this process needs no more."""
        self._closed.set()

    @property
    def any_lost(self) -> bool:
        """Whether a process is already known to have ended."""
        return bool(self._lost)

    def lost_error(self) -> UserError | None:
        """Returns the error that names the processes that have ended, or None.

        Takes up to 10 seconds; about one second if all are alive, and no time in a run of one process.
        """
        if self._others and not self._lost:
            self._lost = self._silent()
        return ended_error(_no_answer(self._lost)) if self._lost else None

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Calls `function`, which may wait for other processes, and returns its result.

        Raises:
          UserError: some of the other processes have ended in the meantime.
        """
        if not self._others:
            return function(*args, **options)
        result: concurrent.futures.Future = concurrent.futures.Future()

        def work():
            try:
                result.set_result(function(*args, **options))
            except BaseException as error:
                result.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        while not concurrent.futures.wait([result], timeout=_PATIENCE / 2).done:
            if error := self.lost_error():
                raise error
        return result.result()

    def _silent(self) -> list[int]:
        """Returns the processes whose counter stands still."""
        silent, before, deadline = set(self._others), self._counts(), time.monotonic() + _PATIENCE
        while silent and time.monotonic() < deadline:
            time.sleep(_PERIOD / 5)
            counts = self._counts()
            silent -= {number for number in silent if counts.get(number) not in (before.get(number), _CLOSED)}
        return sorted(silent)

    def _count(self) -> None:
        """Increments the own counter and notes when those of the others change."""
        key = f"{_KEY}/{jax.process_index()}"
        for number in itertools.count():
            closed = self._closed.is_set()
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                self._client.key_value_set(key, _CLOSED if closed else str(number), allow_overwrite=True)
            if closed:
                return
            for other, count in self._counts().items():
                if other in self._others and self._last_change.get(other, ("",))[0] != count:
                    self._last_change[other] = count, time.monotonic()
            self._closed.wait(_PERIOD)

    def _watch(self) -> None:
        """Ends this process when another one has been silent for too long: it may wait for that one forever."""
        before = time.monotonic()
        while not self._closed.wait(_PERIOD):
            now = time.monotonic()
            if now - before > _SILENCE / 2:  # this process itself was stopped
                self._last_change = {other: (count, now) for other, (count, _) in self._last_change.items()}
            before = now
            silent = [
                other
                for other, (count, since) in self._last_change.items()
                if count != _CLOSED and now - since > _SILENCE
            ]
            if silent:
                exit_at_once(f"error: {ended_error(_no_answer(silent))}")

    def _counts(self) -> dict[int, str]:
        """Returns the counters by process; empty if process 0, which holds them, has ended."""
        try:
            found = self._client.key_value_dir_get(f"{_KEY}/")
        except jax.errors.JaxRuntimeError:
            return {}
        return {int(key.rpartition("/")[2]): count for key, count in found}


def exit_at_once(message: str, *, wait: float = 0.0) -> None:
    """Prints a message and ends the process with status 1, from any thread, without any clean-up.

    Args:
      message: a line for stderr.
      wait: seconds between the two.
    """
    print(message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(wait)
    os._exit(1)


_calls = itertools.count()


def check_agreement(facts: Mapping[str, Any]) -> None:
    """Checks that all processes of a run were started with the same facts; does nothing for one process.

    Every process makes this call, and waits until all others have made it.

    Args:
      facts: name → value; values are compared by their `repr`.

    Raises:
      UserError: in every process, the facts of a process that differ from those of process 0; or a process that has
        not come within 10 minutes.
    """
    if jax.process_count() == 1:
        return
    client, call, milliseconds = distributed.global_state.client, next(_calls), 1000 * _AGREEMENT_SECONDS
    own = json.dumps({name: repr(value) for name, value in facts.items()})
    try:
        client.key_value_set(f"diffjax/facts/{call}/{jax.process_index()}", own)
        keys = [f"diffjax/facts/{call}/{number}" for number in range(jax.process_count())]
        found = [json.loads(client.blocking_key_value_get(key, milliseconds)) for key in keys]
        client.wait_at_barrier(f"diffjax/facts/{call}", milliseconds)
    except jax.errors.JaxRuntimeError as error:
        raise ended_error(str(error).splitlines()[0]) from error
    for number, other in enumerate(found):
        names = sorted(name for name in other.keys() | found[0].keys() if other.get(name) != found[0].get(name))
        if names:
            different = "; ".join(
                f"{name} is {other.get(name)}, in process 0 it is {found[0].get(name)}" for name in names[:5]
            )
            raise UserError(
                f"the processes of a run must be started with the same config and see the same data: in process "
                f"{number}, {different}"
            )


def _no_answer(processes: Sequence[int]) -> str:
    return f"no answer from process {', '.join(map(str, sorted(processes)))}"


def ended_error(reason: str) -> UserError:
    """Returns the error that reports the end of another process."""
    return UserError(
        f"another process of this run seems to have ended ({reason}); start them all again with the same command: it "
        "resumes from the last checkpoint"
    )
