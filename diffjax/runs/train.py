"""The training loop: `train` builds what a config describes, then trains, reports and saves, or resumes."""

import os
import warnings
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from tqdm.auto import tqdm

from diffjax import data, viz
from diffjax.errors import UserError, naming
from diffjax.files import remove_leftovers, to_path
from diffjax.runs import build, resolve, run, saved
from diffjax.tasks.base import Task
from diffjax.training import peers, state, timestep_sampling
from diffjax.training.checkpoints import Checkpoints, has_checkpoint
from diffjax.training.lock import locked
from diffjax.training.logging import MetricWriter, check_wandb
from diffjax.training.preemption import Preemption
from diffjax.training.profiling import Profiler
from diffjax.training.reporting import Reporter
from diffjax.training.step import all_devices, make_train_step, put_batches, put_on_device, replicate

_SHOWN = 8
"""The largest number of real images in a preview."""


def train(
    config: ml_collections.ConfigDict | dict[str, Any],
    workdir: str | os.PathLike,
    *,
    progress: bool = True,
    profile: bool = False,
) -> state.TrainState:
    """Trains to `config.train.steps` in `workdir`, resuming from the newest readable checkpoint there.

    Writes `config.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/` and a grid of EMA samples every so often
    under `samples/`. The same config and the same number of devices give bit-equal parameters, interrupted or not.
    On SIGTERM and SIGINT it finishes the current step and saves; the state returned is then short of
    `config.train.steps`. Before the first step and after the last one, when there is nothing to save, signals act as
    usual.

    With several processes (`launch.start`), each calls this with the same arguments. `workdir` is a folder that all of
    them see; only the first writes there, except that each writes its part of the checkpoints.

    Args:
      config: the experiment; fields that it leaves out get their defaults.
      workdir: a folder, made if it does not exist, or gs://BUCKET/FOLDER; only one run at a time may use it.
      progress: whether to show a progress bar.
      profile: whether to trace a few steps, after those that compile, to `workdir/profile`.

    Raises:
      UserError: before any training, an invalid config, a workdir that is another run's or cannot be written, or
        only unreadable checkpoints; later, more than `config.train.max_nonfinite_steps` steps in a row whose
        loss or gradient is not finite, or a checkpoint that cannot be written.
    """
    config = saved.with_imports(resolve.resolve(config))
    workdir, devices, first = to_path(workdir), all_devices(), jax.process_index() == 0
    task = build.task(config)
    build.sampling(config, task)
    training = build.training(config, task, len(devices))
    parts = initial_parts(task, workdir)
    peers.check_agreement(_facts(config, training.images))
    options = config.train
    check_wandb(options.wandb)
    with locked(workdir):
        if first:
            saved.save(config, workdir)
        with Checkpoints(workdir, keep=options.max_to_keep) as checkpoints:
            current, position = _start(config, task, training, checkpoints, parts)
            start = int(current.step)
            feed = _feed(config, task, training.images, position)
            train_step = make_train_step(
                task.loss(),
                training.optimizer,
                devices=devices,
                steps_per_call=options.steps_per_call,
                sample_batch=_sample_batch(config),
                **build.step_options(config, task),
            )
            with (
                MetricWriter(workdir, step=start, wandb=options.wandb, config=resolve.to_dict(config)) as writer,
                Profiler(workdir / "profile" if profile and first else None) as profiler,
                tqdm(
                    total=options.steps, initial=start, unit="step", desc="training", disable=not (progress and first)
                ) as bar,
            ):
                if start and first:
                    bar.write(f"resuming from step {start}")
                reporter = Reporter(
                    writer,
                    bar,
                    training.learning_rate,
                    options,
                    checkpoints,
                    _name_example(config, training.images, current.key),
                )
                pictures = _Pictures(config, task, training.images, workdir, writer, progress)
                if first and 0 < start < options.steps and start % options.sample_every == 0:
                    pictures.preview(current, again=False)
                current = train_step.shard(current)
                with Preemption() as preemption:
                    for step in range(start + options.steps_per_call, options.steps + 1, options.steps_per_call):
                        with naming("config.data"):
                            batch = next(feed)
                        with profiler.step(step):
                            current, metrics = train_step(current, batch)
                        reporter.add(step, metrics)
                        done = range(step - options.steps_per_call + 1, step + 1)
                        stop = preemption.reached(done) or step == options.steps
                        if stop or step % options.checkpoint_every == 0:
                            reporter.finish(step) if step == options.steps else reporter.flush()
                            writer.flush()
                            checkpoints.save(train_step.gather(current), feed.get_state())
                        if stop:
                            break
                        if step % options.sample_every == 0:
                            whole = train_step.gather(current)  # with all processes
                            if first:
                                reporter.flush()
                                pictures.preview(whole)
                                reporter.restart_clock()
                            del whole
                    checkpoints.wait()
                current = train_step.gather(current)
                if preemption.caught and int(current.step) == options.steps:
                    raise KeyboardInterrupt  # what comes after the last step waits for the next start
                if first and options.final_pictures and int(current.step) == options.steps:
                    bar.close()
                    if start < options.steps or not pictures.closing_exist():
                        pictures.closing(current)
            feed.close()
    return current


def examples(config: ml_collections.ConfigDict, task: Task, images: build.Images) -> dict[str, np.ndarray]:
    """Returns the first images (held-out ones if there are any) and their conditions, uint8 `[≤ 8, H, W, C]` each.

    For a task without conditions it returns {}.
    """
    if not task.is_conditional:
        return {}
    source = images.held_out if len(images.held_out) else images.source
    with naming("config.data"):
        made = [
            data.prepared(source[n], np.random.default_rng((config.seed, n)), images.prepare, images.degrade)
            for n in range(min(_SHOWN, len(source)))
        ]
    return {name: np.stack([example[name] for example in made]) for name in ("image", "condition")}


_OWN_FIELDS = ("imports", "data.path", "data.data_dir", "task.predictor_workdir", "task.teacher")
"""Fields that may differ between the processes of a run: each host may have its own copy of the data."""


def _facts(config: ml_collections.ConfigDict, images: build.Images) -> dict[str, Any]:
    """Returns what must be the same in all processes of a run: the config, and what identifies the training images."""
    fields = {name: value for name, value in resolve.flatten(config).items() if name not in _OWN_FIELDS}
    source = images.source
    labels = data.subsets.known_labels(source)
    return {f"config.{name}": value for name, value in fields.items()} | {
        "the number of images": len(source),
        "the checksum of the labels": None if labels is None else zlib.crc32(np.asarray(labels, np.int64).tobytes()),
        "the checksum of the first image": zlib.crc32(np.ascontiguousarray(source[0]["image"])),
        "the checksum of the last image": zlib.crc32(np.ascontiguousarray(source[len(source) - 1]["image"])),
    }


def _name_example(config: ml_collections.ConfigDict, images: build.Images, key: jax.Array) -> Callable[[int], str]:
    """Returns a function from the number of an example since the first step to its name, as `Reporter` takes it.

    Args:
      config: the config.
      images: the training images.
      key: the key of the training state.
    """
    key = jax.random.wrap_key_data(np.asarray(jax.random.key_data(key)))  # the step donates the state

    def name(number):
        if config.data.on_device:
            step, place = divmod(number, config.train.batch_size)
            index = data.on_device.sampled_index(len(images.source), key, step, place)
        else:
            index = data.source_index(images.source, seed=config.seed, number=number)
        return build.name_image(images.everything, int(images.source.indices[index]))

    return name


def _start(
    config: ml_collections.ConfigDict,
    task: Task,
    training: build.Training,
    checkpoints: Checkpoints,
    parts: dict[str, Any],
) -> tuple[state.TrainState, dict | None]:
    """Returns the (state, position in the data) to begin with: fresh, or from the newest checkpoint."""
    history = timestep_sampling.initial_history(config.train.timestep_sampling, task.schedule.num_timesteps)

    def create(key, parts):
        init = partial(task.init, **parts)
        return state.create(init, training.optimizer, key, ema_decays=config.train.ema_decays, history=history)

    # This program runs once: on the CPU, optimizing it would take longer than running it unoptimized.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    made = jax.jit(create, compiler_options=options)(jax.random.key(config.seed), parts)
    fresh = replicate(made, jax.local_devices())
    return (fresh, None) if checkpoints.latest_step is None else checkpoints.restore(fresh)


def initial_parts(task: Task, workdir: Path) -> dict[str, Any]:
    """Returns the parts of the parameters that are initialised from other runs; {} where training resumes.

    Raises:
      UserError: a workdir that does not hold such a network.
    """
    if has_checkpoint(workdir):
        return {}
    return {name: run.load_part(part).sampled_params for name, part in task.initial_parts.items()}


def _feed(
    config: ml_collections.ConfigDict, task: Task, images: build.Images, position: dict | None
) -> data.Prefetch | data.on_device.OnDevice:
    """Returns an iterator over the inputs of the training step, starting at a position.

    It checks the labels of what it reads, since some sources do not show them before.
    """
    devices = jax.local_devices()
    if config.data.on_device:
        with naming("config.data"):
            loaded = data.on_device.load(images.source, images.prepare, images.degrade)
        task.check_labels(loaded["label"])
        return data.on_device.OnDevice(put_on_device(loaded, devices))
    batches = data.batches(
        images.source,
        batch_size=config.train.batch_size,
        seed=config.seed,
        prepare=images.prepare,
        degrade=images.degrade,
        start=position,
        num_workers=config.data.num_workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )

    def put(taken):
        for batch in taken:
            task.check_labels(batch["label"], "image {} of a batch".format)
        return put_batches(taken, devices=devices)

    return data.Prefetch(batches, put, config.train.steps_per_call)


def _sample_batch(config: ml_collections.ConfigDict):
    if not config.data.on_device:
        return None
    return partial(data.on_device.sample_batch, random_flip=config.data.random_flip)


def _ema(config: ml_collections.ConfigDict, current: state.TrainState) -> Any:
    return current.ema_params[config.train.ema_decays[0]]


class _Pictures:
    """Draws the pictures of a run, and saves them in its workdir."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        task: Task,
        images: build.Images,
        workdir: Path,
        writer: MetricWriter,
        progress: bool,
    ):
        self._config, self._task, self._images = config, task, images
        self._workdir, self._writer, self._progress = workdir, writer, progress
        self._how = build.sampling(config, task)
        remove_leftovers(workdir / "samples")

    def preview(self, current: state.TrainState, *, again: bool = True) -> None:
        """Draws the preview of a step; with `again=False` only if it is missing, as after a kill."""
        step = int(current.step)
        path = self._workdir / "samples" / f"step_{step:07d}.png"
        if again or not path.exists():
            try:
                picture = self._task.preview(_ema(self._config, current), self._how, self._examples())
            except UserError as error:  # images that are not finite
                warnings.warn(f"no samples at step {step}: {error}", stacklevel=2)
                return
            _save(self._writer, path, picture, step)

    def closing(self, current: state.TrainState) -> None:
        """Draws the pictures with which training ends."""
        params, step = jax.device_get(_ema(self._config, current)), int(current.step)
        how = self._how._replace(progress="pictures" if self._progress else False)
        for name, picture in self._task.pictures(params, how, self._examples()).items():
            _save(self._writer, self._workdir / f"{name}.png", picture, step)

    def closing_exist(self) -> bool:
        """Returns whether all of these pictures exist."""
        return all((self._workdir / f"{name}.png").exists() for name in self._task.picture_names)

    def _examples(self) -> dict[str, np.ndarray]:
        return examples(self._config, self._task, self._images)


def _save(writer: MetricWriter, path: Path, picture: np.ndarray, step: int) -> None:
    """Writes and logs a picture; if it cannot be written, warns, and training goes on."""
    writer.write_image(step, path.stem if path.parent.name != "samples" else "samples", picture)
    try:
        viz.save_png(path, picture)
    except OSError as error:
        warnings.warn(f"cannot write {path}: {error.strerror}; training goes on", stacklevel=2)
