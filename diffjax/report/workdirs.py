"""The page of a training run, and the pictures on it."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from diffjax import evaluation, losses, viz
from diffjax.errors import UserError, naming, read_json
from diffjax.evaluation import figures, on_images, quality, samples
from diffjax.noise import sample_keys
from diffjax.report import pages
from diffjax.sampling import Predict
from diffjax.tasks import pictures
from diffjax.training import metrics, run_config, setup
from diffjax.training.checkpoints import Checkpoints

_TIMESTEPS = 64
"""At how many timesteps the loss is measured, about."""
_NEIGHBOURS = 5
_QUERIES = 8
_BATCH = 64


class _Run(NamedTuple):
    """What the sections draw from."""

    workdir: Path
    folder: Path
    config: ml_collections.ConfigDict
    experiment: setup.Experiment
    step: int
    params: Any
    seed: int

    def predict(self, numbers: np.ndarray) -> Predict:
        return setup.sample_predictor(self.experiment, self.params, numbers)


def of_workdir(
    workdir: Path,
    folder: Path,
    *,
    num: int = 64,
    seed: int = 0,
    steps: Sequence[int] = (10, 20, 50, 100, 1000),
    frames: int = 256,
    images: int = 256,
    searched: int = 10_000,
    extractor: str = "pixels",
    command: str = "",
) -> str:
    """The HTML page of a training run; its pictures, drawn with the EMA parameters, are left in `folder`.

    What cannot be had (no metrics, no data, no Matplotlib) is a line on the page.

    Args:
      workdir: a folder that train.py has written.
      folder: is made.
      num: samples in the grid.
      seed: of all that is drawn.
      steps: S of the consistency strip; those above T become T.
      frames: of the denoising strips, at most; the animation shows every few of them.
      images: real ones, by which the loss is measured.
      searched: images trained on, among which neighbours are looked for, at most.
      extractor: in whose features neighbours are near (`quality.extractor`).
      command: what made the report, to be shown.

    Raises:
      UserError: a workdir that is none, one without a checkpoint, a value out of range.
    """
    for name, value, least in (
        ("num", num, 1),
        ("steps", min(steps), 1),
        ("frames", frames, 2),
        ("images", images, 2),
        ("searched", searched, 1),
    ):
        if value < least:
            raise UserError(f"{name}={value} must be ≥ {least}")
    config = run_config.load(workdir)
    experiment = setup.experiment(config)
    extract = quality.extractor(extractor, experiment.image_shape)
    with Checkpoints(workdir) as checkpoints:
        step, params = checkpoints.restore_params(experiment.params_shape, ema=experiment.ema_decay)
    run = _Run(workdir, folder, config, experiment, step, params, seed)
    drawn, _ = samples.draw(experiment, params, max(num, _QUERIES), seed=seed, progress=True)
    sections = [
        pages.Section("Figures", _tried(_evaluation, run) + _tried(_likelihood, run)),
        pages.Section("Training", _tried(_training, run) + _tried(_loss_by_timestep, run, images)),
        pages.Section("Schedule", _tried(_schedule, run)),
        pages.Section("Samples", _samples(run, drawn[:num])),
        pages.Section("Denoising", _denoising(run, frames)),
        pages.Section("Consistency", _consistency(run, steps)),
        pages.Section("Interpolation", _slerps(run)),
        pages.Section("Nearest training images", _tried(_neighbours, run, extract, drawn[:_QUERIES], searched)),
        pages.Section("Config", [pages.folded("config.json", pages.code(config.to_json(indent=2)))]),
    ]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(experiment.params_shape))
    lead = [
        pages.paragraph(
            f"{config.data.source}, images of {' × '.join(map(str, experiment.image_shape))}; a UNet of {count:,} "
            f"parameters that predicts {experiment.target}, {config.schedule.name} schedule, T = "
            f"{experiment.schedule.num_timesteps}; step {step:,} of {config.train.steps:,}, EMA "
            f"{experiment.ema_decay}, seed {seed}."
        ),
        *([pages.code(command)] if command else []),
    ]
    return pages.page(workdir.resolve().name, lead, sections)


def _tried(section: Callable[..., list[str]], *args: Any) -> list[str]:
    """The section's blocks, or why there are none."""
    try:
        return section(*args)
    except UserError as error:
        return [pages.note(f"Not here: {error}")]


def _evaluation(run: _Run) -> list[str]:
    if not (path := run.workdir / "evaluation.json").exists():
        return []
    saved = read_json(path, "")
    with _reading("evaluation.json"):
        found, protocol = figures.from_record(saved)
        others = {name: value for name, value in saved.items() if name not in ("figures", "protocol")}
    rows = [*found.items(), *((name, _shown(value)) for name, value in others.items())]
    return [pages.heading("Against real images"), pages.table((), rows), pages.table((), protocol.cells().items())]


def _likelihood(run: _Run) -> list[str]:
    if not (path := run.workdir / "likelihood.json").exists():
        return []
    saved = read_json(path, "")
    with _reading("likelihood.json"):
        pairs = {name: saved[name] for name in ("bound", "L_T", "L_0", "exact") if name in saved}
        rows = [(name, f"{mean:.4g} ± {error:.2g}") for name, (mean, error) in pairs.items()]
    protocols = [pages.note(saved[name]) for name in ("protocol", "exact_protocol") if name in saved]
    return [pages.heading("Bits/dim (mean ± standard error)"), pages.table((), rows), *protocols]


def _training(run: _Run) -> list[str]:
    with naming("metrics.jsonl"):
        path = viz.training_loss(run.folder / "training_loss.png", metrics.read(run.workdir))
    return [pages.figure(path, "The training loss over steps.")]


def _loss_by_timestep(run: _Run, count: int) -> list[str]:
    """Of images held out, too, if there are."""
    trained_on, held_out, prepare = setup.images(run.config)
    total = run.experiment.schedule.num_timesteps
    t = np.unique(np.linspace(0, total - 1, min(_TIMESTEPS, total)).round().astype(int))
    loss = setup.objective(run.config, run.experiment, train=False)
    measured = {}
    for name, source in (("trained on", trained_on), ("held out", held_out)):
        found = min(count, len(source))
        if found < 2:
            continue
        with naming("config.data"):
            images, labels = on_images.read(source, prepare, found)
        parts, size = [], min(_BATCH, found)
        for start in range(0, found, size):
            # The last batch is filled up, so that one compilation serves all.
            numbers = np.arange(start, start + size) % found
            batch = {"image": jnp.asarray(images[numbers]), "label": jnp.asarray(labels[numbers])}
            keys = sample_keys(run.seed, start, size)
            parts.append(np.asarray(losses.by_timestep(loss, run.params, batch, t, keys)))
        measured[name] = np.concatenate(parts, axis=1)[:, :found]
    path = viz.loss_by_timestep(run.folder / "loss_by_timestep.png", t, measured)
    caption = (
        f"The training objective by timestep, with the EMA parameters and without dropout, at {len(t)} timesteps, one "
        "draw of the noise an image, whichever set it is of; shaded: ± one standard error over the images."
    )
    return [pages.figure(path, caption)]


def _schedule(run: _Run) -> list[str]:
    path = viz.schedule(run.folder / "schedule.png", run.experiment.schedule)
    return [pages.figure(path, f"The {run.config.schedule.name} schedule over t.")]


def _samples(run: _Run, samples: np.ndarray) -> list[str]:
    path = viz.save_png(run.folder / "samples.png", viz.grid(pictures.thumbnails(samples), columns=8))
    options = ", ".join(f"{name} {value}" for name, value in run.config.sample.items() if value not in (None, ""))
    blocks = [pages.figure(path, f"{len(samples)} samples: {options}, seed {run.seed}.")]
    for name, what in (("ddpm", "by DDPM, every timestep"), ("ddim", "by DDIM, η = 0")):
        if (path := run.workdir / f"samples_{name}.png").exists():
            blocks.append(pages.folded(f"Left by the training: {what}", pages.figure(path, path.name)))
    return blocks


def _denoising(run: _Run, frames: int) -> list[str]:
    schedule = run.experiment.schedule
    frames = min(frames, schedule.num_timesteps + 1)
    variance = "learned_range" if run.experiment.learns_variance else "fixed_small"
    x, x0, animation = pictures.denoising(
        schedule, run.predict, run.experiment.image_shape, run.folder, seed=run.seed, variance=variance, frames=frames
    )
    how = f"ancestral, {frames - 1} of {schedule.num_timesteps} timesteps, {variance}"
    return [
        pages.figure(animation, f"x_t and the x̂0 predicted from it ({how}); each frame shows the level it is at."),
        pages.figure(x0, f"The x̂0 of one sample, below each the level from which it was predicted ({how})."),
        pages.folded("x_t of the same", pages.figure(x, "x_t, each frame at the level below it.")),
    ]


def _consistency(run: _Run, steps: Sequence[int]) -> list[str]:
    schedule = run.experiment.schedule
    counts = sorted({min(count, schedule.num_timesteps) for count in steps})
    path = run.folder / "consistency.png"
    pictures.consistency(schedule, run.predict, run.experiment.image_shape, path, seed=run.seed, counts=counts)
    return [pages.figure(path, "DDIM, η = 0, from the same noise in different numbers of steps S.")]


def _slerps(run: _Run) -> list[str]:
    schedule, path = run.experiment.schedule, run.folder / "slerp.png"
    num_steps = min(50, schedule.num_timesteps)
    pictures.slerps(schedule, run.predict, run.experiment.image_shape, path, seed=run.seed, num_steps=num_steps)
    told = "" if run.experiment.model.num_classes is None else ", all of class 0"
    return [pages.figure(path, f"Between four noises, in the corners, by slerp; DDIM, η = 0, {num_steps} steps{told}.")]


def _neighbours(run: _Run, extract: evaluation.Extractor, samples: np.ndarray, searched: int) -> list[str]:
    """Of samples, among the images that were trained on."""
    source, _, prepare = setup.images(run.config)
    count = min(searched, len(source))
    with naming("config.data"):
        real, _ = on_images.read(source, prepare, count)
    found = evaluation.nearest(extract(samples).features, extract(real).features, min(_NEIGHBOURS, count))
    shown = (pictures.thumbnails(images) for images in (samples, real[found.indices]))
    path = viz.save_png(run.folder / "neighbours.png", viz.neighbours(*shown, found.distances))
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
    """A file that says something else than its command writes is a `UserError`."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{name} is not as its command writes it ({type(error).__name__}: {error})") from error
