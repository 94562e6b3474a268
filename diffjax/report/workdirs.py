"""Makes the HTML page of a training run, and the pictures on it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from diffjax import data, losses, metrics, viz
from diffjax.errors import UserError, naming
from diffjax.files import to_path
from diffjax.json_files import read_record
from diffjax.metrics import records, registry
from diffjax.noise import sample_keys
from diffjax.report import pages, pictures
from diffjax.runs import build, real_images, resolve
from diffjax.runs.run import Run
from diffjax.runs.train import examples
from diffjax.training import logging
from diffjax.training.step import NUM_BUCKETS

if TYPE_CHECKING:
    from diffjax.viz.figure import Figure

_TIMESTEPS = 64
"""The largest number of timesteps at which the loss is measured."""
_NEIGHBOURS = 5
_QUERIES = 8
_BATCH = 64


def of_run(
    run: Run,
    folder: Path,
    *,
    num: int = 64,
    seed: int = 0,
    counts: Sequence[int] = (10, 20, 50, 100, 1000),
    frames: int = 256,
    images: int = 256,
    searched: int = 10_000,
    extractor: str = "pixels",
    command: str = "",
) -> str:
    """Returns the HTML page of a training run, and writes its pictures to `folder`.

    Where metrics, data or Matplotlib are missing, a section is a line that says so. The page of a run that restores
    images shows restored images in place of samples.

    Args:
      run: a run from a workdir (`runs.load`), which may hold figures of `diffjax evaluate` and `diffjax likelihood`.
      folder: made if it does not exist.
      num: samples in the grid.
      seed: the seed of everything that is sampled.
      counts: the numbers of steps in the consistency picture; those above T become T.
      frames: the largest number of frames of the denoising pictures; the animation shows some of them.
      images: real images on which the loss is measured.
      searched: the largest number of training images that are searched for neighbours.
      extractor: the features whose distances define neighbours (`metrics.extractor`).
      command: the command that makes the report, which the page shows.

    Raises:
      UserError: a value out of range, or an extractor for other images.
    """
    given = {"num": num, "counts": min(counts, default=0), "frames": frames, "images": images, "searched": searched}
    for name, value in given.items():
        least = 2 if name in ("frames", "images") else 1
        if value < least:
            raise UserError(f"{name}={value} must be ≥ {least}")
    workdir, extract = to_path(run.source), registry.extractor(extractor, run.image_shape)
    if run.task.is_conditional:
        made = [pages.Section("Restored images", _tried(_restored, run, workdir, folder))]
    else:
        samples = run.sample(max(num, _QUERIES), seed=seed, progress=True)
        made = [
            pages.Section("Samples", _samples(run, workdir, folder, samples[:num], seed)),
            pages.Section("Denoising", _denoising(run, folder, seed, frames)),
            pages.Section("Consistency", _consistency(run, folder, seed, counts)),
            pages.Section("Interpolation", _slerps(run, folder, seed)),
            pages.Section(
                "Nearest training images", _tried(_neighbours, run, folder, extract, samples[:_QUERIES], searched)
            ),
        ]
    sections = [
        pages.Section("Figures", _tried(_evaluation, workdir) + _tried(_likelihood, workdir)),
        pages.Section(
            "Training",
            _tried(_training, run.schedule.num_timesteps, workdir, folder)
            + _tried(_loss_by_timestep, run, folder, seed, images),
        ),
        pages.Section("Schedule", _tried(_schedule, run, folder)),
        *made,
        pages.Section("Config", [pages.folded("config.json", pages.code(_config(run)))]),
    ]
    lead = [pages.paragraph(f"{_summary(run)}; seed {seed}."), *([pages.code(command)] if command else [])]
    return pages.page(workdir.resolve().name, lead, sections)


def _summary(run: Run) -> str:
    config = run.config
    shape = " × ".join(map(str, run.image_shape))
    return (
        f"{config.data.source}, images of {shape}; {type(run.task).__name__} by a {type(run.network).__name__} of "
        f"{run.num_params:,} parameters, target {config.train.target}; {config.schedule.name} schedule, T = "
        f"{run.schedule.num_timesteps}; step {run.step:,} of {config.train.steps:,}, EMA {run.ema}"
    )


def _config(run: Run) -> str:
    return json.dumps(resolve.to_dict(run.config), indent=2, ensure_ascii=False)


def _tried(section: Callable[..., list[str]], *args: Any) -> list[str]:
    """Returns the blocks of a section, or a line that says why there are none."""
    try:
        return section(*args)
    except UserError as error:
        return [pages.note(f"Not here: {error}")]


def _evaluation(workdir: Path) -> list[str]:
    if not (path := workdir / "evaluation.json").exists():
        return []
    saved = read_record(path, "")
    with _reading("evaluation.json"):
        found, protocol = records.from_record(saved)
        others = {name: value for name, value in saved.items() if name not in ("figures", "protocol")}
    rows = [*found.items(), *((name, _shown(value)) for name, value in others.items())]
    return [pages.heading("Against real images"), pages.table((), rows), pages.table((), protocol.cells().items())]


def _likelihood(workdir: Path) -> list[str]:
    if not (path := workdir / "likelihood.json").exists():
        return []
    saved = read_record(path, "")
    with _reading("likelihood.json"):
        pairs = {name: saved[name] for name in ("bound", "L_T", "L_0", "exact") if name in saved}
        rows = [(name, f"{mean:.4g} ± {error:.2g}") for name, (mean, error) in pairs.items()]
    protocols = [pages.note(saved[name]) for name in ("protocol", "exact_protocol") if name in saved]
    return [pages.heading("Bits/dim (mean ± standard error)"), pages.table((), rows), *protocols]


def _training(num_timesteps: int, workdir: Path, folder: Path) -> list[str]:
    with naming("metrics.jsonl"):
        plot = viz.training_loss(logging.read(workdir), num_timesteps=num_timesteps, num_parts=NUM_BUCKETS)
    return [_plot(folder / "training_loss.png", plot, "The training loss over steps.")]


def _loss_by_timestep(run: Run, folder: Path, seed: int, count: int) -> list[str]:
    """Plots the loss on training images, and on held-out images if there are any."""
    found = build.images(run.config)
    total = run.schedule.num_timesteps
    t = np.unique(np.linspace(0, total - 1, min(_TIMESTEPS, total)).round().astype(int))
    loss = run.task.loss(train=False)
    measured = {}
    for name, source in (("trained on", found.source), ("held out", found.held_out)):
        if (num := min(count, len(source))) < 2:
            continue
        with naming("config.data"):
            batch = _batch(source, found, num, seed)
        parts, size = [], min(_BATCH, num)
        for start in range(0, num, size):
            # The last batch is filled up, so that one compilation serves all.
            numbers = np.arange(start, start + size) % num
            part = {field: jnp.asarray(values[numbers]) for field, values in batch.items()}
            parts.append(np.asarray(losses.by_timestep(loss, run.params, part, t, sample_keys(seed, start, size))))
        measured[name] = np.concatenate(parts, axis=1)[:, :num]
    caption = (
        f"The training objective by timestep, with the EMA parameters and without dropout, at {len(t)} timesteps, with "
        "one noise for each image; shaded: ± one standard error over the images."
    )
    return [_plot(folder / "loss_by_timestep.png", viz.loss_by_timestep(t, measured), caption)]


def _batch(source: data.Source, found: build.Images, num: int, seed: int) -> dict[str, np.ndarray]:
    """Returns the first `num` examples as a training batch, their images not augmented."""
    made = []
    for n in range(num):
        example = data.prepared(source[n], None, found.prepare, None)
        if found.degrade is not None:
            example["condition"] = found.degrade(example["image"], np.random.default_rng((seed, n)))
        made.append(example)
    return {field: np.stack([example[field] for example in made]) for field in made[0]}


def _schedule(run: Run, folder: Path) -> list[str]:
    caption = f"The {run.config.schedule.name} schedule over t."
    return [_plot(folder / "schedule.png", viz.schedule(run.schedule), caption)]


def _plot(path: Path, plot: Figure, caption: str) -> str:
    return pages.plot(viz.save_figure(path, plot), caption)


def _samples(run: Run, workdir: Path, folder: Path, samples: np.ndarray, seed: int) -> list[str]:
    path = viz.save_png(folder / "samples.png", viz.grid(pictures.thumbnails(samples), columns=8))
    return [
        pages.figure(path, f"{len(samples)} samples: {_options(run)}, seed {seed}."),
        *_left_by_training(workdir / "samples.png", "samples"),
        *_left_by_training(workdir / "denoising.png", "x_t and x̂0 of three samples"),
    ]


def _restored(run: Run, workdir: Path, folder: Path) -> list[str]:
    images = examples(run.config, run.task, build.images(run.config))
    path = viz.save_png(folder / "restored.png", run.task.preview(run.params, run.sampling, images))
    return [
        pages.figure(path, f"The condition, the restored image, the true image: {_options(run)}."),
        *_left_by_training(workdir / "restored.png", "restored images"),
    ]


def _left_by_training(path: Path, caption: str) -> list[str]:
    if not path.exists():
        return []
    return [pages.folded(f"{path.name}, from the end of training: {caption}", pages.figure(path, path.name))]


def _options(run: Run) -> str:
    fields = resolve.flatten(run.config.sample)
    return ", ".join(f"{name} {value}" for name, value in fields.items() if value is not None)


def _denoising(run: Run, folder: Path, seed: int, frames: int) -> list[str]:
    total = run.schedule.num_timesteps
    frames = min(frames, total + 1)
    variance = "learned_range" if run.task.predicts_variance else "fixed_small"
    x, x0, animation = pictures.denoising(run, folder, seed=seed, variance=variance, frames=frames)
    how = f"ancestral, {frames - 1} of {total} timesteps, {variance}"
    return [
        pages.figure(animation, f"x_t and the x̂0 predicted from it ({how}); each frame shows its noise level."),
        pages.figure(x0, f"The x̂0 of one sample, above the level from which it was predicted ({how}).", wide=True),
        pages.folded("x_t of the same sample", pages.figure(x, "x_t, each frame above its level.", wide=True)),
    ]


def _consistency(run: Run, folder: Path, seed: int, counts: Sequence[int]) -> list[str]:
    counts = sorted({min(count, run.schedule.num_timesteps) for count in counts})
    path = pictures.consistency(run, folder / "consistency.png", seed=seed, counts=counts)
    return [pages.figure(path, "DDIM, η = 0, from the same noise in different numbers of steps S.")]


def _slerps(run: Run, folder: Path, seed: int) -> list[str]:
    num_steps = min(50, run.schedule.num_timesteps)
    path = pictures.slerps(run, folder / "slerp.png", seed=seed, num_steps=num_steps)
    label = "" if run.task.num_classes is None else ", all of class 0"
    text = f"Between four noises, in the corners, by slerp; DDIM, η = 0, {num_steps} steps{label}."
    return [pages.figure(path, text)]


def _neighbours(run: Run, folder: Path, extract: metrics.Extractor, samples: np.ndarray, searched: int) -> list[str]:
    """Shows samples beside the nearest training images."""
    images = build.images(run.config)
    count = min(searched, len(images.source))
    real, _ = real_images.read(images.source, images.prepare, count)
    found = metrics.nearest(extract(samples).features, extract(real).features, min(_NEIGHBOURS, count))
    shown = (pictures.thumbnails(part) for part in (samples, real[found.indices]))
    path = viz.save_png(folder / "neighbours.png", viz.neighbours(*shown, found.distances))
    caption = (
        f"Samples, and to the right of each the nearest of {count:,} images trained on, with their Euclidean "
        f"distances; {extract.protocol['extractor']}."
    )
    return [pages.figure(path, caption)]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " … ".join(map(_shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turns the errors of a file with other content than its command writes into a `UserError`."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{name} is not as its command writes it ({type(error).__name__}: {error})") from error
