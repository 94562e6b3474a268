"""The lock of a folder, which only one run at a time can hold."""

import contextlib
import errno
import fcntl
import os
import socket
import warnings
from pathlib import Path

import jax

from diffjax.errors import UserError, writing

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def locked(folder: str | os.PathLike, *, flag: str = "--workdir"):
    """Creates the folder and locks `folder/lock`; the kernel releases the lock however the process ends.

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
    path = Path(folder) / "lock"
    with writing(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
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
                f"{path} cannot be locked on this file system: make sure that no other run uses it", stacklevel=3
            )
        with writing(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                file.truncate(0)
