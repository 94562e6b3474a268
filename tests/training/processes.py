"""Training in real processes, which a fork server starts with the imports behind them."""

import json
import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path

import jax
import ml_collections

from diffjax import launch
from diffjax.training.loop import train

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["diffjax.training.loop", "sklearn.datasets"])


class Run:
    """A process that trains in `workdir` by `config` on forced host devices; `processes` go to `launch.start`."""

    def __init__(self, config, workdir: Path, *, devices: int = 1, x64: bool = False, **processes):
        workdir.parent.mkdir(exist_ok=True)
        self._log = workdir.with_name(f"{workdir.name}.{processes.get('process_id', 0)}.log")
        options = {"devices": devices, "x64": x64, "log": str(self._log), "processes": processes}
        self._process = _CONTEXT.Process(target=_train, args=(config.to_json(), str(workdir), options))
        self._process.start()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_) -> None:
        self.kill()

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.join()

    def wait(self, seconds: float = 120.0) -> int | None:
        """The exit status; None if it still runs after that time."""
        self._process.join(seconds)
        return self._process.exitcode

    @property
    def output(self) -> str:
        return self._log.read_text()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(condition, seconds: float = 120.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def _train(config: str, workdir: str, options: dict) -> None:
    log = os.open(options["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(log, number)
        setattr(sys, name, os.fdopen(number, "w", buffering=1))
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={options['devices']}"
    jax.config.update("jax_enable_x64", options["x64"])
    jax.config.update("jax_disable_most_optimizations", True)
    with launch.reporting():
        launch.start(**options["processes"])
        assert jax.local_device_count() == options["devices"]
        state = train(ml_collections.ConfigDict(json.loads(config)), workdir, progress=False)
        print("finished at step", int(state.step))
