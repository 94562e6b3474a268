"""Paths in buckets of Google Cloud Storage (gs://BUCKET/…), by `etils.epath` and gcsfs.

An object is written whole: a process that is stopped meanwhile leaves the one that was there before.
"""

import contextlib
import errno
import functools
import importlib.util
import os
from collections.abc import Iterator

# epath would import TensorFlow where that is installed, whose errors are no `OSError` and which takes the accelerator.
os.environ.setdefault("EPATH_USE_TF", "false")

from etils.epath.backend import fsspec_backend
from etils.epath.gpath import PosixGPath

from diffjax.errors import UserError


class BucketPath(PosixGPath):
    """A path in a bucket, with the methods of `pathlib.Path`; reading and writing raise `OSError` alone."""

    def resolve(self, strict: bool = False) -> "BucketPath":
        """Returns the path itself: it is absolute."""
        return self

    def exists(self) -> bool:
        """Returns whether there is such an object, or one in a folder of this name."""
        with _os_errors(self):
            return super().exists()

    def read_bytes(self) -> bytes:
        """Returns the content of the object."""
        with _os_errors(self):
            return super().read_bytes()

    def read_text(self, encoding: str | None = None) -> str:
        """Returns the content of the object, which is UTF-8."""
        return self.read_bytes().decode()

    def write_bytes(self, data: bytes) -> int:
        """Writes the object."""
        with _os_errors(self):
            return super().write_bytes(data)

    def rename(self, target: str | os.PathLike) -> "BucketPath":
        """Moves an object, or all those of a folder one by one."""
        target = BucketPath(target)
        with _os_errors(self):
            fsspec_backend.fs(self).mv(str(self), str(target), recursive=True)
        return target


def path(text: str) -> BucketPath:
    """Returns the path that `gs://BUCKET/…` names.

    Raises:
      UserError: no name of a bucket, no gcsfs, or a bucket that cannot be reached.
    """
    found = BucketPath(text)
    if len(found.parts) < 3:
        raise UserError(f"{text} names no bucket: gs://BUCKET/FOLDER does")
    _check_reachable(found.parts[2])
    return found


@functools.cache
def _check_reachable(bucket: str) -> None:
    """Asks for an object of the bucket once, so that missing rights are told before anything is done."""
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(
            f"gs://{bucket} needs the package gcsfs: pip install 'diffjax[gcs]', or mount the bucket as a folder "
            "(gcsfuse)"
        )
    place = BucketPath(f"gs://{bucket}/x")
    try:
        place.exists()
    except OSError as error:
        raise UserError(f"cannot reach gs://{bucket}: {error.strerror or error}") from error


@contextlib.contextmanager
def _os_errors(path: BucketPath) -> Iterator[None]:
    """Turns the errors of gcsfs and of what it is built on, which are of many types, into an `OSError`."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        raise OSError(errno.EIO, text.splitlines()[0], str(path)) from error
