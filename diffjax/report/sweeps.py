"""Makes the HTML page of a sweep."""

from pathlib import Path

from diffjax.report import pages
from diffjax.sweeps import cells
from diffjax.sweeps.tables import pivot

_NOT_FIGURES = ("seconds", "num", "calls")


def of_sweep(folder: Path) -> str:
    """Returns the HTML page of a sweep: a table for each figure, the protocol, the plots, and all cells.

    Args:
      folder: a folder that `diffjax ablate` has written.

    Raises:
      UserError: another folder, or one without a cell that is done.
    """
    protocol, rows = cells.load(folder)
    found = dict.fromkeys(name for _, figures in rows for name in figures)
    names = [name for name in found if name not in _NOT_FIGURES and not name.endswith(("_floor", "_error"))]
    tables = []
    for name in names:
        header, body, best = pivot(rows, name)
        tables += [pages.heading(name), pages.table(header, body, bold=best)]
    axes = list(rows[0][0].labels)
    plots = [_plot(path, axes) for path in sorted(folder.glob("*.png"))]
    lines = [[*cell.labels.values(), *(_number(figures.get(name)) for name in found)] for cell, figures in rows]
    sections = [
        pages.Section("Figures", tables),
        pages.Section("Plots", plots),
        pages.Section("Protocol", [pages.table((), protocol.items())]),
        pages.Section("Cells", [pages.folded(f"all {len(rows)}", pages.table([*axes, *found], lines))]),
    ]
    text = f"A sweep over {', '.join(axes)}: {len(rows)} cells are done."
    if any("<strong>" in block for block in tables):
        text += " The best value of each column is bold."
    return pages.page(folder.resolve().name, [pages.paragraph(text)], sections)


def _plot(path: Path, axes: list[str]) -> str:
    """Returns a picture that `diffjax ablate` has written, with what it shows in words."""
    if path.stem == "images":
        return pages.figure(path, "A row of images for each cell.")
    if path.stem == "map":
        return pages.plot(path, f"All cells: {axes[0]} across, {' and '.join(axes[1:])} down.")
    return pages.plot(
        path,
        f"{path.stem.removeprefix('curves_').replace('_', ' ')}, a curve for each {' and '.join(axes[1:]) or 'sweep'}.",
    )


def _number(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
