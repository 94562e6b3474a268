"""Training in real processes, which a fork server starts with the imports behind them."""

import itertools
import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax

from diffjax.cli import launch
from diffjax.runs import resolve
from diffjax.runs.train import train
from diffjax.training.checkpoints import Checkpoints

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["diffjax.runs.train", "sklearn.datasets"])


class Process:
    """A process that trains in `workdir` by `config`.

    Args:
      devices: the number of CPU devices of the process.
      x64: whether it computes in float64.
      killed: (n, seconds): SIGKILL ends it that long after the beginning of its n-th save; None: it is not killed.
      limit: the size in bytes that no file which it writes from its second save on can exceed; None: no limit.
      processes: for `launch.start`.
    """

    def __init__(
        self, config, workdir: Path, *, devices: int = 1, x64: bool = False, killed: tuple[int, float] | None = None,
        limit: int | None = None, **processes,
    ):  # fmt: skip
        workdir.parent.mkdir(exist_ok=True)
        self._log = workdir.with_name(f"{workdir.name}.{processes.get('process_id', 0)}.log")
        options = {
            "devices": devices, "x64": x64, "killed": killed, "limit": limit, "log": str(self._log),
            "processes": processes,
        }  # fmt: skip
        text = json.dumps(resolve.to_dict(config))
        self._process = _CONTEXT.Process(target=_train, args=(text, str(workdir), options))
        self._process.start()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_) -> None:
        self.kill()

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """Sends SIGKILL."""
        self._process.kill()
        self._process.join()

    def wait(self, seconds: float = 300.0) -> int | None:
        """Returns the exit status; None if it still runs after that time."""
        self._process.join(seconds)
        return self._process.exitcode

    @property
    def output(self) -> str:
        return self._log.read_text()


def pair(config, workdir: Path, second: dict | None = None) -> list[Process]:
    """Starts one run of two processes; `second` are options of the second one, and "config" if it has another one."""
    second = dict(second or {})
    configs = [config, second.pop("config", config)]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    where = {"distributed": True, "coordinator": f"127.0.0.1:{port}", "num_processes": 2}
    return [Process(configs[n], workdir, process_id=n, **where, **(second if n else {})) for n in range(2)]


def wait_until(condition, seconds: float = 300.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def _train(config: str, workdir: str, options: dict) -> None:
    log = os.open(options["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    if options["limit"] is not None:  # which the log must not reach
        log = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log).stdin.fileno()
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(log, number)
        setattr(sys, name, os.fdopen(number, "w", buffering=1))
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={options['devices']}"
    jax.config.update("jax_enable_x64", options["x64"])
    if options["killed"] is not None:
        number, seconds = options["killed"]
        _at_save(number, threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start)
    if options["limit"] is not None:
        _at_save(2, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (options["limit"], resource.RLIM_INFINITY)))
    with launch.reporting():
        launch.start(**options["processes"])
        assert jax.local_device_count() == options["devices"]
        state = train(json.loads(config), workdir, progress=False)
        print("finished at step", int(state.step))


def _at_save(number: int, act) -> None:
    save, saves = Checkpoints.save, itertools.count(1)

    def acting(*args):
        if next(saves) == number:
            act()
        save(*args)

    Checkpoints.save = acting
