"""Damages every byte of the files that commands read again, reads them, and counts how that ends (`counts.py` prints it).

A read may give what was written, or an error of one line, or nothing, so that it is computed again, or what was written
with a warning that something is left out. It must not give anything else.
"""

import collections
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from diffjax import interop, runs, samplers, schedules, viz
from diffjax.data import image_files
from diffjax.errors import UserError, naming
from diffjax.json_files import write_record
from diffjax.metrics import frechet, image_sets
from diffjax.metrics.features import classifier
from diffjax.report import workdirs
from diffjax.runs import resolve, sample_parts, saved
from diffjax.sweeps import cells
from diffjax.training import logging

FOREIGN = [
    b"", b"\n", b"\xff\xfe\x00\x80", b"{", b"null", b"[1]", b"7", b'"text"', b"{}", b"[" * 10**5,
    b"<!doctype html>", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04", b"\x80\x04\x95",
]  # fmt: skip
"""Contents that no command writes; the first is an empty one."""

RIGHT, ERROR, AGAIN, LEFT_OUT = "right", "one line", "computed again", "used with a warning"
OUTCOMES = RIGHT, ERROR, AGAIN, LEFT_OUT


class Kind(NamedTuple):
    """A file that a command writes and another, or the same, reads."""

    path: Path
    read: Callable[[], Any]
    """Returns what the file holds, or None where it is computed again."""
    partly: bool = False
    """Whether a part of a list may be left out, with a warning."""
    edited: bool = False
    """Whether a person may edit the file, so that another content is used with a warning."""


def contents(whole: bytes, most: int) -> Iterator[bytes]:
    """Yields foreign contents; then, at `most` places, the file cut, with a bit flipped, and with a byte set to zero."""
    yield from FOREIGN
    for n in np.unique(np.linspace(0, len(whole) - 1, min(most, len(whole))).astype(int)).tolist():
        yield whole[:n]
        for byte in {whole[n] ^ (1 << n % 8), 0} - {whole[n]}:
            yield whole[:n] + bytes([byte]) + whole[n + 1 :]


def count(kind: Kind, most: int) -> collections.Counter:
    """Returns how often each of `OUTCOMES` occurs.

    Raises:
      AssertionError: a read that ends otherwise.
    """
    whole, right = kind.path.read_bytes(), kind.read()
    assert right is not None
    counts = collections.Counter()
    try:
        for changed in contents(whole, most):
            kind.path.write_bytes(changed)
            found = outcome(kind, right, changed)
            assert found in OUTCOMES, found
            counts[found] += 1
    finally:
        kind.path.write_bytes(whole)
    return counts


def outcome(kind: Kind, right: Any, changed: bytes) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = kind.read()
        except UserError as error:
            return ERROR if "\n" not in str(error) else str(error)
        except Exception as error:
            raise AssertionError(f"{kind.path.name}: {changed[:2000]!r} ends in a traceback") from error
    messages = [str(warning.message) for warning in caught if warning.category is UserWarning]
    if found is None:
        return AGAIN
    if same(found, right):
        return RIGHT
    if kind.partly and found == right[: len(found)] and changed.rstrip(b"\n").endswith(b"}"):
        return LEFT_OUT  # cut at the end of a line, the file is that of an earlier step
    assert messages, f"{kind.path.name}: {changed[:2000]!r} is read as {found!r:.2000}, without a word"
    assert kind.edited or (kind.partly and all(entry in right for entry in found)), (changed[:2000], found)
    return LEFT_OUT


def same(a: Any, b: Any) -> bool:
    """Returns whether two nested values are equal, to the bit and in their structure."""
    a, b = jax.tree.flatten(a), jax.tree.flatten(b)
    return a[1] == b[1] and all(
        np.array_equal(x, y) and getattr(x, "dtype", type(x)) == getattr(y, "dtype", type(y))
        for x, y in zip(a[0], b[0], strict=True)
    )


def kinds(folder: Path, workdir: Path) -> dict[str, Kind]:
    """Returns name → kind of the files, which it makes.

    Args:
      folder: an empty folder.
      workdir: a trained run; some of its files will be damaged and restored.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 4, 4, 1), np.uint8)
    parts = sample_parts.Parts(folder / "parts", {"seed": 3, "num": 6})
    parts.claim()
    parts.save(0, images)

    sweep = cells.Results(folder / "sweep", {"num": 100, "scale": 0.25})
    grid = cells.cells({"S": {"2": {"num_steps": 2}, "4": {"num_steps": 4}}})
    for n, cell in enumerate(grid):
        sweep.save(cell, {"frechet": 0.5 + n}, images)
    first = folder / "sweep" / "cells" / grid[0].name
    (folder / "sweep" / "table.csv").write_text("S,frechet\n2,0.5\n4,1.5\n")

    frechet.save_statistics(folder / "reference.npz", frechet.statistics(rng.normal(size=(20, 3))), {"extractor": "x"})
    np.savez(folder / "images.npz", arr_0=images, labels=np.arange(6))
    viz.save_png(folder / "images" / "0.png", images[0, ..., 0])
    figures = {"kernel": {"value": 0.5, "floor": 0.1}}
    protocol = {
        "samples": "x", "num": 3, "reference": "y", "extractor": {"extractor": "pixels", "resize": "none"},
        "rounding": "nearest", "ema": "raw", "sampler": "ddim", "seed": 0,
    }  # fmt: skip
    write_record(folder / "evaluation.json", {"figures": figures, "protocol": protocol, "class_shares": [0.1, 0.2]})
    write_record(folder / "likelihood.json", {"bound": [4.5, 0.1], "protocol": "some images"})
    schedule, ones = schedules.linear(2), np.ones(2)
    samplers.save_moments(
        folder / "moments.json", schedule, samplers.Moments(ones, ones, ones, ones, num=3), "3 images"
    )
    (folder / "metrics.jsonl").write_bytes(b"".join((workdir / "metrics.jsonl").read_bytes().splitlines(True)[:3]))
    net = classifier.ConvNet(2, 2)
    params = jax.tree.map(np.asarray, net.init(jax.random.key(0), images)["params"])
    classifier.save(folder / "c.safetensors", classifier.Classifier(params, (4, 4, 1), 2, 2, 1.0, {"seed": 0}))
    exported = interop.export(folder / "exported", runs.load(workdir))

    def load_cell():
        return next((figures for _, figures in sweep.rows(grid[:1])), None)

    def exported_run():
        run = interop.load(exported)
        return resolve.flatten(resolve.to_dict(run.config)), run.params, run.preferred

    def classifier_in_file():
        found = classifier.load(folder / "c.safetensors")
        return found.params, found.image_shape, found.num_classes, found.dim, found.scale, found.training

    def reports():
        if not (found := logging.read(folder)):
            raise UserError("no report of a finite loss")  # as `viz.training_loss`
        return found

    def rows_in_any_order():
        return sorted(cells.load(folder / "sweep")[1], key=repr)

    def npz_images():
        with naming("config.data"):
            return np.concatenate(list(image_sets.find(folder / "images.npz").batches()))

    def png():
        with naming("config.data"):
            return image_files.read_image(folder / "images" / "0.png")

    def moments():
        with naming("config.sample"):
            return samplers.load_moments(folder / "moments.json", schedule)

    def claim():
        parts.claim()
        return sorted(parts.done([0]))

    return {
        "config.json": Kind(workdir / "config.json", lambda: resolve.flatten(saved.load(workdir))),
        "metrics.jsonl": Kind(folder / "metrics.jsonl", reports, partly=True),
        "evaluation.json": Kind(folder / "evaluation.json", lambda: workdirs._evaluation(folder)),
        "likelihood.json": Kind(folder / "likelihood.json", lambda: workdirs._likelihood(folder)),
        "moments.json": Kind(folder / "moments.json", moments),
        "parts/run.json": Kind(folder / "parts" / "run.json", claim),
        "parts/N.npz": Kind(folder / "parts" / "000000000.npz", lambda: parts._load(0)),
        "a sweep's protocol.json": Kind(folder / "sweep" / "protocol.json", lambda: cells.load(folder / "sweep")[0]),
        "a cell's json": Kind(first.with_name(first.name + ".json"), load_cell),
        "a cell's npz": Kind(first.with_name(first.name + ".npz"), lambda: sweep.pictures(grid[0])),
        "a sweep's table.csv": Kind(folder / "sweep" / "table.csv", rows_in_any_order),
        "samples.npz, images of a data set": Kind(folder / "images.npz", npz_images),
        "an image, PNG": Kind(folder / "images" / "0.png", png),
        "reference statistics": Kind(
            folder / "reference.npz", lambda: frechet.load_statistics(folder / "reference.npz")
        ),
        "a classifier": Kind(folder / "c.safetensors", classifier_in_file),
        "exported weights": Kind(next(exported.rglob("*.safetensors")), exported_run),
        "exported config.json": Kind(exported / "unet" / "config.json", exported_run, edited=True),
        "exported scheduler_config.json": Kind(
            exported / "scheduler" / "scheduler_config.json", exported_run, edited=True
        ),
    }
