"""The training loop, top to bottom."""

import os
import time
from functools import partial
from pathlib import Path

import jax
import ml_collections
import numpy as np
from tqdm import tqdm

from diffjax import data, viz
from diffjax.errors import UserError, naming
from diffjax.tasks import generation
from diffjax.training import draws, setup, state
from diffjax.training.checkpoints import Checkpoints
from diffjax.training.metrics import MetricWriter
from diffjax.training.reports import summarize
from diffjax.training.step import make_train_step, put_batches, replicate

_PREVIEWS = generation.NUM_PICTURES


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike, *, progress: bool = True) -> state.TrainState:
    """Trains to `config.train.steps` in `workdir`, going on from the newest checkpoint there if there is one.

    Writes `config.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/` and a grid of EMA samples every so often
    under `samples/`. The same config and the same number of devices give bit-equal parameters, stopped or not.

    Raises:
      UserError: a config that cannot be, a workdir of another config, an unreadable checkpoint (before any training),
        or more than `config.train.max_skipped` steps in a row whose loss or gradient is not finite.
    """
    workdir, devices = Path(workdir), jax.local_devices()
    experiment = setup.experiment(config)
    objective = setup.objective(config, experiment)
    training = setup.training(config, experiment.image_shape, len(devices))
    total, per_dispatch = experiment.schedule.num_timesteps, config.train.steps_per_dispatch
    setup.save_config(config, workdir)

    init = partial(setup.init_params, experiment.model, experiment.image_shape)
    with Checkpoints(workdir, keep=config.train.keep) as checkpoints:
        # One-off draws: on the CPU, optimizing the program takes longer than running it plain.
        options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
        history = draws.empty_history(total) if config.train.timesteps == "importance" else None
        create = partial(
            state.create, init, training.optimizer, ema_decays=tuple(config.train.ema_decays), history=history
        )
        create = jax.jit(create, compiler_options=options)
        current, position = replicate(create(jax.random.key(config.seed)), devices), None
        if checkpoints.latest_step is not None:
            current, position = checkpoints.restore(current)
        start = int(current.step)
        batches = data.batches(
            training.source,
            batch_size=config.train.batch_size,
            seed=config.seed,
            prepare=training.prepare,
            start=position,
            workers=config.data.workers,
        )
        feed = data.Prefetch(batches, partial(put_batches, devices=devices), per_dispatch)
        train_step = make_train_step(
            objective,
            training.optimizer,
            num_timesteps=total,
            batch_size=config.train.batch_size,
            devices=devices,
            timesteps=config.train.timesteps,
            accumulate=config.train.accumulate,
            steps_per_dispatch=per_dispatch,
        )
        with (
            MetricWriter(workdir, step=start) as writer,
            tqdm(total=config.train.steps, initial=start, unit="step", desc="training", disable=not progress) as bar,
        ):
            if start:
                bar.write(f"going on from step {start}")
            report = _Report(writer, bar, training.learning_rate, config.train, checkpoints)
            for step in range(start + per_dispatch, config.train.steps + 1, per_dispatch):
                with naming("config.data"):
                    batch = next(feed)
                current, metrics = train_step(current, batch)
                report.add(step, metrics)
                last = step == config.train.steps
                if last or step % config.train.checkpoint_every == 0:
                    report.flush()
                    checkpoints.save(current, feed.get_state())
                if step % config.train.sample_every == 0 and not last:
                    report.flush()
                    labels = generation.labels(experiment.model, np.arange(_PREVIEWS))
                    predict = setup.predictor(experiment, current.ema_params[experiment.ema_decay], **labels)
                    ((_, images),) = generation.images(
                        experiment.steps, predict, experiment.image_shape, seed=0, num=_PREVIEWS, batch_size=_PREVIEWS
                    )
                    viz.save_png(workdir / "samples" / f"step_{step:07d}.png", viz.grid(images, columns=8))
                    report.restart_clock()
    return current


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
