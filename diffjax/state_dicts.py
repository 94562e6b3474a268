"""Reads tensors from files: safetensors, and PyTorch's pickles without running the code in them."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from diffjax.errors import UserError

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
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)


def _begins(path: Path, start: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(start)) == start
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return {key: _widened(tensor) for key, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


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
