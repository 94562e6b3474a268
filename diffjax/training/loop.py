"""The training loop, top to bottom."""

import os
import time
import warnings
from functools import partial
from pathlib import Path

import jax
import ml_collections
import numpy as np
from tqdm import tqdm

from diffjax import data, viz
from diffjax.errors import UserError, naming
from diffjax.tasks import generation
from diffjax.training import draws, restoration, run_config, setup, state, trained
from diffjax.training.checkpoints import Checkpoints
from diffjax.training.metrics import MetricWriter, check_wandb
from diffjax.training.preemption import Preemption
from diffjax.training.profiling import Profiler
from diffjax.training.reports import summarize
from diffjax.training.step import all_devices, make_train_step, put_batches, put_resident, replicate
from diffjax.training.workdir import locked


def train(
    config: ml_collections.ConfigDict, workdir: str | os.PathLike, *, progress: bool = True, profile: bool = False
) -> state.TrainState:
    """Trains to `config.train.steps` in `workdir`, going on from the newest checkpoint there that can be read.

    Writes `config.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/` and a grid of EMA samples every so often
    under `samples/`. The same config and the same number of devices give bit-equal parameters, stopped or not. SIGTERM
    and SIGINT end the step under way and save: the state returned is then short of `config.train.steps`.

    Among several processes (`launch.start`) each calls this with the same arguments. `workdir` is a folder that all of
    them see; the first alone writes, but for its part of the checkpoints.

    Args:
      config: the experiment.
      workdir: made if it is not there; one run at a time holds it.
      progress: a progress bar.
      profile: also trace a few steps, after those that compile, to `workdir/profile`.

    Raises:
      UserError: before any training, a config that cannot be, a workdir that is another run's or cannot be written, or
        checkpoints none of which can be read; later, more than `config.train.max_skipped` steps in a row whose loss or
        gradient is not finite, or a checkpoint that cannot be written.
    """
    workdir, devices, first = Path(workdir), all_devices(), jax.process_index() == 0
    experiment = setup.experiment(config)
    objective = setup.objective(config, experiment)
    training = setup.training(config, experiment.image_shape, len(devices))
    predictor = trained.predictor(config, experiment, workdir)
    check_wandb(config.train.wandb)
    per_dispatch = config.train.steps_per_dispatch
    with Preemption() as preemption, locked(workdir):
        if first:
            run_config.save(config, workdir)
        with Checkpoints(workdir, keep=config.train.keep) as checkpoints:
            current, position = _start(config, experiment, training, checkpoints, predictor)
            start = int(current.step)
            feed = _feed(config, training, position)
            train_step = make_train_step(
                objective,
                training.optimizer,
                num_timesteps=experiment.schedule.num_timesteps,
                batch_size=config.train.batch_size,
                devices=devices,
                timesteps=config.train.timesteps,
                accumulate=config.train.accumulate,
                steps_per_dispatch=per_dispatch,
                draw_batch=partial(data.resident.draw, flip=config.data.flip) if config.data.resident else None,
            )
            with (
                MetricWriter(workdir, step=start, wandb=config.train.wandb, config=config.to_dict()) as writer,
                Profiler(workdir / "profile" if profile and first else None) as profiler,
                tqdm(
                    total=config.train.steps, initial=start, unit="step", desc="training",
                    disable=not (progress and first),
                ) as bar,
            ):  # fmt: skip
                if start and first:
                    bar.write(f"going on from step {start}")
                report = _Report(writer, bar, training.learning_rate, config.train, checkpoints)
                for step in range(start + per_dispatch, config.train.steps + 1, per_dispatch):
                    with naming("config.data"):
                        batch = next(feed)
                    with profiler.step(step):
                        current, metrics = train_step(current, batch)
                    report.add(step, metrics)
                    done = range(step - per_dispatch + 1, step + 1)
                    stop = preemption.reached(done) or step == config.train.steps
                    if stop or step % config.train.checkpoint_every == 0:
                        report.flush()
                        checkpoints.save(current, feed.get_state())
                    if stop:
                        break
                    if step % config.train.sample_every == 0 and first:
                        report.flush()
                        _draw(config, experiment, training, current, workdir / "samples" / f"step_{step:07d}.png")
                        report.restart_clock()
            feed.close()
    return current


def _start(config, experiment, training, checkpoints: Checkpoints, predictor) -> tuple[state.TrainState, dict | None]:
    """(state, data position) to begin with: fresh, or of the newest checkpoint."""
    total = experiment.schedule.num_timesteps
    history = draws.empty_history(total) if config.train.timesteps == "importance" else None

    def create(key, predictor):
        init = partial(setup.init, experiment, predictor=predictor)
        decays = tuple(config.train.ema_decays)
        return state.create(init, training.optimizer, key, ema_decays=decays, history=history)

    # One-off draws: on the CPU, optimizing the program takes longer than running it plain.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    made = jax.jit(create, compiler_options=options)(jax.random.key(config.seed), predictor)
    fresh = replicate(made, jax.local_devices())
    return (fresh, None) if checkpoints.latest_step is None else checkpoints.restore(fresh)


def _feed(config, training, position: dict | None) -> data.Prefetch | data.resident.Resident:
    """What the step is given, dispatch after dispatch, from a position on."""
    devices = jax.local_devices()
    if config.data.resident:
        return data.resident.Resident(
            put_resident(data.resident.load(training.source, training.prepare, training.degrade), devices)
        )
    batches = data.batches(
        training.source,
        batch_size=config.train.batch_size,
        seed=config.seed,
        prepare=training.prepare,
        degrade=training.degrade,
        start=position,
        workers=config.data.workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    return data.Prefetch(batches, partial(put_batches, devices=devices), config.train.steps_per_dispatch)


def _draw(config, experiment, training, current: state.TrainState, path: Path) -> None:
    """A grid of samples; a disk that does not take it is warned of."""
    params = current.ema_params[experiment.ema_decay]
    if experiment.task is not None:
        picture = restoration.picture(experiment, params, restoration.examples(config, training))
    else:
        num = generation.grid_size(experiment.model.num_classes)
        predict = setup.sample_predictor(experiment, params, np.arange(num))
        ((_, images),) = generation.images(
            experiment.steps, predict, experiment.image_shape, seed=0, num=num, batch_size=num
        )
        picture = generation.grid(images, experiment.model.num_classes)
    try:
        viz.save_png(path, picture)
    except OSError as error:
        warnings.warn(f"cannot write {path}: {error.strerror}; training goes on", stacklevel=2)


class _Report:
    """Reads metrics one step late, so that the next step is already running; writes a mean every `log_every` steps."""

    def __init__(self, writer, bar, learning_rate, options, checkpoints):
        self._writer, self._bar, self._learning_rate = writer, bar, learning_rate
        self._options, self._checkpoints = options, checkpoints
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self._window: list[dict[str, np.ndarray]] = []
        self._since: float | None = None
        self._timed_steps = 0

    def restart_clock(self) -> None:
        """Leaves the time since the last report out of images/s."""
        self._since, self._timed_steps = time.perf_counter(), 0

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        self.flush()
        self._pending = step, metrics

    def flush(self) -> None:
        """Reads what is pending.

        Raises:
          UserError: too many steps in a row whose loss or gradient is not finite.
        """
        if self._pending is None:
            return
        self._checkpoints.check()
        step, metrics = self._pending
        self._pending = None
        metrics = jax.device_get(metrics)
        if (skipped := int(np.max(metrics["skipped"]))) > self._options.max_skipped:
            raise UserError(
                f"loss or gradient of {skipped} steps in a row, up to step {step}, are not finite "
                f"(config.train.max_skipped is {self._options.max_skipped}); the last checkpoint is that of step "
                f"{self._checkpoints.latest_step} (try a lower config.optimizer.learning_rate)"
            )
        self._window.append(metrics)
        if self._since is None:  # the first step compiled: the clock starts after it
            self._since = time.perf_counter()
        else:
            self._timed_steps += len(metrics["loss"])
        self._bar.update(len(metrics["loss"]))
        if step % self._options.log_every == 0 or step == self._options.steps:
            means = summarize(self._window)
            means["learning_rate"] = float(self._learning_rate(step - 1))
            elapsed = time.perf_counter() - self._since
            means["images_per_second"] = self._timed_steps * self._options.batch_size / elapsed
            self._writer.write(step, means)
            loss = means.get("loss", float("nan"))
            self._bar.set_postfix_str(f"loss {loss:.4f}, {means['images_per_second']:.0f} images/s")
            self._window = []
            self.restart_clock()
