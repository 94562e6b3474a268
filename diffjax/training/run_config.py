"""The config that a workdir keeps: what it was trained with, and what may change when it goes on."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from diffjax.errors import UserError, read_json, writing
from diffjax.training import restoration

_FREE_FIELDS = (
    "data.workers",
    "train.checkpoint_every",
    "train.keep",
    "train.log_every",
    "train.max_skipped",
    "train.sample_every",
    "train.wandb",
    "sample",
)
"""May change when a run goes on: they do not touch what is learned."""


def save(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> None:
    """Writes `workdir/config.json`, or, if there is one, sees that it says the same.

    Raises:
      UserError: a saved config that differs in what is learned; it names the fields.
    """
    path = Path(workdir) / "config.json"
    given = json.loads(config.to_json())
    if path.exists():
        saved, given_flat = (_flatten(c) for c in (_read(path), given))
        free = _FREE_FIELDS + (("train.steps",) if given["optimizer"]["decay"] == "constant" else ())
        different = [
            f"config.{field} is {given_flat.get(field)!r} but was {saved.get(field)!r}"
            for field in sorted(saved.keys() | given_flat.keys())
            # A field newer than the run is no difference while it is off, or as it was always.
            if saved.get(field, restoration.DEFAULTS.get(field)) != given_flat.get(field)
            and (field in saved or given_flat[field])
            and not field.startswith(free)
        ]
        if different:
            raise UserError(
                f"{workdir} holds a run with another config: {'; '.join(different)}; give the same, or a new --workdir"
            )
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(given, indent=2) + "\n")
        part.replace(path)


def load(workdir: str | os.PathLike) -> ml_collections.ConfigDict:
    """The config that a workdir was trained with.

    Raises:
      UserError: no such file, or one that cannot be read.
    """
    path = Path(workdir) / "config.json"
    return ml_collections.ConfigDict(_read(path))


def with_data(config: ml_collections.ConfigDict, changes: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The config with other fields of `config.data` and nothing held out: images that a network was not trained on.

    Raises:
      ValueError: a field that is none.
    """
    if unknown := changes.keys() - config.data.keys():
        raise ValueError(f"{min(unknown)!r} is no field of config.data; allowed are {', '.join(config.data)}")
    changed = config.copy_and_resolve_references()
    with changed.data.ignore_type():
        changed.data.update({"holdout": 0.0, **changes})
    return changed


def _read(path: Path) -> dict:
    return read_json(path, "--workdir must be a folder that train.py has written")


def _flatten(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in tree.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
