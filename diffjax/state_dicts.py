"""Reads tensors from files: safetensors, and PyTorch's pickles without running the code in them; writes the former."""

import pickle
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from diffjax.errors import UserError

_CHECKSUM = "diffjax_checksum"
"""The name of the checksum in the metadata of a safetensors file."""
_WIDENED = ("float16", "bfloat16")
_LFS = b"version https://git-lfs.github.com/spec/"


def read(path: Path) -> Any:
    """Reads a file, with its tensors as NumPy arrays (half precision widened to float32).

    A `.safetensors` file gives a dict; a PyTorch file, always read with `weights_only=True`, gives the saved object.

    Raises:
      UserError: a file that does not exist, is damaged or holds code, or a git-LFS pointer; or PyTorch is needed but
        not installed.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    if _begins(path, _LFS):
        raise UserError(f"{path} is a git-LFS pointer and not the file itself: run `git lfs pull` in its repository")
    if path.suffix == ".safetensors":
        return {key: _widened(tensor) for key, tensor in read_safetensors(path)[0].items()}
    return _read_torch(path)


def _begins(path: Path, start: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(start)) == start
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def to_safetensors(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Returns the content of a safetensors file, whose metadata also hold a checksum of the tensors and the metadata.

    Args:
      tensors: the tensors by name.
      metadata: texts by name.
    """
    return save(dict(tensors), {**metadata, _CHECKSUM: _checksum(tensors, metadata)})


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the tensors and the metadata of a safetensors file; the checksum of `to_safetensors` is compared.

    Raises:
      UserError: a file that cannot be read, or whose checksum differs.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    found = metadata.pop(_CHECKSUM, None)
    if found is not None and found != _checksum(tensors, metadata):
        raise UserError(f"cannot read {path}: it is damaged (its checksum differs)")
    return tensors, metadata


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the metadata of a safetensors file alone; {} where it cannot be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def _checksum(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    total = zlib.crc32(repr(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        total = zlib.crc32(f"{name} {tensor.shape} {tensor.dtype}".encode(), total)
        total = zlib.crc32(tensor.view(np.uint8).data, total)
    return str(total)


def _read_torch(path: Path) -> Any:
    try:
        import torch
    except ImportError:
        raise UserError(f"{path} is a PyTorch file: install PyTorch to read it (pip install torch)") from None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} is refused: it holds more than tensors and plain containers, or is not a PyTorch file ({reason})"
        ) from error
    except Exception as error:  # for damaged files PyTorch raises RuntimeError, EOFError, KeyError and others
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot read {path}: {reason}") from error
    return _as_numpy(saved, torch)


def _as_numpy(value: Any, torch: Any) -> Any:
    if isinstance(value, torch.Tensor):
        half = value.dtype in (torch.float16, torch.bfloat16)
        return (value.float() if half else value).detach().numpy()
    if isinstance(value, dict):
        return {key: _as_numpy(item, torch) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_numpy(item, torch) for item in value]
    return value


def _widened(tensor: np.ndarray) -> np.ndarray:
    return tensor.astype(np.float32) if tensor.dtype.name in _WIDENED else tensor


def state_dict(value: Any, path: Path) -> dict[str, np.ndarray]:
    """Returns `value` if it is a state dict.

    Raises:
      UserError: anything else.
    """
    if not isinstance(value, dict) or not value:
        raise UserError(f"{path} holds a {type(value).__name__}, not a state dict")
    if odd := [str(key) for key, item in value.items() if not isinstance(item, np.ndarray)]:
        raise UserError(f"{path} holds values that are not tensors: {', '.join(odd)}")
    return value


def under(state: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Returns the tensors whose names begin with `prefix`, keyed by the rest of their names."""
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def count(state: dict[str, Any], pattern: str) -> int:
    """Returns the number of distinct strings that the group of `pattern` captures at the start of the names."""
    return len({found[1] for key in state if (found := re.match(pattern, key))})
