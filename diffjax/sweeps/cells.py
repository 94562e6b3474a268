"""The grid of a sweep's cells, and their results, each computed once and saved when it is done.

Each cell is a file, written whole or not at all. Processes that share a folder share the sweep, and a sweep that was
stopped continues. This module does not know what a cell computes.
"""

import csv
import io
import itertools
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax.errors import UserError
from diffjax.files import local_path, read_npz, remove_leftovers, write_arrays
from diffjax.json_files import read_record, write_record

Axes = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Axis → label → the fields that it sets, with the labels in the order of tables."""


class Cell(NamedTuple):
    """One point of the grid."""

    labels: dict[str, str]
    """Axis → label."""
    fields: dict[str, Any]
    """The fields that the labels set; later axes override earlier ones."""

    @property
    def name(self) -> str:
        """The name of its file, without the suffix."""
        return ",".join(f"{axis}={label}" for axis, label in self.labels.items()).replace("/", "_")


Row = tuple[Cell, dict[str, Any]]
"""A cell and its figures."""


def cells(axes: Axes, *, skip: tuple[Mapping[str, str], ...] = ()) -> list[Cell]:
    """Returns a cell for every combination of the axes' labels; the last axis changes fastest.

    Args:
      axes: at least one axis, each with at least one label.
      skip: axis → label; cells that have all labels of an entry are left out.

    Raises:
      UserError: no axis, an axis without labels, or a `skip` with an unknown axis or label.
    """
    if not axes or not all(axes.values()):
        raise UserError(f"config.axes={dict(axes)} must have axes, and each axis labels")
    for labels in skip:
        for axis, label in labels.items():
            if label not in axes.get(axis, ()):
                raise UserError(f"config.skip: {axis}={label!r} is not one of the sweep's axes and labels")
    found = []
    for choice in itertools.product(*(options.items() for options in axes.values())):
        labels = dict(zip(axes, (label for label, _ in choice), strict=True))
        if any(labels.items() >= left_out.items() for left_out in skip):
            continue
        found.append(Cell(labels, {name: value for _, fields in choice for name, value in fields.items()}))
    return found


def shard(grid: list[Cell], text: str) -> list[Cell]:
    """Returns the cells of one task of a job array.

    Args:
      grid: all cells.
      text: "k/n", for every n-th cell, from cell k, with k = 0 … n-1.

    Raises:
      UserError: an invalid text.
    """
    k, slash, n = text.partition("/")
    if not (slash and k.isdecimal() and n.isdecimal() and int(k) < int(n)):
        raise UserError(f"--shard={text!r} must be 'k/n' with k = 0 … n-1")
    return grid[int(k) :: int(n)]


class Results:
    """The results of a sweep, in the folder `FOLDER/cells`.

    Args:
      folder: the folder of the sweep.
      protocol: the facts that all cells share and figures depend on, as JSON values. A folder with a finished cell has
        one protocol, in `FOLDER/protocol.json`.

    Raises:
      UserError: a folder whose cells have another protocol, or one that cannot be read.
    """

    def __init__(self, folder: str | os.PathLike, protocol: dict[str, Any]):
        self.folder, self.protocol = local_path(folder) / "cells", json.loads(json.dumps(protocol))
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        if self._has_cells():
            self._check_protocol()

    def done(self, cell: Cell) -> bool:
        """Returns whether the cell has been computed with the fields that it has now, and its file is whole."""
        saved = self._read(cell)
        return saved is not None and saved["fields"] == json.loads(json.dumps(cell.fields))

    def save(self, cell: Cell, figures: dict[str, Any], pictures: np.ndarray | None = None) -> None:
        """Saves the figures of a cell, and images, uint8 `[K, H, W, C]`, if there are any; the first also the protocol.

        Raises:
          UserError: another process has saved cells of another protocol meanwhile.
        """
        if self._has_cells():
            self._check_protocol()
        else:
            write_record(self._protocol_path, self.protocol)
        if pictures is not None:
            write_arrays(self._path(cell, "npz"), arr_0=pictures)
        write_record(self._path(cell), {"labels": cell.labels, "fields": cell.fields, "figures": figures})

    def rows(self, grid: list[Cell]) -> Iterator[Row]:
        """Yields (cell, figures) of the cells that are done."""
        for cell in grid:
            if self.done(cell):
                yield cell, self._read(cell)["figures"]

    def pictures(self, cell: Cell) -> np.ndarray | None:
        """Returns the images that were saved with a cell; None if there are none, or if they are damaged."""
        path = self._path(cell, "npz")
        if not path.exists():
            return None
        try:
            return read_npz(path, ["arr_0"])["arr_0"]
        except ValueError:
            warnings.warn(f"{path} is damaged: images.png is made without it", stacklevel=2)
            return None

    @property
    def _protocol_path(self) -> Path:
        return self.folder.parent / "protocol.json"

    def _has_cells(self) -> bool:
        return any(self.folder.glob("*.json"))

    def _check_protocol(self) -> None:
        """Checks that the cells in the folder have the protocol of this sweep.

        Raises:
          UserError: they have another one, or it cannot be read.
        """
        found = read_record(self._protocol_path, "the cells in this folder may be of another sweep: give another --out")
        if found != self.protocol:
            fields = found.keys() | self.protocol.keys()
            different = sorted(field for field in fields if found.get(field) != self.protocol.get(field))
            raise UserError(
                f"{self.folder.parent} holds a sweep with another protocol ({', '.join(different)} differ): give "
                "another --out"
            )

    def _path(self, cell: Cell, suffix: str = "json") -> Path:
        return self.folder / f"{cell.name}.{suffix}"

    def _read(self, cell: Cell) -> dict[str, Any] | None:
        path = self._path(cell)
        return _record(path) if path.exists() else None


def load(folder: str | os.PathLike) -> tuple[dict[str, Any], list[Row]]:
    """Returns (protocol, rows) of a sweep, the rows in the order of its `table.csv`; rows that it lacks come last.

    Args:
      folder: the folder of the sweep.

    Raises:
      UserError: a folder without a sweep, a sweep without a cell that is done, or a file that cannot be read.
    """
    folder = local_path(folder)
    if not (folder / "cells").is_dir():
        raise UserError(f"{folder} is not the folder of a sweep: it has no folder `cells`")
    rows = []
    for path in sorted((folder / "cells").glob("*.json")):
        if (saved := _record(path)) is None or (rows and saved["labels"].keys() != rows[0][0].labels.keys()):
            raise UserError(f"cannot read {path}: it is damaged; `diffjax ablate` computes it again")
        rows.append((Cell(saved["labels"], saved["fields"]), saved["figures"]))
    if not rows:
        raise UserError(f"{folder}: no cell of this sweep is done")
    order = {tuple(line.get(axis) for axis in rows[0][0].labels): n for n, line in enumerate(_lines(folder))}
    protocol = read_record(folder / "protocol.json", f"{folder} is not the folder of a sweep")
    return protocol, sorted(rows, key=lambda row: order.get(tuple(row[0].labels.values()), len(order)))


def _record(path: Path) -> dict[str, Any] | None:
    """Returns what `Results.save` wrote to a file; None if it is damaged."""
    try:
        found = read_record(path, "")
    except UserError:
        return None
    record = {name: found.get(name) for name in ("labels", "fields", "figures")}
    if not all(isinstance(value, dict) for value in record.values()):
        return None
    labels = record["labels"].values()
    return record if labels and all(isinstance(label, str) for label in labels) else None


def _lines(folder: Path) -> list[dict[str, str]]:
    """Returns the lines of `table.csv`; [] if it is missing or damaged."""
    try:
        return list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))
    except (OSError, ValueError, csv.Error):
        return []
