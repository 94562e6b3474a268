"""Saves and loads the config of a workdir (`config.json`), and checks what changes when training resumes."""

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from diffjax.errors import UserError, writing
from diffjax.files import to_path
from diffjax.json_files import read_record, write_record
from diffjax.runs import resolve, upgrade

FREE_FIELDS = (
    "imports",
    "data.num_workers",
    "train.checkpoint_every",
    "train.final_pictures",
    "train.log_every",
    "train.max_nonfinite_steps",
    "train.max_to_keep",
    "train.shard_optimizer",
    "train.sample_every",
    "train.wandb",
    "sample",
)
"""Fields that may change when a run resumes: they do not affect what is learned, or only by rounding."""


def save(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> None:
    """Writes `workdir/config.json`; if the file exists, first checks that it holds the same config.

    Raises:
      UserError: a saved config that differs in a field that affects what is learned; the message names the fields.
    """
    path = to_path(workdir) / "config.json"
    if path.exists():
        _check_same(load(workdir), config, workdir)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_record(path, resolve.to_dict(config))


def load(workdir: str | os.PathLike) -> ml_collections.ConfigDict:
    """Returns the resolved config of a workdir, upgraded if an earlier version wrote it.

    Raises:
      UserError: no such file, one that cannot be read, or an invalid config.
    """
    path = to_path(workdir) / "config.json"
    config = read_record(path, "--workdir must be a folder that `diffjax train` has written")
    imports = config.get("imports")
    for folder in imports if isinstance(imports, list) else ():  # `resolve` reports another type
        if isinstance(folder, str):
            add_import_folder(folder)
    try:
        return resolve.resolve(upgrade.upgrade(config))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def with_data(config: ml_collections.ConfigDict, changes: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """Returns the config with fields of `config.data` changed and nothing held out, for images not trained on.

    Raises:
      UserError: an unknown field, or an invalid value.
    """
    return resolve.override(config, {"data.holdout": 0.0} | {f"data.{name}": value for name, value in changes.items()})


def with_imports(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config with `imports` extended by the folders of its import paths' modules that are not installed.

    A workdir keeps these folders, so that every command finds the same modules from any folder.
    """
    folders = list(config.imports)
    for value in resolve.flatten(config).values():
        if not (isinstance(value, str) and ":" in value and (module := value.partition(":")[0]) in sys.modules):
            continue
        file = getattr(sys.modules[module], "__file__", None)
        if file is None:
            continue
        root = Path(file).resolve().parents[module.count(".") + (Path(file).name == "__init__.py")]
        if not _is_installed(root) and str(root) not in folders:
            folders.append(str(root))
    return resolve.override(config, {"imports": tuple(folders)})


def add_import_folder(folder: str) -> None:
    """Appends a folder to the places where Python looks for modules."""
    if folder not in sys.path:
        sys.path.append(folder)


def _is_installed(root: Path) -> bool:
    """Returns whether a folder is that of diffjax itself or of installed packages."""
    library = Path(importlib.util.find_spec("diffjax").origin).resolve().parents[1]
    return root == library or any(part in ("site-packages", "dist-packages") for part in root.parts)


def _check_same(found: ml_collections.ConfigDict, given: ml_collections.ConfigDict, workdir: str | os.PathLike) -> None:
    before, after = (resolve.flatten(config) for config in (found, given))
    free = FREE_FIELDS + (("train.steps",) if after.get("optimizer.lr_schedule") == "constant" else ())
    different = [
        f"config.{field} is {after.get(field)!r} but was {before.get(field)!r}"
        for field in sorted(before.keys() | after.keys())
        if before.get(field) != after.get(field) and not field.startswith(free)
    ]
    if different:
        more = "train.steps" not in free and before.get("train.steps") != after.get("train.steps")
        raise UserError(
            f"{workdir} holds a run with another config: {'; '.join(different)}; give the same, or a new --workdir"
            + (" (train.steps may change with config.optimizer.lr_schedule='constant' alone)" if more else "")
        )
