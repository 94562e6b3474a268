"""Tables of a sweep's figures: CSV, Markdown, and the pivot of one figure with the best values marked."""

import csv
import io
from typing import NamedTuple

from diffjax.metrics.registry import higher_is_better
from diffjax.sweeps.cells import Cell, Row


def to_csv(rows: list[Row]) -> str:
    """Returns CSV with a line for each cell: its labels, then its figures."""
    columns = [*rows[0][0].labels, *dict.fromkeys(name for _, figures in rows for name in figures)]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for cell, figures in rows:
        writer.writerow({**cell.labels, **figures})
    return out.getvalue()


class Pivot(NamedTuple):
    """One figure as a table, with the labels of the first axis as columns and those of the others as rows."""

    header: list[str]
    body: list[list[str]]
    """Rows of text; each begins with its labels, and a cell that is not done is empty."""
    best: set[tuple[int, int]]
    """(row, column) in the body of the best values of each column; empty if there is one row."""


def pivot(rows: list[Row], figure: str) -> Pivot:
    """Returns the table of a figure that at least one of `rows` has.

    The best value of a column is the highest or the lowest, by `metrics.higher_is_better`. An error, such as
    `bound_error` of `bound`, is shown after the value. A floor, such as `kernel_floor`, the value that real images get,
    is the last row.

    Args:
      rows: of one sweep.
      figure: the name of the figure.
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
    pick = max if higher_is_better(figure) else min
    best_of = {
        column: pick((row[column] for row in values.values() if column in row), default=None) for column in columns
    }
    body, best = [], set()
    for i, (labels, row) in enumerate(values.items()):
        shown = {column: f"{value:.4g}{errors.get((*labels, column), '')}" for column, value in row.items()}
        body.append([" · ".join(labels), *(shown.get(column, "") for column in columns)])
        best |= {(i, j) for j, column in enumerate(columns, 1) if column in row and row[column] == best_of[column]}
    best = best if len(body) > 1 else set()
    if floors:
        body.append(["real images", *(f"{floors[column]:.4g}" if column in floors else "" for column in columns)])
    header = [f"{' · '.join(down) or figure} \\ {across}", *columns]
    return Pivot(header, body, best)


def to_markdown(rows: list[Row], figure: str) -> str:
    """Returns `pivot` as a Markdown table, the best values of each column in bold."""
    header, body, best = pivot(rows, figure)
    shown = [[f"**{text}**" if (i, j) in best else text for j, text in enumerate(line)] for i, line in enumerate(body)]
    lines = [f"| {' | '.join(line)} |\n" for line in (header, *shown)]
    return "".join([lines[0], "|---" * len(header) + "|\n", *lines[1:]])


def to_lines(rows: list[Row]) -> str:
    """Returns a Markdown table with a line for each cell: its labels, then its figures; "none" for None."""
    columns = [*rows[0][0].labels, *rows[0][1]]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for cell, figures in rows:
        values = [f"{value:.4g}" if isinstance(value, float) else str(value).lower() for value in figures.values()]
        lines.append(f"| {' | '.join([*cell.labels.values(), *values])} |")
    return "\n".join(lines) + "\n"


def calls_within(rows: list[Row], figure: str, *, within: float = 0.05) -> list[Row]:
    """Returns the least numbers of network calls that bring each line of cells near its final figure.

    A line consists of the cells that differ in the first axis alone. All lines end at the label of that axis with the
    most network calls (S = 1000); lines where that cell is not done are left out. A figure is near the final one if it
    is at most (1 + `within`) times as large, or at least 1 - `within` times where higher is better.

    Args:
      rows: of one sweep, with `calls` and `figure`.
      figure: the name of a figure that is above 0; no cell is near a final figure below 0 unless it is below 0 too.
      within: the tolerance, as a fraction.

    Returns:
      For each line: `calls` and the `figure` there, None where no cell with fewer calls is near the final figure; and
      the final figure.
    """
    first = next(iter(rows[0][0].labels))
    last = max(rows, key=lambda row: row[1]["calls"])[0].labels[first]
    lines: dict[tuple, list[Row]] = {}
    for cell, figures in rows:
        labels = tuple((axis, label) for axis, label in cell.labels.items() if axis != first)
        lines.setdefault(labels, []).append((cell, figures))
    found = []
    for labels, line in lines.items():
        end = next((figures for cell, figures in line if cell.labels[first] == last), None)
        if end is None:
            continue
        near = [
            figures
            for _, figures in line
            if figures["calls"] < end["calls"] and _is_near(figures[figure], end[figure], within, figure)
        ]
        best = min(near, key=lambda figures: figures["calls"], default={})
        values = {"calls": best.get("calls"), figure: best.get(figure), f"{figure} at {first} = {last}": end[figure]}
        found.append((Cell(dict(labels), {}), values))
    return found


def _is_near(value: float, end: float, within: float, figure: str) -> bool:
    if higher_is_better(figure):
        return value >= (1.0 - within) * end
    return value <= (1.0 + within) * max(end, 0.0)
