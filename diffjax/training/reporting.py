"""Turns the metrics of steps into reports, and ends a training whose loss or gradient is not finite."""

import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from tqdm.auto import tqdm

from diffjax.errors import UserError
from diffjax.training.checkpoints import Checkpoints
from diffjax.training.logging import MetricWriter
from diffjax.training.optimizers import LearningRate


def summarize(window: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Returns one report for the metrics of several calls (`make_train_step`), on the host.

    `loss` and `grad_norm` are means over the steps that were not skipped; `loss_t0`, `loss_t1`, … are the mean losses
    in equal parts of 0 … T-1; `skipped` is the number of skipped steps. Means over no steps are left out.
    """
    columns = {name: np.concatenate([metrics[name] for metrics in window]) for name in window[0]}
    kept = columns["skipped"] == 0
    report = {"skipped": float(np.sum(~kept))}
    if not kept.any():
        return report
    report |= {name: float(np.mean(columns[name][kept])) for name in ("loss", "grad_norm")}
    sums, weights = (np.sum(columns[name][kept], axis=0) for name in ("bucket_loss", "bucket_weight"))
    return report | {f"loss_t{n}": float(sums[n] / weights[n]) for n in np.flatnonzero(weights)}


class Reporter:
    """Reads metrics one call late, so that the next step is already running; reports a mean every `log_every` steps.

    Args:
      writer: the writer of the reports.
      bar: the progress bar.
      learning_rate: the learning rate of the optimizer.
      options: `config.train`.
      checkpoints: the checkpoints of the run, whose last one the error message names.
      name_example: (number of an example since the first step, from 0) → its name in a warning.
    """

    def __init__(
        self,
        writer: MetricWriter,
        bar: tqdm,
        learning_rate: LearningRate,
        options: Any,
        checkpoints: Checkpoints,
        name_example: Callable[[int], str],
    ):
        self._writer, self._bar, self._learning_rate = writer, bar, learning_rate
        self._options, self._checkpoints, self._name_example = options, checkpoints, name_example
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self._window: list[dict[str, np.ndarray]] = []
        self._since: float | None = None
        self._timed_steps = 0
        self._num_skipped = self._in_a_row = 0

    def restart_clock(self) -> None:
        """Excludes the time since the last report from images/s."""
        self._since, self._timed_steps = time.perf_counter(), 0

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Stores the metrics of the call that ended with `step`, and reads those of the call before it."""
        self.flush()
        self._pending = step, metrics

    def flush(self) -> None:
        """Reads the pending metrics.

        Raises:
          UserError: the loss or gradient was not finite in too many steps in a row.
        """
        if self._pending is None:
            return
        self._checkpoints.check()
        step, metrics = self._pending
        self._pending = None
        metrics = jax.device_get(metrics)
        if (skipped := int(np.max(metrics["skipped"]))) > self._options.max_nonfinite_steps:
            last = step - len(metrics["skipped"]) + 1 + int(np.argmax(metrics["skipped"]))
            raise self._not_finite(
                skipped, last, f"config.train.max_nonfinite_steps is {self._options.max_nonfinite_steps}"
            )
        self._warn_of_skipped(step - len(metrics["skipped"]) + 1, metrics)
        self._window.append(metrics)
        if self._since is None:  # the first step compiled: the clock starts after it
            self._since = time.perf_counter()
        else:
            self._timed_steps += len(metrics["loss"])
        self._bar.update(len(metrics["loss"]))
        if step % self._options.log_every == 0 or step == self._options.steps:
            self._report(step)

    def finish(self, step: int) -> None:
        """Reads the pending metrics of the last step, and tells how many steps were skipped in all.

        Raises:
          UserError: as `flush`; the last step was skipped, so that its state cannot be saved.
        """
        self.flush()
        if self._in_a_row:
            raise self._not_finite(self._in_a_row, step, "these are the last steps")
        if self._num_skipped > 1:
            warnings.warn(f"{self._num_skipped} steps were skipped in all", stacklevel=2)

    def _not_finite(self, skipped: int, last: int, why: str) -> UserError:
        """Returns the error for a training that ends in skipped steps, of which `last` is the last."""
        # No step could be taken from the state before them: if that was saved, it is ruined.
        self._checkpoints.set_aside_ruined(last - skipped)
        good = self._checkpoints.latest_step
        return UserError(
            f"loss or gradient of {skipped} steps in a row, up to step {last}, are not finite ({why}); "
            + ("there is no checkpoint" if good is None else f"the last checkpoint is that of step {good}")
            + " (try a lower config.optimizer.learning_rate)"
        )

    def _report(self, step: int) -> None:
        means = summarize(self._window)
        means["learning_rate"] = float(self._learning_rate(step - 1))
        elapsed = time.perf_counter() - self._since
        means["images_per_second"] = self._timed_steps * self._options.batch_size / elapsed
        self._writer.write(step, means)
        loss = means.get("loss", float("nan"))
        self._bar.set_postfix_str(f"loss {loss:.4f}, {means['images_per_second']:.0f} images/s")
        self._window = []
        self.restart_clock()

    def _warn_of_skipped(self, first: int, metrics: dict[str, np.ndarray]) -> None:
        """Warns when the first step is skipped; metrics.jsonl counts them all."""
        skipped = metrics["skipped"]
        if np.any(skipped) and not self._num_skipped:
            number = int(np.argmax(skipped > 0))
            warnings.warn(
                f"the loss or gradient of step {first + number} is not finite{self._cause(first, number, metrics)}: "
                "the step is skipped (metrics.jsonl counts them)",
                stacklevel=2,
            )
        self._num_skipped += int(np.sum(skipped > 0))
        self._in_a_row = int(skipped[-1])

    def _cause(self, first: int, number: int, metrics: dict[str, np.ndarray]) -> str:
        """Returns which examples of a step have a loss that is not finite; "" if that is none or all of them."""
        finite = metrics["finite"][number]
        bad = np.flatnonzero(~finite)
        if len(bad) in (0, len(finite)):
            return ""
        name = self._name_example((first + number - 1) * len(finite) + int(bad[0]))
        return f" (the losses of {len(bad)} of its {len(finite)} examples, such as {name})"
