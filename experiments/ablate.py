"""Computes a sweep: a figure for every combination of a config's axes.

python experiments/ablate.py --config configs/ablations/ddim_table1.py --workdir runs/digits --out sweeps/ddim_table1

Writes `FOLDER/cells` (a file a cell, as it is done), and from them `table.csv`, `table.md`, curves and a map. The same
command goes on where it was stopped, computing no finished cell again. `--shard=k/n` computes every n-th cell alone:
the tasks of an array, or processes side by side, share one --out.

What a cell sets are fields of the workdir's `config.sample`, and `num`. Where tables differ in their values alone
(η, σ̂, the grid), they go through one compiled program. With `kind="training"` a cell sets fields of the config that the
sweep names, is trained in `FOLDER/runs`, and then sampled from as that config says.
"""

import importlib
import json
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # training sweeps name configs of this repository

from diffjax import latents, launch, viz  # noqa: E402
from diffjax.errors import UserError, naming, writing  # noqa: E402
from diffjax.evaluation import quality, sweeps  # noqa: E402
from diffjax.sampling import Clip  # noqa: E402
from diffjax.tasks import generation  # noqa: E402
from diffjax.training import guided, setup  # noqa: E402
from diffjax.training.checkpoints import Checkpoints  # noqa: E402
from diffjax.training.flags import parse_flags  # noqa: E402
from diffjax.training.loop import train  # noqa: E402

KINDS = ("quality", "reconstruction", "training")

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
    if config.kind != "training" and workdir is None:
        raise UserError(f"--workdir is needed for config.kind={config.kind!r}")
    axes = {axis: {label: dict(fields) for label, fields in choices} for axis, choices in config.axes}
    grid = sweeps.cells(axes, skip=tuple(map(dict, config.skip)))
    cells = sweeps.shard(grid, shard)
    compute, protocol = {"quality": _quality, "reconstruction": _reconstruction, "training": _training}[config.kind](
        config, grid, workdir, out
    )
    with writing(out):
        results = sweeps.Results(out, protocol)
    for cell in tqdm(cells, desc="cells"):
        if not results.done(cell):
            started = time.perf_counter()
            found = compute(cell)
            with writing(out):
                results.save(cell, {**found, "seconds": round(time.perf_counter() - started, 2)})
    if not (rows := list(results.rows(grid))):
        return
    with writing(out):
        (out / "table.csv").write_text(sweeps.to_csv(rows))
        names = [name for name in config.figures if any(name in figures for _, figures in rows)]
        tables = [f"{name}\n\n{sweeps.to_markdown(rows, name)}" for name in names]
        facts = "\n".join(f"- {name}: {value}" for name, value in results.protocol.items())
        (out / "table.md").write_text("\n".join([*tables, facts]) + "\n")
        print((out / "table.md").read_text())
        for path in _plots(out, rows, names):
            print(path)
    if len(rows) < len(grid):
        print(f"{len(grid) - len(rows)} of {len(grid)} cells are still to be computed")


def _plots(out: Path, rows: list, names: list[str]) -> list[Path]:
    """A curve for each label of the other axes, over the first axis or the network calls; a map of the first figure."""
    if len(rows) < 2 or not names:
        return []
    across = next(iter(rows[0][0].labels))
    columns = list(dict.fromkeys(cell.labels[across] for cell, _ in rows))
    lines: dict[str, dict[str, dict]] = {}
    for cell, figures in rows:
        line = " · ".join(label for axis, label in cell.labels.items() if axis != across)
        lines.setdefault(line, {})[cell.labels[across]] = figures
    by_calls = len({figures.get("calls") for _, figures in rows}) > len(columns)
    paths = []
    for name in names:
        series = {}
        for line, cells in lines.items():
            xs = [figures["calls"] if by_calls else _number(label) for label, figures in cells.items()]
            series[line] = xs, [figures[name] for figures in cells.values()]
        x = "network calls" if by_calls else across
        paths.append(viz.curves(out / f"curves_{name}.png", series, x=x, y=name))
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


def _quality(config: ConfigDict, grid: list[sweeps.Cell], workdir: Path, out: Path):
    """(cell → distances of its samples, the protocol)."""
    trained = setup.load_config(workdir)
    measure, protocol = _measure(config, trained)
    with Checkpoints(workdir) as checkpoints:
        experiment = setup.experiment(trained)
        decay = config.ema_decay or experiment.ema_decay
        if decay not in trained.train.ema_decays:
            raise UserError(f"config.ema_decay: {decay} is none of the run's {tuple(trained.train.ema_decays)}")
        step, params = checkpoints.restore_params(experiment.params_shape, ema=decay)

    def options(cell: sweeps.Cell) -> tuple[ConfigDict, int, Clip]:
        fields = dict.fromkeys((*setup.KNOBS, *guided.FIELDS)) | {**config.sample, **cell.fields}
        num, clip = fields.pop("num", config.num), fields.pop("clip", generation.CLIP)
        return ConfigDict(fields), num, clip

    for cell in grid:  # before any of them is computed
        setup.sampler(experiment.schedule, options(cell)[0])
        _guided(experiment, options(cell)[0])

    def compute(cell: sweeps.Cell) -> dict[str, float]:
        return measure(experiment, params, *options(cell))

    protocol |= {
        "workdir": str(workdir.resolve()),
        "step": step,
        "parameters": f"EMA {decay}",
        "sample": dict(config.sample),
        "num": config.num,
        "seed": config.seed,
    }
    return compute, protocol


def _training(config: ConfigDict, grid: list[sweeps.Cell], workdir: Path | None, out: Path):
    """(cell → distances of samples of a network trained for it, the protocol)."""
    base = _base(config)
    measure, protocol = _measure(config, base)

    def compute(cell: sweeps.Cell) -> dict[str, float]:
        fields = base.copy_and_resolve_references()
        with naming("config.axes"):
            try:
                fields.update_from_flattened_dict(cell.fields)
            except (KeyError, TypeError) as error:
                raise UserError(f"config.axes: {error}") from error
        state = train(fields, out / "runs" / cell.name)
        if int(state.step) < fields.train.steps:
            raise UserError(f"stopped after step {int(state.step)} of {cell.name}; the same command goes on from there")
        experiment = setup.experiment(fields)
        params = state.ema_params[experiment.ema_decay]
        return measure(experiment, params, fields.sample, config.num, generation.CLIP)

    protocol |= {"config": json.loads(base.to_json()), "num": config.num, "seed": config.seed}
    return compute, protocol


def _base(config: ConfigDict) -> ConfigDict:
    """The config that a training sweep starts from."""
    try:
        base = importlib.import_module(f"configs.{config.base}").get_config()
    except ImportError as error:
        raise UserError(f"config.base: {config.base!r} is no file in configs/") from error
    base.update_from_flattened_dict(dict(config.fields))
    return base


def _measure(config: ConfigDict, trained: ConfigDict):
    """((experiment, parameters, sample options, num, clip) → figures, what all of them share)."""
    source, _, prepare = setup.images(trained)
    shape = tuple(trained.data.image_shape)
    extract = quality.extractor(config.extractor, shape)
    count = min(len(source), config.reference_num)
    real = np.stack([prepare(source[n]["image"]) for n in range(count)])
    description = f"the first {count} images that {trained.data.source} was trained on"
    reference = quality.Reference(extract(real).features, description)

    def measure(experiment, params, options, num, clip) -> dict[str, float]:
        steps = setup.sampler(experiment.schedule, options)
        experiment = _guided(experiment, options)

        def predict(numbers):
            return setup.sample_predictor(experiment, params, numbers)

        batches = generation.images(
            steps, predict, shape, clip=clip, seed=config.seed, num=num,
            batch_size=min(num, config.batch_size), per_batch=True,
        )  # fmt: skip
        labels = generation.labels(experiment.model, np.arange(num)).get("label")
        found = quality.figures(np.concatenate([images for _, images in batches]), reference, extract, labels=labels)
        floors = {f"{name}_floor": figure.floor for name, figure in found.items() if figure.floor is not None}
        return {name: figure.value for name, figure in found.items()} | floors | {"calls": steps.num_rows, "num": num}

    return measure, {"reference": description, "extractor": extract.protocol, "rounding": "nearest"}


def _guided(experiment: setup.Experiment, options: ConfigDict) -> setup.Experiment:
    """The experiment, sampled from with a cell's guidance."""
    guide = guided.guide(
        options,
        experiment.schedule,
        num_classes=experiment.model.num_classes,
        label_dropout=experiment.label_dropout,
    )
    return experiment._replace(guide=guide)


def _reconstruction(config: ConfigDict, grid: list[sweeps.Cell], workdir: Path, out: Path):
    """(cell → the mean squared error of encoding and decoding, the protocol)."""
    trained = setup.load_config(workdir)
    experiment = setup.experiment(trained)
    if config.images:
        with naming("config.data"):
            trained.data.images, trained.data.holdout = config.images, 0.0
            trained.data.labels = config.labels
    source, held_out, prepare = setup.images(trained)
    source = held_out if len(held_out) else source
    if not 1 <= config.num <= len(source):
        raise UserError(f"config.num: {config.num}: allowed is 1 … {len(source)}")
    images = jnp.stack([prepare(source[n]["image"]) for n in range(config.num)])
    with Checkpoints(workdir) as checkpoints:
        step, params = checkpoints.restore_params(experiment.params_shape, ema=experiment.ema_decay)
    labels = np.array([source[n]["label"] for n in range(config.num)], np.int32)

    def compute(cell: sweeps.Cell) -> dict[str, float]:
        errors = []
        for start in range(0, config.num, config.batch_size):
            part = slice(start, start + config.batch_size)
            x = generation.normalize(images[part])
            condition = {} if experiment.model.num_classes is None else {"label": jnp.asarray(labels[part])}
            predict = setup.predictor(experiment, params, **condition)
            back = latents.reconstruct(experiment.schedule, predict, x, num_steps=cell.fields["steps"])
            errors.append(np.asarray(jnp.mean(((back - x) / 2) ** 2, axis=(1, 2, 3))))
        return {"mse": float(np.mean(np.concatenate(errors)))}

    protocol = {
        "workdir": str(workdir.resolve()),
        "step": step,
        "parameters": f"EMA {experiment.ema_decay}",
        "images": f"{config.num} of {config.images or ('the held-out ones' if len(held_out) else 'the training ones')}",
        "error": "mean squared, pixels in [0, 1]",
    }
    return compute, protocol


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "out"])
    app.run(main, flags_parser=parse_flags)
