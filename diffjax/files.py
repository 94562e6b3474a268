"""Writes files atomically: a process that is stopped while it writes leaves the file as it was before."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`; the file written there replaces `path`, unless an exception is raised.

    Creates the folder. The temporary name contains the process id, since several processes may write the same file.

    Args:
      path: the file to write.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write(path: str | os.PathLike, content: str | bytes) -> Path:
    """Writes `content` to `path` atomically (text as UTF-8) and returns the path.

    Args:
      path: the file to write; its folder is created.
      content: the whole content of the file.
    """
    with atomic(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)
