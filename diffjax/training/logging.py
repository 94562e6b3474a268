"""Logging of metrics: `metrics.jsonl`, TensorBoard event files, optionally Weights & Biases; without TensorFlow."""

import importlib.util
import io
import json
import os
import socket
import tempfile
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from diffjax.errors import UserError, writing
from diffjax.files import in_bucket, to_path, upload, write
from diffjax.json_files import with_checksum, without_checksum

_UPLOAD_SECONDS = 60
"""The time after which what was written is copied to a bucket, beside every checkpoint."""


class MetricWriter:
    """Appends to `workdir/metrics.jsonl`, `workdir/tensorboard/` and, with a project, to Weights & Biases.

    For a workdir in a bucket the files are written to a temporary folder, and copied with each checkpoint, after a
    minute, and at the end.

    Use as a context manager. If the disk fills up later, a warning is shown and the run continues. With several
    processes, only the first one writes.

    Args:
      workdir: the folder of the run.
      step: the step from which training resumes. Reports after it, written by a run that stopped before its next
        checkpoint, are dropped: they will be written again.
      wandb: the Weights & Biases project, or None.
      config: the config to show in Weights & Biases.

    Raises:
      UserError: the files are not writable.
    """

    def __init__(self, workdir: str | os.PathLike, *, step: int, wandb: str | None = None, config: Any = None):
        workdir = to_path(workdir)
        self._sinks, self._failed, self._copy = [], set(), None
        if jax.process_index() == 0:
            with writing(workdir):
                folder = workdir
                if in_bucket(workdir):
                    self._copy = _Copy(workdir)
                    folder = self._copy.folder
                self._sinks = [_Jsonl(folder / "metrics.jsonl", step), _TensorBoard(folder / "tensorboard", step)]
                self._sinks += [self._copy] if self._copy else []
            if wandb is not None:
                self._sinks.append(_Wandb(workdir, wandb, config))

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_) -> None:
        for sink in self._sinks:
            self._try(sink, sink.close)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes one report; values that are not finite are kept."""
        for sink in self._sinks:
            self._try(sink, sink.write, step, values)

    def write_image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Logs a picture, uint8 `[H, W, 3]`, to TensorBoard and Weights & Biases."""
        for sink in self._sinks:
            self._try(sink, sink.write_image, step, name, picture)

    def flush(self) -> None:
        """Copies to a bucket what has been written; on this machine there is nothing to do."""
        if self._copy is not None:
            self._try(self._copy, self._copy.flush)

    def _try(self, sink, call, *args) -> None:
        try:
            call(*args)
            self._failed.discard(sink)
        except OSError as error:
            if sink not in self._failed:  # one warning, until it works again
                warnings.warn(f"cannot write metrics ({sink}): {error.strerror}; training goes on", stacklevel=4)
            self._failed.add(sink)


def check_wandb(project: str | None) -> None:
    """Checks that Weights & Biases is installed, if a project is given.

    Raises:
      UserError: it is not installed.
    """
    if project is not None and importlib.util.find_spec("wandb") is None:
        raise UserError(
            f"config.train.wandb: {project!r} needs the package wandb: pip install wandb, or set it to None"
        )


def read(workdir: str | os.PathLike) -> list[dict[str, float]]:
    """Returns the reports of `workdir/metrics.jsonl`, without lines that were cut short by a kill or are damaged.

    Raises:
      UserError: there is no such file, or it cannot be read.
    """
    path = to_path(workdir) / "metrics.jsonl"
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    reports = [report for line in lines if (report := _report(line)) is not None]
    if damaged := len(lines) - len(reports):
        warnings.warn(f"{path}: {damaged} of {len(lines)} lines are damaged, and left out", stacklevel=2)
    return reports


class _Jsonl:
    def __init__(self, path: Path, step: int):
        self._path, self._pending = path, b""
        if path.exists():
            reports = ((line, _report(line)) for line in path.read_bytes().splitlines())
            write(path, b"".join(line + b"\n" for line, report in reports if report and report["step"] <= step))
        self._file = path.open("ab", buffering=0)

    def write(self, step: int, values: dict[str, float]) -> None:
        self._pending += json.dumps(with_checksum({"step": step, **values})).encode() + b"\n"
        while self._pending:  # what a full disk did not take is written next time
            self._pending = self._pending[self._file.write(self._pending) :]

    def write_image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Does nothing: the file holds only numbers."""

    def close(self) -> None:
        self._file.close()

    def __str__(self) -> str:
        return str(self._path)


class _TensorBoard:
    """Writes event files in this thread: after a full disk, the thread of TensorBoard's own writer writes no more."""

    def __init__(self, folder: Path, step: int):
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._events = RecordWriter((folder / name).open("wb"))
        self._write(file_version="brain.Event:2")
        self._write(step=step + 1, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def write(self, step: int, values: dict[str, float]) -> None:
        shown = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=summary_pb2.Summary(value=shown))

    def write_image(self, step: int, name: str, picture: np.ndarray) -> None:
        encoded = io.BytesIO()
        Image.fromarray(picture).save(encoded, format="PNG")
        height, width, channels = picture.shape
        image = summary_pb2.Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=encoded.getvalue()
        )
        shown = summary_pb2.Summary.Value(tag=name, image=image)
        self._write(step=step, summary=summary_pb2.Summary(value=[shown]))

    def _write(self, **fields: Any) -> None:
        event = event_pb2.Event(wall_time=time.time(), **fields)
        self._events.write(event.SerializeToString())
        self._events.flush()

    def close(self) -> None:
        self._events.close()

    def __str__(self) -> str:
        return str(self._folder)


class _Copy:
    """Copies `metrics.jsonl` and this process's event files from a temporary folder to a workdir in a bucket."""

    def __init__(self, workdir: Path):
        self._workdir, self._temporary, self._last = workdir, tempfile.TemporaryDirectory(), time.monotonic()
        self.folder = Path(self._temporary.name)
        if (path := workdir / "metrics.jsonl").exists():
            write(self.folder / path.name, path.read_bytes())

    def write(self, step: int, values: dict[str, float]) -> None:
        if time.monotonic() - self._last > _UPLOAD_SECONDS:
            self.flush()

    def write_image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Does nothing: the next report or checkpoint copies the picture too."""

    def flush(self) -> None:
        self._last = time.monotonic()
        upload(self.folder, self._workdir)

    def close(self) -> None:
        self.flush()
        self._temporary.cleanup()

    def __str__(self) -> str:
        return str(self._workdir)


class _Wandb:
    """Writes to one Weights & Biases run for each workdir, continued when training resumes."""

    def __init__(self, workdir: Path, project: str, config: Any):
        import wandb

        path = workdir / "wandb_id"
        with writing(path):
            if not path.exists():
                write(path, uuid.uuid4().hex[:12])
        self._run = wandb.init(
            project=project,
            id=path.read_text(),
            name=workdir.resolve().name,
            dir=tempfile.gettempdir() if in_bucket(workdir) else workdir,
            resume="allow",
            config=config,
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def write_image(self, step: int, name: str, picture: np.ndarray) -> None:
        import wandb

        self._run.log({name: wandb.Image(picture)}, step=step)

    def close(self) -> None:
        self._run.finish()

    def __str__(self) -> str:
        return "Weights & Biases"


def _report(line: bytes) -> dict[str, float] | None:
    """Returns the report that a line holds; None if the line was cut short or is damaged."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    found = without_checksum(found) if isinstance(found, dict) else None
    numbers = found is not None and all(map(_is_number, found.values()))
    return found if numbers and 0 <= found.get("step", -1) < float("inf") else None


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)
