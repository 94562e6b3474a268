"""The loop of a sweep: computes the cells that are missing, then writes the tables and plots of all that are done."""

import inspect
import time
from pathlib import Path
from typing import NamedTuple

import ml_collections
from tqdm.auto import tqdm

from diffjax.errors import UserError, naming, writing
from diffjax.registry import call
from diffjax.runs import resolve
from diffjax.sweeps import cells, output
from diffjax.sweeps.cells import Cell
from diffjax.sweeps.config import SWEEP, grid
from diffjax.sweeps.kinds import KINDS, Kind


class Written(NamedTuple):
    """The results of a sweep so far."""

    paths: list[Path]
    """The tables and plots."""
    num_done: int
    """The number of cells that are done."""
    num_cells: int


def compute(
    config: ml_collections.ConfigDict, *, out: Path, workdir: Path | None = None, shard: str = "0/1"
) -> Written:
    """Computes the cells that are not done yet, and writes the tables and plots of all.

    Args:
      config: the resolved config of a sweep (`sweeps.config.SWEEP`).
      out: the folder of the sweep.
      workdir: the trained run, for kinds that need one.
      shard: "k/n", to compute only every n-th cell, from cell k.

    Raises:
      UserError: before any cell is computed, an invalid config, workdir or folder; later, a folder that cannot be
        written.
    """
    all_cells = grid(config)
    own = cells.shard(all_cells, shard)
    kind = _kind(config, all_cells, workdir, out / "runs")
    if config.within not in (None, *kind.figures):
        names = ", ".join(map(repr, kind.figures))
        raise UserError(f"config.within: {config.within!r} must be None or one of the figures {names}")
    with writing(out):
        results = cells.Results(out, kind.protocol)
    for cell in tqdm(own, desc="cells"):
        if not results.done(cell):
            started = time.perf_counter()
            figures, pictures = kind.compute(cell)
            with writing(out):
                results.save(cell, {**figures, "seconds": round(time.perf_counter() - started, 2)}, pictures)
    paths, num_done = [], 0
    # Other processes that share the folder may finish cells meanwhile, so this repeats until there are no new ones.
    while len(rows := list(results.rows(all_cells))) > num_done:
        with writing(out):
            paths = output.tables(out, rows, results.protocol, kind.figures, within=config.within)
            paths += output.plots(out, rows, results, kind.figures, kind.originals)
        num_done = len(rows)
    return Written(paths, num_done, len(all_cells))


def _kind(config: ml_collections.ConfigDict, all_cells: list[Cell], workdir: Path | None, folder: Path) -> Kind:
    entry = KINDS[config.kind]
    if workdir is None and "workdir" in inspect.signature(entry).parameters:
        raise UserError(f"--workdir: missing; config.kind={config.kind!r} needs the folder of a trained run")
    given = {"grid": all_cells, "workdir": workdir, "folder": folder}
    options = {name: value for name, value in resolve.to_dict(config).items() if name not in SWEEP.fields}
    with naming("config"):
        return call(entry, given, options)
