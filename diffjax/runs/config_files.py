"""Loads config files: Python files with a function `get_config()` that returns the fields that an experiment sets."""

import importlib
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any

import ml_collections

from diffjax.errors import UserError
from diffjax.runs.saved import add_import_folder


def load(name: str) -> ml_collections.ConfigDict:
    """Returns the fields that a config file sets; a config file calls this to start from another one.

    Args:
      name: a config of diffjax ("digits", "ablations/ddim_table1"), a file ("my_configs/faces.py"), or a module
        ("my_lab.configs.faces"); "file.py:option" passes the option to `get_config`.

    Raises:
      UserError: no such config, or one that cannot be loaded; the message names the line.
    """
    path, _, option = name.partition(".py:")
    path = f"{path}.py" if option else path
    arguments = [option] if option else []
    if path.endswith(".py"):
        return _from_file(Path(path), name, arguments)
    for folder in _folders():
        if (file := folder / f"{path}.py").is_file():
            return _from_file(file, name, arguments)
    if "." in path and path.replace(".", "").isidentifier():
        return _called(name, lambda: importlib.import_module(path).get_config(), path)
    known = ", ".join(names())
    raise UserError(f"--config={name} is not a file (…/NAME.py), a module, or one of diffjax's configs: {known}")


def names() -> list[str]:
    """Returns the names of diffjax's own configs."""
    folder = next((folder for folder in _folders() if folder.is_dir()), None)
    return sorted(file.stem for file in folder.glob("*.py")) if folder else []


def _folders() -> list[Path]:
    """Returns the folders where diffjax's configs may be: the installed package's, and the one in the repository."""
    package = Path(__file__).resolve().parents[1]
    return [package / "configs", package.parent / "configs"]


def _from_file(file: Path, name: str, arguments: list[str]) -> ml_collections.ConfigDict:
    if not file.is_file():
        raise UserError(f"--config={name} cannot be loaded: there is no file {file}")
    if file.resolve().parent not in _folders():
        add_import_folder(str(file.resolve().parent))
    return _called(name, lambda: runpy.run_path(str(file))["get_config"](*arguments), str(file))


def _called(name: str, get_config: Any, file: str) -> ml_collections.ConfigDict:
    try:
        config = get_config()
    except UserError:
        raise
    except Exception as error:  # whatever the file raises
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        where = f" (line {lines[-1]})" if lines else ""
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"--config={name} cannot be loaded: {what}{where}") from error
    if isinstance(config, dict):
        config = ml_collections.ConfigDict(config)
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"--config={name}: get_config() returns a {type(config).__name__}, not a ConfigDict")
    return config


def add_working_folder() -> None:
    """Adds the current folder to `sys.path`, as `python -m` does, so that import paths may name modules in it."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
