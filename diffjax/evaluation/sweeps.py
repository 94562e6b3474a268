"""Sweeps: a grid of cells, each computed once and saved when done, whoever computes it and however often it stops.

A cell is a file of its own, written whole or not at all: processes that share a folder share the sweep, and a sweep
that was killed goes on. Nothing here knows what a cell computes.
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

Axes = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Axis → label → the fields that it sets; labels in the order in which tables have them."""


HIGHER_IS_BETTER = ("accuracy",)
"""Figures of which the highest is the best; of all others it is the lowest."""


class Cell(NamedTuple):
    """One point of the grid."""

    labels: dict[str, str]
    """Axis → label."""
    fields: dict[str, Any]
    """What the labels set, later axes over earlier ones."""

    @property
    def name(self) -> str:
        """As its file is called."""
        return ",".join(f"{axis}={label}" for axis, label in self.labels.items()).replace("/", "_")


Row = tuple[Cell, dict[str, Any]]
"""A cell and its figures."""


def cells(axes: Axes, *, skip: tuple[Mapping[str, str], ...] = ()) -> list[Cell]:
    """Every combination of the axes' labels, the last axis running fastest.

    Args:
      axes: at least one, each with at least one label.
      skip: labels of cells that are left out: a cell that has all of them.

    Raises:
      UserError: no axis, an axis without labels, or a `skip` that names what there is not.
    """
    if not axes or not all(axes.values()):
        raise UserError(f"config.axes: {dict(axes)} must have axes, and each of them labels")
    for labels in skip:
        for axis, label in labels.items():
            if label not in axes.get(axis, ()):
                raise UserError(f"config.skip: {axis}={label!r} is none of the sweep's axes and labels")
    found = []
    for choice in itertools.product(*(options.items() for options in axes.values())):
        labels = dict(zip(axes, (label for label, _ in choice), strict=True))
        if any(labels.items() >= left_out.items() for left_out in skip):
            continue
        found.append(Cell(labels, {name: value for _, fields in choice for name, value in fields.items()}))
    return found


def shard(grid: list[Cell], text: str) -> list[Cell]:
    """The cells of one task of an array: "k/n" has every n-th, from the k-th, k = 0 … n-1.

    Raises:
      UserError: another text.
    """
    k, slash, n = text.partition("/")
    if not (slash and k.isdecimal() and n.isdecimal() and int(k) < int(n)):
        raise UserError(f"--shard={text!r} must be k/n with k = 0 … n-1")
    return grid[int(k) :: int(n)]


class Results:
    """The folder `FOLDER/cells` and what is in it.

    Args:
      folder: of the sweep.
      protocol: what all its cells share, JSON-able: what makes a figure that figure. A folder belongs to one.

    Raises:
      UserError: a folder of another protocol.
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
        """Whether the cell has been computed, with the fields that it has now."""
        saved = self._read(cell)
        return saved is not None and saved["fields"] == json.loads(json.dumps(cell.fields))

    def save(self, cell: Cell, figures: dict[str, Any], pictures: np.ndarray | None = None) -> None:
        """Saves a cell's figures, and images uint8 `[K, H, W, C]` beside them if there are any."""
        if pictures is not None:
            content = io.BytesIO()
            np.savez_compressed(content, pictures)
            write(self._path(cell, "npz"), content.getvalue())
        record = {"labels": cell.labels, "fields": cell.fields, "figures": figures}
        write(self._path(cell), json.dumps(record, indent=2) + "\n")

    def rows(self, grid: list[Cell]) -> Iterator[Row]:
        """(cell, its figures) of those that are done."""
        for cell in grid:
            if self.done(cell):
                yield cell, self._read(cell)["figures"]

    def pictures(self, cell: Cell) -> np.ndarray | None:
        """The images that were saved with a cell."""
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
    """(protocol, rows) of a sweep's folder, the rows in the order of its `table.csv`; those not in it come last.

    Raises:
      UserError: no folder of a sweep, or one without a cell that is done.
    """
    folder = Path(folder)
    try:
        protocol = json.loads((folder / "protocol.json").read_text())
        saved = [json.loads(path.read_text()) for path in sorted((folder / "cells").glob("*.json"))]
        rows = [(Cell(cell["labels"], cell["fields"]), cell["figures"]) for cell in saved]
        table = folder / "table.csv"
        lines = list(csv.DictReader(io.StringIO(table.read_text()))) if table.exists() else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is no folder that ablate.py has written: {error}") from error
    if not rows:
        raise UserError(f"{folder}: no cell of this sweep is done")
    order = {tuple(line.get(axis) for axis in rows[0][0].labels): n for n, line in enumerate(lines)}
    return protocol, sorted(rows, key=lambda row: order.get(tuple(row[0].labels.values()), len(order)))


def to_csv(rows: list[Row]) -> str:
    """A line a cell: its labels, then its figures."""
    columns = [*rows[0][0].labels, *dict.fromkeys(name for _, figures in rows for name in figures)]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for cell, figures in rows:
        writer.writerow({**cell.labels, **figures})
    return out.getvalue()


class Pivot(NamedTuple):
    """One figure as a table: the first axis goes across, the others go down."""

    header: list[str]
    body: list[list[str]]
    """Each row opens with its labels; a cell that is not done is empty."""
    best: set[tuple[int, int]]
    """(row, column) in the body of the best value of each column, where there are several rows."""


def pivot(rows: list[Row], figure: str) -> Pivot:
    """A figure of `rows`, at least one of which has it; shown with its error where there is one beside it.

    The error of `bound` is `bound_error`; `kernel_floor`, what as many real images get, is a last row.
    """
    across, *down = rows[0][0].labels
    columns = list(dict.fromkeys(cell.labels[across] for cell, _ in rows))
    values: dict[tuple[str, ...], dict[str, float]] = {}
    errors: dict[tuple[str, ...], str] = {}
    floors: dict[str, float] = {}
    for cell, figures in rows:
        if figure in figures:
            line, column = tuple(cell.labels[axis] for axis in down), cell.labels[across]
            values.setdefault(line, {})[column] = figures[figure]
            if f"{figure}_error" in figures:
                errors[*line, column] = f" ± {figures[f'{figure}_error']:.2g}"
            if f"{figure}_floor" in figures:
                floors.setdefault(column, figures[f"{figure}_floor"])
    pick = max if figure in HIGHER_IS_BETTER else min
    peak = {column: pick((row[column] for row in values.values() if column in row), default=None) for column in columns}
    body, best = [], set()
    for i, (labels, row) in enumerate(values.items()):
        shown = {column: f"{value:.4g}{errors.get((*labels, column), '')}" for column, value in row.items()}
        body.append([" · ".join(labels), *(shown.get(column, "") for column in columns)])
        best |= {(i, j) for j, column in enumerate(columns, 1) if column in row and row[column] == peak[column]}
    best = best if len(body) > 1 else set()
    if floors:
        body.append(["real images", *(f"{floors[column]:.4g}" if column in floors else "" for column in columns)])
    header = [f"{' · '.join(down) or figure} \\ {across}", *columns]
    return Pivot(header, body, best)


def to_markdown(rows: list[Row], figure: str) -> str:
    """`pivot` as a Markdown table, the best of each column in bold."""
    header, body, best = pivot(rows, figure)
    shown = [[f"**{text}**" if (i, j) in best else text for j, text in enumerate(line)] for i, line in enumerate(body)]
    lines = [f"| {' | '.join(line)} |\n" for line in (header, *shown)]
    return "".join([lines[0], "|---" * len(header) + "|\n", *lines[1:]])


def to_lines(rows: list[Row]) -> str:
    """A Markdown table with a line a cell: its labels, then its figures; "none" for None."""
    columns = [*rows[0][0].labels, *rows[0][1]]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for cell, figures in rows:
        values = [f"{value:.4g}" if isinstance(value, float) else str(value).lower() for value in figures.values()]
        lines.append(f"| {' | '.join([*cell.labels.values(), *values])} |")
    return "\n".join(lines) + "\n"


def calls_within(rows: list[Row], figure: str, *, within: float = 0.05) -> list[Row]:
    """The fewest network calls that bring each line near where it ends: figure ≤ (1 + `within`)·figure at the end.

    A line is the cells that differ in the first axis alone; all end at that axis's label with the most calls (S =
    1000). A line of which that cell is not done is left out.

    Args:
      rows: with `calls` and `figure`, of which less is better.
      figure: one that is above 0: an unbiased distance that ends below it is near nothing.
      within: as a fraction.

    Returns:
      By line: `calls` and the `figure` there, None where no cell of fewer calls than the end's is near it; and the
      figure at the end.
    """
    first = next(iter(rows[0][0].labels))
    last = max(rows, key=lambda row: row[1]["calls"])[0].labels[first]
    lines: dict[tuple, list[Row]] = {}
    for cell, figures in rows:
        lines.setdefault(tuple((axis, label) for axis, label in cell.labels.items() if axis != first), []).append(
            (cell, figures)
        )
    found = []
    for labels, line in lines.items():
        end = next((figures for cell, figures in line if cell.labels[first] == last), None)
        if end is None:
            continue
        near = [
            figures
            for _, figures in line
            if figures["calls"] < end["calls"] and figures[figure] <= (1.0 + within) * max(end[figure], 0.0)
        ]
        best = min(near, key=lambda figures: figures["calls"], default={})
        values = {"calls": best.get("calls"), figure: best.get(figure), f"{figure} at {first} = {last}": end[figure]}
        found.append((Cell(dict(labels), {}), values))
    return found


def write(path: Path, content: str | bytes) -> Path:
    """Writes a file, whole or not at all, whoever else writes it."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.replace(path)
    return path
