"""Keeps batches of samples on disk until all are done, so that sampling resumes after an interruption."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffjax.errors import UserError
from diffjax.files import read_npz, remove, write_arrays
from diffjax.json_files import read_record, write_record


class Parts:
    """The folder of the batches of some samples, one file each.

    Each file carries a digest of what identifies the samples, so that a batch of other samples, or one that is damaged,
    counts as missing.

    Args:
      folder: the folder; `claim` makes it.
      identity: JSON values that determine the samples, such as their seed and a `digest` of the parameters.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]):
        self._folder = folder
        self._identity = json.loads(json.dumps(identity))
        self._digest = hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode()).hexdigest()

    def claim(self) -> None:
        """Makes the folder and writes what identifies its samples.

        Raises:
          UserError: the folder holds batches of other samples; the message names what differs.
        """
        path = self._folder / "run.json"
        if (found := _read(path)) not in (None, self._identity):
            names = found.keys() | self._identity.keys()
            different = sorted(name for name in names if self._identity.get(name) != found.get(name))
            raise UserError(
                f"{self._folder} holds parts of another run ({', '.join(different)} differ): finish that one, remove "
                "the folder, or give another --out"
            )
        write_record(path, self._identity)

    def done(self, starts: Iterable[int]) -> set[int]:
        """Returns those of the batches, by their first sample, that are on disk and whole."""
        return {start for start in starts if self._load(start) is not None}

    def save(self, start: int, images: np.ndarray) -> None:
        """Saves the batch that begins with sample `start`."""
        write_arrays(self._path(start), compressed=False, images=images, digest=self._digest)

    def load(self, starts: Iterable[int]) -> np.ndarray:
        """Returns the images of batches, in one array.

        Raises:
          UserError: a batch is missing or damaged.
        """
        batches = {start: self._load(start) for start in starts}
        if missing := [start for start, images in batches.items() if images is None]:
            raise UserError(f"cannot read {self._path(missing[0])}: run the same command again, which samples it again")
        return np.concatenate(list(batches.values()))

    def remove(self) -> None:
        """Removes the folder."""
        remove(self._folder)

    def _load(self, start: int) -> np.ndarray | None:
        try:
            found = read_npz(self._path(start), ["images", "digest"])
        except ValueError:
            return None
        return found["images"] if str(found["digest"]) == self._digest else None

    def _path(self, start: int) -> Path:
        return self._folder / f"{start:09d}.npz"


def digest(params: Any) -> str:
    """Returns a digest of parameters: of their names, shapes, dtypes and values."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.ascontiguousarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        found.update(array.view(np.uint8).data)
    return found.hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    """Returns what identifies the samples of a folder; None where nothing does, or what does is damaged."""
    try:
        return read_record(path, "")
    except UserError:
        return None
