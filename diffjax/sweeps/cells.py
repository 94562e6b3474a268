"""The grid of a sweep's cells, and their results, each computed once and saved when it is done.

Each cell is a file, written whole or not at all. Processes that share a folder share the sweep, and a sweep that was
stopped continues. This module does not know what a cell computes.
"""

import csv
import io
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax.errors import UserError
from diffjax.files import write, write_arrays

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
      protocol: the facts that all cells share and figures depend on, as JSON values. A folder has one protocol.

    Raises:
      UserError: a folder with another protocol.
    """

    def __init__(self, folder: str | os.PathLike, protocol: dict[str, Any]):
        self.folder, self.protocol = Path(folder) / "cells", json.loads(json.dumps(protocol))
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder.parent / "protocol.json"
        if not path.exists():
            write(path, json.dumps(self.protocol, indent=2) + "\n")
        elif (found := json.loads(path.read_text())) != self.protocol:
            fields = found.keys() | self.protocol.keys()
            different = sorted(field for field in fields if found.get(field) != self.protocol.get(field))
            raise UserError(
                f"{folder} holds a sweep with another protocol ({', '.join(different)} differ): give another --out"
            )

    def done(self, cell: Cell) -> bool:
        """Returns whether the cell has been computed with the fields that it has now."""
        saved = self._read(cell)
        return saved is not None and saved["fields"] == json.loads(json.dumps(cell.fields))

    def save(self, cell: Cell, figures: dict[str, Any], pictures: np.ndarray | None = None) -> None:
        """Saves the figures of a cell, and images, uint8 `[K, H, W, C]`, if there are any."""
        if pictures is not None:
            write_arrays(self._path(cell, "npz"), arr_0=pictures)
        record = {"labels": cell.labels, "fields": cell.fields, "figures": figures}
        write(self._path(cell), json.dumps(record, indent=2) + "\n")

    def rows(self, grid: list[Cell]) -> Iterator[Row]:
        """Yields (cell, figures) of the cells that are done."""
        for cell in grid:
            if self.done(cell):
                yield cell, self._read(cell)["figures"]

    def pictures(self, cell: Cell) -> np.ndarray | None:
        """Returns the images that were saved with a cell; None if there are none."""
        path = self._path(cell, "npz")
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as file:
            return file["arr_0"]

    def _path(self, cell: Cell, suffix: str = "json") -> Path:
        return self.folder / f"{cell.name}.{suffix}"

    def _read(self, cell: Cell) -> dict[str, Any] | None:
        path = self._path(cell)
        return json.loads(path.read_text()) if path.exists() else None


def load(folder: str | os.PathLike) -> tuple[dict[str, Any], list[Row]]:
    """Returns (protocol, rows) of a sweep, the rows in the order of its `table.csv`; rows that it lacks come last.

    Args:
      folder: the folder of the sweep.

    Raises:
      UserError: a folder without a sweep, or a sweep without a cell that is done.
    """
    folder = Path(folder)
    try:
        protocol = json.loads((folder / "protocol.json").read_text())
        saved = [json.loads(path.read_text()) for path in sorted((folder / "cells").glob("*.json"))]
        rows = [(Cell(cell["labels"], cell["fields"]), cell["figures"]) for cell in saved]
        table = folder / "table.csv"
        lines = list(csv.DictReader(io.StringIO(table.read_text()))) if table.exists() else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is not the folder of a sweep: {error}") from error
    if not rows:
        raise UserError(f"{folder}: no cell of this sweep is done")
    order = {tuple(line.get(axis) for axis in rows[0][0].labels): n for n, line in enumerate(lines)}
    return protocol, sorted(rows, key=lambda row: order.get(tuple(row[0].labels.values()), len(order)))
