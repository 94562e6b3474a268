"""Writes the files of a sweep: tables, curves, a map, and a picture with images of all cells."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffjax import viz
from diffjax.files import write
from diffjax.metrics.registry import higher_is_better
from diffjax.sweeps.cells import Results, Row
from diffjax.sweeps.tables import calls_within, to_csv, to_lines, to_markdown


def tables(
    out: Path, rows: list[Row], protocol: Mapping[str, Any], figures: Sequence[str], *, within: str | None = None
) -> list[Path]:
    """Writes `table.csv`, `table.md` and, with `within`, `within.csv`; returns their paths.

    Args:
      out: the folder of the sweep.
      rows: the cells that are done.
      protocol: the facts that the figures depend on.
      figures: the figures that get a table.
      within: the figure for which to count the network calls that come near its final value (`tables.calls_within`).
    """
    paths = [write(out / "table.csv", to_csv(rows))]
    parts = [f"{name}\n\n{to_markdown(rows, name)}" for name in _there(rows, figures)]
    if within and (near := calls_within(rows, within)):
        paths.append(write(out / "within.csv", to_csv(near)))
        parts.append(f"network calls to come within 5 % of the last {within}\n\n{to_lines(near)}")
    facts = "\n".join(f"- {name}: {value}" for name, value in protocol.items())
    return [write(out / "table.md", "\n".join([*parts, facts]) + "\n"), *paths]


def plots(
    out: Path, rows: list[Row], results: Results, figures: Sequence[str], originals: np.ndarray | None
) -> list[Path]:
    """Writes `images.png`, `curves_FIGURE.png` and `map.png`, those that have something to show; returns the paths.

    A curve is drawn for each label of the other axes, over the first axis, or over the network calls where these differ
    between the curves. The map shows the first figure.

    Args:
      out: the folder of the sweep.
      rows: the cells that are done.
      results: the results of the sweep, for the images of the cells.
      figures: the figures that get a plot.
      originals: the real images that the images of all cells were made from, uint8 `[N, H, W, C]`.
    """
    paths, names = [], _there(rows, figures)
    images = {} if originals is None else {"real": originals}
    images |= {cell.name: found for cell, _ in rows if (found := results.pictures(cell)) is not None}
    if images:
        paths.append(viz.save_figure(out / "images.png", viz.labelled_rows(images)))
    if len(rows) < 2 or not names:
        return paths
    across, *others = rows[0][0].labels
    columns = list(dict.fromkeys(cell.labels[across] for cell, _ in rows))
    lines: dict[str, dict[str, dict[str, Any]]] = {}
    for cell, found in rows:
        line = " · ".join(label for axis, label in cell.labels.items() if axis != across)
        lines.setdefault(line, {})[cell.labels[across]] = found
    by_calls = len({found.get("calls") for _, found in rows}) > len(columns)
    for name in names:
        series = {}
        for line, points in lines.items():
            points = {label: found for label, found in points.items() if name in found}
            xs = [found["calls"] if by_calls else _number(label) for label, found in points.items()]
            series[line] = xs, [found[name] for found in points.values()]
        x = "network calls" if by_calls else across
        path = out / f"curves_{name.replace(':', '_')}.png"
        paths.append(viz.save_figure(path, viz.curves(series, x=x, y=name, names=" · ".join(others))))
    if len(lines) > 1:
        values = [[points.get(column, {}).get(names[0], np.nan) for column in columns] for points in lines.values()]
        title = f"{names[0]} over {across}"
        better = higher_is_better(names[0])
        plot = viz.heat_map(np.array(values), rows=list(lines), columns=columns, title=title, higher_is_better=better)
        paths.append(viz.save_figure(out / "map.png", plot))
    return paths


def _there(rows: list[Row], figures: Sequence[str]) -> list[str]:
    return [name for name in figures if any(name in found for _, found in rows)]


def _number(label: str) -> float | str:
    try:
        return int(label)
    except ValueError:
        return label
