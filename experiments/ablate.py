"""Computes a sweep: a figure for every combination of a config's axes.

python experiments/ablate.py --config configs/ablations/ddim_table1.py --workdir runs/digits --out sweeps/ddim_table1

Writes `FOLDER/cells` (a file a cell, as it is done), and from them `table.csv`, `table.md`, curves, a map, and the
first images of each cell. The same command goes on where it was stopped, computing no finished cell again.
`--shard=k/n` computes every n-th cell alone: the tasks of an array, or processes side by side, share one --out.

What a cell of `kind="quality"` sets are fields of the workdir's `config.sample`, `num` and `ema_decay`; with "bits"
they are those of its DDPM chain; with "reconstruction" it sets `steps`. Where tables differ in their values alone (η,
σ̂, the grid, a fixed or learned variance), they go through one compiled program. With "training" a cell sets fields of
the config that the sweep names, is trained in `FOLDER/runs`, and then sampled from as that config says.
"""

import importlib
import sys
import time
from pathlib import Path

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # training sweeps name configs of this repository

from diffjax import launch, viz  # noqa: E402
from diffjax.errors import UserError, writing  # noqa: E402
from diffjax.evaluation import ablations, sweeps  # noqa: E402
from diffjax.training.flags import parse_flags  # noqa: E402

KINDS = {
    "quality": ablations.quality_of_samples,
    "reconstruction": ablations.reconstruction,
    "bits": ablations.bits,
    "training": ablations.training,
}

CONFIG = config_flags.DEFINE_config_file("config", None, "The sweep; --config.x=y sets a field.")
WORKDIR = flags.DEFINE_string("workdir", None, "A folder that train.py has written (of no use to a training sweep).")
OUT = flags.DEFINE_string("out", None, "The folder of the sweep.")
SHARD = flags.DEFINE_string("shard", "0/1", "k/n: every n-th cell, from the k-th.")


def main(argv: list[str]) -> None:
    """Computes what is missing, then writes the tables of what there is."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    with launch.reporting():
        launch.start()
        run(CONFIG.value, WORKDIR.value and Path(WORKDIR.value), Path(OUT.value), SHARD.value)


def run(config: ConfigDict, workdir: Path | None, out: Path, shard: str) -> None:
    """A sweep's cells, and its tables.

    Raises:
      UserError: a config, a workdir or a folder that cannot be.
    """
    if config.kind not in KINDS:
        raise UserError(f"config.kind: {config.kind!r} is not one of {', '.join(map(repr, KINDS))}")
    axes = {axis: {label: dict(fields) for label, fields in choices} for axis, choices in config.axes}
    grid = sweeps.cells(axes, skip=tuple(map(dict, config.skip)))
    cells = sweeps.shard(grid, shard)
    if (within := config.get("within", "")) not in ("", *config.figures):
        raise UserError(f"config.within: {within!r} is not one of {', '.join(map(repr, config.figures))}")
    if config.kind == "training":
        kind = ablations.training(config, grid, _base(config), out / "runs")
    elif workdir is None:
        raise UserError(f"--workdir is needed for config.kind={config.kind!r}")
    else:
        kind = KINDS[config.kind](config, grid, workdir)
    with writing(out):
        results = sweeps.Results(out, kind.protocol)
    for cell in tqdm(cells, desc="cells"):
        if not results.done(cell):
            started = time.perf_counter()
            figures, pictures = kind.compute(cell)
            with writing(out):
                results.save(cell, {**figures, "seconds": round(time.perf_counter() - started, 2)}, pictures)
    written = 0
    # Whoever writes last has seen all: others may have finished cells meanwhile.
    while len(rows := list(results.rows(grid))) > written:
        with writing(out):
            _write_tables(out, rows, results, config)
            print((out / "table.md").read_text())
            for path in _plots(out, rows, results, config, kind.originals):
                print(path)
        written = len(rows)
    if written < len(grid):
        print(f"{len(grid) - written} of {len(grid)} cells are still to be computed")


def _base(config: ConfigDict) -> ConfigDict:
    """The config that a training sweep starts from."""
    try:
        base = importlib.import_module(f"configs.{config.base}").get_config()
    except ImportError as error:
        raise UserError(f"config.base: {config.base!r} is no file in configs/") from error
    base.update_from_flattened_dict(dict(config.fields))
    return base


def _names(rows: list[sweeps.Row], config: ConfigDict) -> list[str]:
    return [name for name in config.figures if any(name in figures for _, figures in rows)]


def _write_tables(out: Path, rows: list[sweeps.Row], results: sweeps.Results, config: ConfigDict) -> None:
    """`table.csv` and `table.md`; with `config.within`, `within.csv` too."""
    sweeps.write(out / "table.csv", sweeps.to_csv(rows))
    parts = [f"{name}\n\n{sweeps.to_markdown(rows, name)}" for name in _names(rows, config)]
    if config.get("within", "") and (near := sweeps.calls_within(rows, config.within)):
        sweeps.write(out / "within.csv", sweeps.to_csv(near))
        parts.append(f"network calls to come within 5 % of the last {config.within}\n\n{sweeps.to_lines(near)}")
    facts = "\n".join(f"- {name}: {value}" for name, value in results.protocol.items())
    sweeps.write(out / "table.md", "\n".join([*parts, facts]) + "\n")


def _plots(
    out: Path, rows: list[sweeps.Row], results: sweeps.Results, config: ConfigDict, originals: np.ndarray | None
) -> list[Path]:
    """The cells' images; a curve for each label of the other axes, over the first axis or the network calls; a map of
    the first figure.
    """
    paths, names = [], _names(rows, config)
    images = {} if originals is None else {"real": originals}
    images |= {cell.name: found for cell, _ in rows if (found := results.pictures(cell)) is not None}
    if images:
        paths.append(viz.labelled_rows(out / "images.png", images))
    if len(rows) < 2 or not names:
        return paths
    across, *others = rows[0][0].labels
    columns = list(dict.fromkeys(cell.labels[across] for cell, _ in rows))
    lines: dict[str, dict[str, dict]] = {}
    for cell, figures in rows:
        line = " · ".join(label for axis, label in cell.labels.items() if axis != across)
        lines.setdefault(line, {})[cell.labels[across]] = figures
    by_calls = len({figures.get("calls") for _, figures in rows}) > len(columns)
    for name in names:
        series = {}
        for line, cells in lines.items():
            xs = [figures["calls"] if by_calls else _number(label) for label, figures in cells.items()]
            series[line] = xs, [figures[name] for figures in cells.values()]
        x = "network calls" if by_calls else across
        paths.append(viz.curves(out / f"curves_{name}.png", series, x=x, y=name, names=" · ".join(others)))
    if len(lines) > 1:
        values = [[cells.get(column, {}).get(names[0], np.nan) for column in columns] for cells in lines.values()]
        title = f"{names[0]} over {across}"
        paths.append(viz.heat_map(out / "map.png", np.array(values), rows=list(lines), columns=columns, title=title))
    return paths


def _number(label: str) -> float | str:
    try:
        return int(label)
    except ValueError:
        return label


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "out"])
    app.run(main, flags_parser=parse_flags)
