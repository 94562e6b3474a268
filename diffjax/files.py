"""Turns text into paths, writes files atomically, and reads npz files, whatever they hold, with errors of one line.

A process that is stopped while it writes leaves the file as it was before. Files may lie in a bucket (gs://…), where
each is one object.
"""

import contextlib
import functools
import io
import os
import re
import shutil
import socket
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from diffjax.errors import UserError

_CONTENTS = {
    b"version https://git-lfs": "a git-LFS pointer in place of the file, which `git lfs pull` fetches",
    b"\x93NUMPY": "a single array (.npy); np.savez(FILE, x_train=np.load(FILE)) makes an npz file of it",
    b"\x80": "a pickle, which is not read: it could run any code",
    b"\x1f\x8b": "a gzip file, which must be unpacked",
    b"PK": "a zip file",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
}
"""What a file is, by the bytes with which it begins, in lower case for letters."""

_ZIP_END = 22 + 65535
"""The largest number of bytes of the record at the end of a zip file."""


def to_path(path: str | os.PathLike) -> Path:
    """Returns the path of a file or folder on this machine, or in a bucket for gs://BUCKET/….

    A path in a bucket is no `pathlib.Path` but has its methods (`buckets.BucketPath`).

    Raises:
      UserError: another kind of address (s3://…), a bucket that cannot be reached, or no gcsfs.
    """
    text = os.fspath(path)
    if found := re.fullmatch(r"gs:/+(.*)", text):  # pathlib makes gs:/ of gs://
        from diffjax import buckets

        return cast(Path, buckets.path(f"gs://{found[1]}"))
    return local_path(path)


def local_path(path: str | os.PathLike) -> Path:
    """Returns the path of a file or folder on this machine.

    Raises:
      UserError: an address (gs://…, s3://…).
    """
    text = os.fspath(path)
    if re.match(r"\w+://|gs:/", text):
        raise UserError(
            f"{text!r} must be on this machine: mount the bucket as a folder (gcsfuse, s3fs), and give that"
        )
    return Path(path)


def in_bucket(path: Path) -> bool:
    """Returns whether a path that `to_path` returned lies in a bucket."""
    return os.fspath(path).startswith("gs://")


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`; the file written there replaces `path`, unless an exception is raised.

    Creates the folder, and removes what killed processes left half-written in it. The temporary name contains the
    process id, since several processes may write the same file. For a path in a bucket, the temporary path is in a
    temporary folder of this machine.

    Args:
      path: the file to write.
    """
    path = to_path(path)
    if in_bucket(path):
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / path.name
            yield part
            path.write_bytes(part.read_bytes())
        return
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
    return to_path(path)


def upload(folder: Path, target: Path) -> None:
    """Copies the files of a folder of this machine, and of those in it, into a folder of a bucket."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            (target / file.relative_to(folder).as_posix()).write_bytes(file.read_bytes())


def remove(folder: Path) -> None:
    """Removes a folder; it is renamed first, so that a process that is stopped meanwhile leaves no half of it.

    In a bucket nothing can be renamed at once: there, such a process leaves some of its objects.
    """
    if in_bucket(folder):
        cast(Any, folder).rmtree()
    else:
        shutil.rmtree(folder.rename(temporary(folder)))


def describe_content(path: str | os.PathLike) -> str | None:
    """Returns what a file is, from its first bytes ("a web page"); None if that is not known.

    Raises:
      OSError: a file that cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        return "empty"
    heads = head, head.lstrip().lower()
    return next((text for first, text in _CONTENTS.items() if any(each.startswith(first) for each in heads)), None)


def read_npz(path: str | os.PathLike, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Returns the arrays of an npz file, by name. Pickled objects are never loaded.

    Args:
      path: the file.
      names: the names of the arrays to read; None for all.

    Raises:
      ValueError: no such file, one that is damaged or no npz file, a name that it does not have, or an array of Python
        objects.
    """
    path = to_path(path)
    if not path.is_file():
        raise ValueError(f"path={str(path)!r} must be an existing file")
    with _local_copy(path) as local, _opened_npz(local, path) as archive:
        found = list(archive.files)
        for name in names or ():
            if name not in found:
                raise ValueError(f"{name!r} is not in {path}; it has {', '.join(map(repr, found)) or 'no arrays'}")
        return {name: _read_array(archive, name, path) for name in (found if names is None else names)}


@contextlib.contextmanager
def _local_copy(path: Path) -> Iterator[Path]:
    """Yields the path itself, or that of a temporary copy of an object in a bucket."""
    if not in_bucket(path):
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix=path.suffix) as copy:
        try:
            copy.write(path.read_bytes())
            copy.flush()
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error}") from error
        yield Path(copy.name)


def _opened_npz(local: Path, path: Path) -> np.lib.npyio.NpzFile:
    """Opens an npz file; errors name `path`."""
    try:
        if zipfile.is_zipfile(local):
            archive = np.load(local, allow_pickle=False)
            if _num_members(local) not in (len(archive.zip.infolist()), 0xFFFF):
                archive.close()
                raise ValueError("its list of arrays is damaged")
            return archive
        reason = _why_no_zip(local)
    except Exception as error:  # numpy and zipfile raise many kinds, by what is damaged
        raise ValueError(f"cannot read {path}: {_first_line(error)}") from error
    raise ValueError(f"cannot read {path}, which is not an npz file: {reason}")


def _num_members(path: str | os.PathLike) -> int:
    """Returns the number of members that the end of a zip file states; zipfile does not compare it."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - _ZIP_END))
        content = file.read()
    return int.from_bytes(content[content.rfind(b"PK\x05\x06") :][10:12], "little")


def _why_no_zip(path: str | os.PathLike) -> str:
    content = describe_content(path)
    if content == _CONTENTS[b"PK"]:
        return "its end is missing, as after a download or a copy that was stopped"
    return "np.savez writes such files" if content is None else f"it is {content}"


def _read_array(archive: np.lib.npyio.NpzFile, name: str, path: str | os.PathLike) -> np.ndarray:
    """Returns an array of an npz file.

    Raises:
      ValueError: an array that is damaged, or that holds Python objects.
    """
    member = f"{name}.npy"
    if member not in archive.zip.namelist():
        raise ValueError(f"cannot read {name!r} of {path}: it is not an array; np.savez writes npz files")
    try:
        with archive.zip.open(member) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            # Only at the end of the member is its checksum compared.
            if file.read(1):
                raise ValueError("it is longer than its header says")
    except Exception as error:  # numpy and zipfile raise many kinds, by what is damaged
        text = _first_line(error)
        if "allow_pickle" in text:
            text = f"it holds Python objects; {name} = np.stack(list({name})) makes an array of images of one size"
        raise ValueError(f"cannot read {name!r} of {path}: {text}") from error
    return array


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


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
    if in_bucket(to_path(folder)):  # where none are left
        return
    own = re.compile(rf".*\.{re.escape(socket.gethostname())}\.(\d+)\.part")
    for path in Path(folder).glob("*.part"):
        if (match := own.fullmatch(path.name)) and not is_alive(int(match[1])):
            with contextlib.suppress(OSError):  # another process may remove it too
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@functools.cache
def _clean_once(folder: Path) -> None:
    remove_leftovers(folder)


def is_alive(process: int) -> bool:
    """Returns whether this machine runs a process of this id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
