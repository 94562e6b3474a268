"""Import of PyTorch weights and export to diffusers.

    run = interop.load("google/ddpm-cifar10-32")  # of the Hugging Face hub, or a folder, or a file
    images = run.sample(64, seed=0)
    interop.export("digits-diffusers", runs.load("runs/digits"))

`load` reads a diffusers folder, or a file of one of four kinds, which it recognises by the names of the tensors.
"""

import inspect
import os
from pathlib import Path

from diffjax import state_dicts
from diffjax.errors import UserError
from diffjax.files import local_path
from diffjax.interop import abarankab, diffusers, hub, openai, pesser, sr3
from diffjax.runs import Run
from diffjax.runs.run import WEIGHTS
from diffjax.schedules import NoiseSchedule

__all__ = ["export", "load"]

_FILES = (pesser, openai, abarankab, sr3)
_KINDS = {
    bool: "True or False",
    str: "a string",
    str | None: "a string",
    NoiseSchedule | None: "a schedule (dj.schedules)",
}
"""The annotations of options that are checked here, and what they allow."""


@WEIGHTS.register(name="interop")
def load(path: str | os.PathLike, *, revision: str | None = None, **options) -> Run:
    """Loads the network in a diffusers folder, or in a file of pesser's, OpenAI's, abarankab's or Janspiry's code.

    The run is sampled by DDIM in 50 steps, with the timestep spacing and clipping that the network's authors used;
    `run.with_options(sampler="ddpm")` also uses their variance.

    Args:
      path: a folder or a file; or, if there is no such folder, OWNER/NAME: a repository of the Hugging Face hub, whose
        files are downloaded once (needs `.[hub]`).
      revision: the branch, tag or commit of that repository; None: its main branch.
      options: what the file does not contain: keyword arguments of `load` in the module for this kind of file.

    Raises:
      UserError: a file that cannot be read or is of another kind; an unknown, missing or invalid option; tensors that
        are missing, left over or of the wrong shape, all of which are named; a repository that cannot be downloaded.
    """
    name, path = os.fspath(path), local_path(path)
    if hub.is_name(name) and not path.exists():
        path = hub.download(name, revision=revision)
    elif revision is not None:
        raise UserError(f"revision={revision!r} must be left out: {name} is no repository of the Hugging Face hub")
    if path.is_dir():
        _check_options(diffusers, options, path)
        return diffusers.load(path, **options)
    saved = state_dicts.read(path)
    kind = next((kind for kind in _FILES if kind.recognised(saved)), None)
    if kind is None:
        raise UserError(
            f"{path} holds no network of pesser's, ermongroup's, OpenAI's, abarankab's or Janspiry's code; diffusers' "
            "networks are loaded from their folders"
        )
    _check_options(kind, options, path)
    try:
        return kind.load(saved, path, **options)
    except KeyError as error:
        raise UserError(f"{path} lacks {error}, which determines the shape of the network") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def export(folder: str | os.PathLike, run: Run, *, push: str | None = None, private: bool = False) -> Path:
    """Writes the network of a run as a folder that diffusers loads, with a model card, and returns its path.

    Args:
      folder: the folder; it must be new or empty.
      run: a trained or imported run that generates images, as `interop.diffusers.export` describes.
      push: OWNER/NAME, to upload the folder to this repository of the Hugging Face hub too (needs `.[hub]`, and the
        token of `hf auth login` or `$HF_TOKEN`).
      private: whether a repository that is made for it is private.

    Raises:
      UserError: before anything is written, an invalid `push`, or no huggingface_hub; later, a folder, network,
        schedule or sampler as `interop.diffusers.export` describes, or an upload that fails, which leaves the folder.
    """
    if push is not None:
        hub.check(push)
    written = diffusers.export(folder, run, name=push)
    if push is not None:
        hub.upload(written, push, private=private)
    return written


def _check_options(kind, options: dict, path: Path) -> None:
    parameters = inspect.signature(kind.load).parameters.values()
    hints = {
        parameter.name: parameter.annotation for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY
    }
    for name, value in options.items():
        if name not in hints:
            raise UserError(f"{name!r} is not an option for {path}: allowed are {', '.join(hints)}")
        if hints[name] in _KINDS and not isinstance(value, hints[name]):
            raise UserError(f"{path}: {name}={value!r} must be {_KINDS[hints[name]]}")
