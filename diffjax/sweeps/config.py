"""The schema of a sweep's config, and its grid.

A config file of a sweep sets the kind, the axes, and any of the kind's options:

    def get_config():
        return ConfigDict({"kind": "quality", "axes": (("S", (("10", {"num_steps": 10}), ("50", {"num_steps": 50}))),)})
"""

from typing import Any

import ml_collections

from diffjax.errors import UserError
from diffjax.fields import REQUIRED, Field, shown
from diffjax.runs.config import Named, Section
from diffjax.sweeps import cells
from diffjax.sweeps.cells import Axes, Cell
from diffjax.sweeps.kinds import KINDS

SWEEP = Section(
    "A sweep.",
    {
        "kind": Field(str, "quality", "What a cell computes.", choices=KINDS),
        "axes": Field(
            tuple[object, ...],
            REQUIRED,
            "The grid: ((axis, ((label, {field: value, …}), …)), …); the fields depend on the kind.",
        ),
        "skip": Field(tuple[object, ...], (), "Cells that are left out: ((axis, label), …) for each."),
        "within": Field(
            str | None,
            None,
            "The figure for which a table shows how many network calls come within 5 % of the last cell of each line.",
        ),
    },
    {"kind": Named(KINDS, given=("grid", "workdir", "folder"))},
)


def grid(config: ml_collections.ConfigDict) -> list[Cell]:
    """Returns the cells of a sweep's config.

    Raises:
      UserError: axes or cells to leave out that are not of the form above, or an unknown axis or label.
    """
    return cells.cells(_axes(config.axes), skip=_skip(config.skip))


def _axes(value: tuple[Any, ...]) -> Axes:
    found = {}
    for axis, choices in _pairs("axes", value, "((axis, ((label, {field: value, …}), …)), …)"):
        pairs = _pairs("axes", choices, f"((label, {{field: value, …}}), …) for the axis {axis!r}")
        for label, fields in pairs:
            if not isinstance(fields, dict):
                raise UserError(f"config.axes: {axis}={label}: {shown(fields)} must be {{field: value, …}}")
        if axis in found or len(dict(pairs)) < len(pairs):
            raise UserError(f"config.axes: the axis {axis!r}, or a label of it, is there twice")
        found[axis] = dict(pairs)
    return found


def _skip(value: tuple[Any, ...]) -> tuple[dict[str, str], ...]:
    return tuple(dict(_pairs("skip", labels, "((axis, label), …) for each cell that is left out")) for labels in value)


def _pairs(field: str, value: Any, wanted: str) -> list[tuple[str, Any]]:
    """Returns `value` as a list of pairs, after checking that their first entries are strings."""
    pairs = list(value) if isinstance(value, (tuple, list)) else [None]
    for pair in pairs:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str)):
            raise UserError(f"config.{field}: {shown(value)} must be {wanted}")
    return [tuple(pair) for pair in pairs]
