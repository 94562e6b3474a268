"""Weights that the user brings: whether a file is the one that is meant, and holds the tensors that are meant."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffjax.errors import UserError
from diffjax.interop import files


class Published(NamedTuple):
    """A file of PyTorch's that others have made."""

    what: str
    url: str
    size: int
    """In bytes."""
    sha256: str


def read(path: Path, published: Published, *, check_hash: bool = True) -> dict[str, np.ndarray]:
    """The state dict in a file, read without running anything in it.

    Args:
      check_hash: False takes another file than the published one.

    Raises:
      UserError: no such file (says where to get it), another one, or one that is no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"no weights of {published.what} at {path}: get them from {published.url} ({published.size:,} bytes, "
            f"sha256 {published.sha256})"
        )
    if check_hash and (found := sha256(path)) != published.sha256:
        raise UserError(
            f"{path} is not the file from {published.url}: its sha256 is {found}, must be {published.sha256}"
        )
    return files.state_dict(files.read(path), path)


def check_shapes(state: dict[str, np.ndarray], expected: dict[str, tuple[int, ...]], what: str, of: str) -> None:
    """Whether a state dict has the tensors of `expected`, by their shapes, and no other.

    Raises:
      UserError: every tensor that is missing, left over or of the wrong shape, by name.
    """
    problems = {
        "missing": [key for key in expected if key not in state],
        "left over": [key for key in state if key not in expected],
        "of the wrong shape": [
            f"{key} is {list(state[key].shape)}, must be {list(shape)}"
            for key, shape in expected.items()
            if key in state and state[key].shape != shape
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{kind}: {', '.join(sorted(keys))}" for kind, keys in problems.items() if keys)
        raise UserError(f"the tensors of {what} are not those of {of}: {listed}")


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
