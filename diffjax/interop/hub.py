"""Downloads networks from the Hugging Face hub, and uploads exported ones; needs the extra `hub`."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffjax.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_NAME = re.compile(r"[\w.\-]+/[\w.\-]+")
_WEIGHTS = re.compile(r"((?:unet|transformer)/)?diffusion_pytorch_model.*\.(safetensors|bin)")
_CONFIGS = re.compile(r"((?:unet|transformer|scheduler)/)?[\w.]+\.json")

_RAISE = ("huggingface_hub", "httpx", "httpx2", "requests")
"""The packages whose errors mean that the hub refused or could not be reached; which of them depends on the version."""


def is_name(text: str) -> bool:
    """Returns whether a text has the form of a repository's name, OWNER/NAME."""
    return _NAME.fullmatch(text) is not None


def download(name: str, *, revision: str | None = None) -> Path:
    """Downloads the diffusers folder of a repository into the hub's cache, and returns the path of the folder.

    Files that are in the cache already are not downloaded again. Of weights in two formats, safetensors are taken;
    pictures and autoencoders are left out.

    Args:
      name: OWNER/NAME.
      revision: a branch, a tag or a commit; None: the main branch.

    Raises:
      UserError: no such repository or revision, no connection, or a private repository without a token.
    """
    api = _api()
    with _one_line(f"{name}, revision {revision}" if revision else name):
        files = wanted(api.list_repo_files(name, revision=revision))
        if not files:
            raise UserError(f"{name}: this repository of the hub has no network of diffusers")
        return Path(api.snapshot_download(name, revision=revision, allow_patterns=files))


def wanted(files: Sequence[str]) -> list[str]:
    """Returns those files of a repository that `interop.load` reads."""
    weights = [name for name in files if _WEIGHTS.fullmatch(name)]
    safe = [name for name in weights if name.endswith(".safetensors")]
    return [*(name for name in files if _CONFIGS.fullmatch(name)), *(safe or weights)]


def check(name: str) -> None:
    """Checks, before anything is written, that a folder can be uploaded under a name.

    Raises:
      UserError: not OWNER/NAME, or no huggingface_hub.
    """
    if not is_name(name):
        raise UserError(f"push={name!r} must be OWNER/NAME, a repository of the Hugging Face hub")
    _api()


def upload(folder: Path, name: str, *, private: bool = False) -> str:
    """Uploads a folder as one commit, and returns the address of the repository, which is made if there is none.

    The token is the one of `hf auth login`, or `$HF_TOKEN`.

    Raises:
      UserError: no token, no right to write there, or no connection; the folder stays as it is.
    """
    api = _api()
    with _one_line(f"{folder} is written, but not uploaded to {name}"):
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Export from diffjax")
    return str(address)


def _api() -> "HfApi":
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise UserError("repositories of the Hugging Face hub need huggingface_hub: pip install '.[hub]'") from None
    return HfApi(library_name="diffjax")


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Reports an error of the hub, or of its connection, in one line."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _RAISE:
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{what}: {said[:300]}") from error
