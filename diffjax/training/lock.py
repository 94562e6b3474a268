"""The lock of a folder, which only one run at a time can hold."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from diffjax.errors import UserError, writing
from diffjax.files import in_bucket, is_alive, to_path

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def locked(folder: str | os.PathLike, *, flag: str = "--workdir") -> Iterator[None]:
    """Creates the folder and locks `folder/lock`; the kernel releases the lock however the process ends.

    In a bucket the lock is an object, which is created only where there is none, and removed at the end. What a killed
    process left is replaced by a run on the same machine; elsewhere nobody knows that it has ended, and the message
    says how to remove the object.

    With several processes, only the first one holds the lock.

    Args:
      folder: the folder.
      flag: the flag that names the folder, for the message.

    Raises:
      UserError: another run holds the lock (the message names it), or the folder is not writable.
    """
    if jax.process_index() != 0:
        yield
        return
    path = to_path(folder) / "lock"
    with _object(path, flag) if in_bucket(path) else _file(path, flag):
        yield


@contextlib.contextmanager
def _file(path: Path, flag: str) -> Iterator[None]:
    folder = path.parent
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+", buffering=0)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().decode().strip() or "another process"
            raise UserError(f"{folder} is in use by {holder}: stop that run, or give another {flag}") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise UserError(f"cannot lock {path}: {error.strerror}") from error
            warnings.warn(
                f"{path} cannot be locked on this file system: make sure that no other run uses it", stacklevel=5
            )
        with writing(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                file.truncate(0)


@contextlib.contextmanager
def _object(path: Path, flag: str) -> Iterator[None]:
    import tensorstore

    bucket, _, name = os.fspath(path).removeprefix("gs://").partition("/")
    try:
        store = tensorstore.KvStore.open({"driver": "gcs", "bucket": bucket}).result()
        generation, holder = _claim(store, name)
    except Exception as error:  # TensorStore raises many kinds
        raise UserError(f"cannot lock {path}: {str(error).splitlines()[0]}") from error
    if generation is None:
        raise UserError(
            f"{path.parent} is in use by {holder}: stop that run, or give another {flag}; if it was killed, remove the "
            f"object {path}"
        )
    try:
        yield
    finally:
        with contextlib.suppress(Exception):
            store.write(name, None, if_equal=generation).result()


def _claim(store: Any, name: str) -> tuple[bytes | None, str]:
    """Returns (the generation of the lock that this process has written, ""), or (None, the run that holds the lock).

    The store writes only where the object still is the one that was read.
    """
    own = {"process": os.getpid(), "host": socket.gethostname(), "boot": _boot(), "id": uuid.uuid4().hex}
    found = store.read(name).result()
    if found.state == "missing" or _has_ended(found.value):
        store.write(name, json.dumps(own).encode(), if_equal=found.stamp.generation).result()
        found = store.read(name).result()
    holder = _parsed(found.value)
    if holder.get("id") == own["id"]:
        return found.stamp.generation, ""
    return None, f"process {holder['process']} on {holder['host']}" if holder else "another process"


def _has_ended(content: bytes) -> bool:
    """Returns whether a lock is that of a process of this machine, since its start, that is no more."""
    holder = _parsed(content)
    here = holder.get("host") == socket.gethostname() and holder.get("boot") == _boot() != ""
    return here and not is_alive(holder["process"])


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("process"), int) and "host" in found else {}


def _boot() -> str:
    """Returns what tells this start of this machine from all others; "" where it is unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
