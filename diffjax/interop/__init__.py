"""Weights in from PyTorch, and out to it.

net = interop.load("ddpm-cifar10-32/")  # a folder, or a file: which of five kinds it is, its names tell
x0 = dj.sample(steps, net.predict(), x_T, clip=net.settings.clip)
"""

import inspect
import os
from pathlib import Path

from diffjax.errors import UserError
from diffjax.interop import abarankab, diffusers, files, openai, pesser, sr3
from diffjax.interop.diffusers import export
from diffjax.interop.pretrained import Pretrained, Settings

__all__ = ["Pretrained", "Settings", "export", "load"]

_FILES = (pesser, openai, abarankab, sr3)


def load(path: str | os.PathLike, **options) -> Pretrained:
    """The network in a diffusers folder, or in a file of pesser's, OpenAI's, abarankab's or Janspiry's code.

    Args:
      path: a folder or a file.
      options: what the file does not say, by the names in `load` of that kind's module.

    Raises:
      UserError: what cannot be read or is none of these; an option that is unknown, missing or cannot be; tensors that
        are missing, left over or of the wrong shape, all named.
    """
    path = Path(path)
    if path.is_dir():
        _check_options(diffusers, options, path)
        return diffusers.load(path)
    saved = files.read(path)
    kind = next((kind for kind in _FILES if kind.recognised(saved)), None)
    if kind is None:
        raise UserError(f"{path} holds no network of pesser's, ermongroup's, OpenAI's, abarankab's or Janspiry's code")
    _check_options(kind, options, path)
    try:
        return kind.load(saved, path, **options)
    except KeyError as error:
        raise UserError(f"{path} lacks {error}, without which the network's shape cannot be told") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _check_options(kind, options: dict, path: Path) -> None:
    allowed = list(inspect.signature(kind.load).parameters)[2:]
    if unknown := [name for name in options if name not in allowed]:
        known = f"allowed are {', '.join(allowed)}" if allowed else "there is none"
        raise UserError(f"{unknown[0]!r} is no option for {path}: {known}")
