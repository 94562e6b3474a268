"""Starts commands, before JAX uses a device: compilation cache, several processes, errors reported in one line."""

import argparse
import contextlib
import errno
import logging
import os
import sys
import threading
import traceback
import warnings

import absl.logging
import jax

from diffjax.compilation_cache import use_compilation_cache
from diffjax.errors import UserError
from diffjax.training import peers

# A process counts as dead after this long without a heartbeat; `training.peers` reports its end sooner, in one line.
_HEARTBEAT_SECONDS = 60
# How long a process waits at the start for the others.
_JOIN_SECONDS = 300
# How long a finished process waits for one that still makes pictures; a dead process is noticed sooner.
_SHUTDOWN_SECONDS = 24 * 3600
# Process 0 holds the service of the run, whose end aborts the others: those that fail too have this long to say so.
_LAST_WORDS_SECONDS = 2.0
# Each CPU device holds a copy of the training state; with more cores than this, operations are spread over the rest.
_MOST_CPU_DEVICES = 8
# How long CPU devices wait for one another. By default XLA ends the process after a minute, but a core that other work
# shares may lag by more in a large step.
_CPU_WAIT = "xla_cpu_collective_call_terminate_timeout_seconds"
# The errors of a disk that is full, or whose share for this user is.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def start(
    *,
    distributed: bool = False,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    batch_size: int | None = None,
) -> None:
    """Turns on the compilation cache; joins the other processes of a distributed run, or else uses all CPU cores.

    Args:
      distributed: whether this is one of several processes. On TPU pods, under SLURM, Open MPI and Kubernetes JAX
        finds the others by itself.
      coordinator: elsewhere, "HOST:PORT" of process 0.
      num_processes: elsewhere, the number of processes.
      process_id: elsewhere, the index of this process, from 0.
      batch_size: a number that the number of devices must divide (`use_cores`).

    Raises:
      UserError: no such cluster, flags that do not go together, or processes that do not join.
    """
    warnings.formatwarning = _one_line
    # orbax logs pages about each file, and it and asyncio about errors that are reported here in one line.
    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    use_compilation_cache()
    given = {"--coordinator": coordinator, "--num-processes": num_processes, "--process-id": process_id}
    if any(value is not None for value in given.values()):
        if missing := [flag for flag, value in given.items() if value is None]:
            raise UserError(f"{missing[0]} is missing: --coordinator, --num-processes and --process-id go together")
        if not 0 <= process_id < num_processes:
            raise UserError(f"--process-id={process_id}: allowed is 0 … {num_processes - 1}")
        if not coordinator.rpartition(":")[0] or not coordinator.rpartition(":")[2].isdecimal():
            raise UserError(f"--coordinator={coordinator!r} must be HOST:PORT")
        distributed = True
    if not distributed:
        use_cores(batch_size)
        return
    # JAX would end the process with a dump of its stack.
    late = threading.Timer(_JOIN_SECONDS, peers.exit_at_once, [_late(coordinator, num_processes)])
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=2 * _JOIN_SECONDS,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"cannot join the other processes: {reason} (no cluster that JAX knows? then give --coordinator HOST:PORT "
            "--num-processes N --process-id I)"
        ) from error
    finally:
        late.cancel()


def _late(coordinator: str | None, num_processes: int | None) -> str:
    where = "" if coordinator is None else f" at {coordinator}"
    count = "the other" if num_processes is None else f"all {num_processes}"
    return (
        f"error: {count} processes have not met{where} within {_JOIN_SECONDS} s: start each with the same coordinator, "
        "which is process 0's address, and the same number of processes"
    )


@contextlib.contextmanager
def reporting():
    """Ends the command with one line and status 1 on a `UserError`, or on the loss of another process.

    With several processes it ends at once, without JAX's shutdown barrier, where it would wait for the others.
    """
    try:
        yield
    except UserError as error:
        _end(f"error: {error}")
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        _end(f"error: {peers.ended_error(str(error).splitlines()[0])}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, OSError) and error.errno in _FULL:  # such as where the output goes to a file
            _end(f"error: cannot write {error.filename or 'the output'}: {error.strerror}")
        if jax.process_count() == 1:
            raise
        _end(traceback.format_exc())


def _end(message: str) -> None:
    if jax.process_count() == 1:
        sys.exit(message)
    peers.exit_at_once(message, wait=_LAST_WORDS_SECONDS if jax.process_index() == 0 else 0.0)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags for several processes; `processes` turns them into arguments of `start`."""
    group = parser.add_argument_group("several processes", "one per host or per GPU, each with the same command")
    group.add_argument(
        "--distributed", action="store_true", help="for a TPU pod, SLURM, …, where JAX finds the other processes"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="elsewhere: the address of process 0")
    group.add_argument("--num-processes", type=int, help="elsewhere: the number of processes")
    group.add_argument("--process-id", type=int, help="elsewhere: the index of this process, from 0")


def processes(args: argparse.Namespace) -> dict:
    """Returns the keyword arguments of `start` from parsed flags."""
    return {name: getattr(args, name) for name in ("distributed", "coordinator", "num_processes", "process_id")}


def use_cores(batch_size: int | None = None) -> None:
    """Makes one CPU device per core, since splitting a batch over cores is faster than splitting each operation.

    The number of devices is at most 8 and divides `batch_size`, if that is given. A number that is set already, by
    `JAX_NUM_CPU_DEVICES` or in `XLA_FLAGS`, takes precedence.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if jax.config.jax_num_cpu_devices >= 0 or "xla_force_host_platform_device_count" in flags:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts = range(1, min(cores, _MOST_CPU_DEVICES) + 1)
    jax.config.update("jax_num_cpu_devices", max(n for n in counts if (batch_size or 0) % n == 0))
    if _CPU_WAIT not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_CPU_WAIT}={24 * 3600}".strip()


def _one_line(message, category, filename, lineno, line=None) -> str:
    where = "" if category is UserWarning else f"{filename}:{lineno}: {category.__name__}, "
    return f"{where}warning: {message}\n"
