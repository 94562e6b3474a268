"""Reads weights that the user provides; checks that a file is the published one and holds the expected tensors."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffjax import state_dicts
from diffjax.errors import UserError


class Published(NamedTuple):
    """A published PyTorch file."""

    what: str
    url: str
    size: int
    """In bytes."""
    sha256: str


def read(path: Path, published: Published, *, check_hash: bool = True) -> dict[str, np.ndarray]:
    """Returns the state dict in a file, which is read without running code in it.

    Args:
      path: the file.
      published: the expected file.
      check_hash: whether the file must be the published one.

    Raises:
      UserError: a missing file (the message says where to get it), another file, or one without a state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path} does not exist: get the weights of {published.what} from {published.url} "
            f"({published.size:,} bytes, sha256 {published.sha256})"
        )
    if check_hash and (found := sha256(path)) != published.sha256:
        raise UserError(f"{path} is not the file from {published.url}: its sha256 is {found}, not {published.sha256}")
    return state_dicts.state_dict(state_dicts.read(path), path)


def check_shapes(state: dict[str, np.ndarray], expected: dict[str, tuple[int, ...]], what: str, of: str) -> None:
    """Checks that a state dict has the expected tensors, and no other.

    Args:
      state: the tensors by name.
      expected: their shapes by name.
      what: the name of the state dict in error messages.
      of: the network that it should belong to.

    Raises:
      UserError: tensors that are missing, left over or of the wrong shape, by name.
    """
    problems = {
        "missing": [key for key in expected if key not in state],
        "left over": [key for key in state if key not in expected],
        "of the wrong shape": [
            f"{key} is {list(state[key].shape)}, not {list(shape)}"
            for key, shape in expected.items()
            if key in state and state[key].shape != shape
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{kind}: {', '.join(sorted(keys))}" for kind, keys in problems.items() if keys)
        raise UserError(f"the tensors of {what} are not those of {of}: {listed}")


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
