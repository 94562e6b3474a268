"""Writes files atomically: a process that is stopped while it writes leaves the file as it was before."""

import contextlib
import functools
import io
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`; the file written there replaces `path`, unless an exception is raised.

    Creates the folder, and removes what killed processes left half-written in it. The temporary name contains the
    process id, since several processes may write the same file.

    Args:
      path: the file to write.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _clean_once(path.parent.absolute())
    part = temporary(path)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write(path: str | os.PathLike, content: str | bytes | memoryview) -> Path:
    """Writes `content` to `path` atomically (text as UTF-8) and returns the path.

    Args:
      path: the file to write; its folder is created.
      content: the whole content of the file.
    """
    with atomic(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


def write_arrays(path: str | os.PathLike, *, compressed: bool = True, **arrays: Any) -> Path:
    """Writes arrays to an .npz file atomically, and returns the path.

    Args:
      path: the file to write; its folder is created.
      compressed: whether the arrays are compressed.
      arrays: the arrays by name.
    """
    content = io.BytesIO()  # numpy's own writing to a full disk ends in an error of zipfile
    (np.savez_compressed if compressed else np.savez)(content, **arrays)
    return write(path, content.getbuffer())


def temporary(path: Path) -> Path:
    """Returns the temporary path beside `path` that belongs to this process."""
    return path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.part")


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Removes temporary files and folders whose processes have ended, as far as this host can know that."""
    own = re.compile(rf".*\.{re.escape(socket.gethostname())}\.(\d+)\.part")
    for path in Path(folder).glob("*.part"):
        if (match := own.fullmatch(path.name)) and not _is_alive(int(match[1])):
            with contextlib.suppress(OSError):  # another process may remove it too
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@functools.cache
def _clean_once(folder: Path) -> None:
    remove_leftovers(folder)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
