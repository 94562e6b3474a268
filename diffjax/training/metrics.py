"""Metrics on disk: `metrics.jsonl`, one line a report, and TensorBoard event files. No TensorFlow."""

import json
import os
from pathlib import Path

from tensorboardX import SummaryWriter


class MetricWriter:
    """Appends to `workdir/metrics.jsonl` and `workdir/tensorboard/`. Use as a context manager.

    Args:
      step: the step training goes on from. Reports after it, left by a run that was stopped before its next
        checkpoint, are dropped: they will be made again.
    """

    def __init__(self, workdir: str | os.PathLike, *, step: int):
        path = Path(workdir) / "metrics.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
            part = path.with_name(path.name + ".part")
            part.write_text("".join(line + "\n" for line in kept))
            part.replace(path)
        self._jsonl = path.open("a")
        self._events = SummaryWriter(str(Path(workdir) / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_) -> None:
        self._jsonl.close()
        self._events.close()

    def write(self, step: int, values: dict[str, float]) -> None:
        """One report: finite or not, each value is written as it is."""
        self._jsonl.write(json.dumps({"step": step, **values}) + "\n")
        self._jsonl.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)


def _step_of(line: str) -> float:
    """A report's step; infinite for a line that a kill cut short."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")
