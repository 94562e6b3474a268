"""The report's command line."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from diffjax import evaluation, viz
from diffjax.evaluation import figures, sweeps
from diffjax.report import workdirs
from diffjax.training import run_config, setup

pytestmark = pytest.mark.usefixtures("quick_compilation")

sys.path.append(str(Path(__file__).parents[1] / "report"))
from test_pages import EVIL, Reader  # noqa: E402

sys.path.pop()


def read(path):
    page = path.read_text()
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert all(reference.startswith("data:image/") for reference in reader.references)
    assert "script" not in reader.tags
    assert not re.search(r"url\(|@import", page)
    return reader


def test_a_record_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "likelihood.json").write_text("[1]")
    (block,) = workdirs._tried(workdirs._likelihood, SimpleNamespace(workdir=tmp_path))
    assert "likelihood.json: it holds a list" in block


def test_report_of_a_run(workdir, command, monkeypatch):
    protocol = figures.Protocol(
        EVIL, 10, "real", {"extractor": "pixels", "resize": "none"}, "nearest", "EMA", "ddim", 0
    )
    record = figures.record({"frechet": figures.Figure(1.25)}, protocol)
    (workdir / "evaluation.json").write_text(json.dumps(record | {"class_shares": [0.1, 0.2]}))
    (workdir / "likelihood.json").write_text(json.dumps({"bound": [4.5, 0.1], "protocol": "some images"}))
    shown = []
    monkeypatch.setattr(viz, "neighbours", lambda *args, function=viz.neighbours: shown.append(args) or function(*args))

    command("report", "--workdir", workdir, "--num", 4, "--steps", 1000, "--frames", 6, "--images", 4)
    reader = read(workdir / "report.html")
    names = {
        "consistency.png", "denoising.webp", "denoising_x.png", "denoising_x0.png", "loss_by_timestep.png",
        "neighbours.png", "samples.png", "schedule.png", "slerp.png", "training_loss.png",
    }  # fmt: skip
    assert {path.name for path in (workdir / "report").iterdir()} == names
    assert len(reader.references) == len(names)
    text = "\n".join(reader.text)
    for words in (EVIL, "1.25", "0.1 … 0.2", "4.5 ± 0.1", "learning_rate", "--steps 1000"):
        assert words in text
    with Image.open(workdir / "report" / "denoising.webp") as file:
        assert file.n_frames == 6

    # The neighbours are the nearest of what was trained on.
    ((samples, neighbours, distances),) = shown
    source, _, prepare = setup.images(run_config.load(workdir))
    real = np.stack([prepare(source[n]["image"]) for n in range(len(source))])
    all_distances = np.linalg.norm(
        (samples[:, None] / 255.0 - real / 255.0).reshape(len(samples), len(real), -1), axis=-1
    )
    np.testing.assert_allclose(distances, np.sort(all_distances, axis=1)[:, :5], rtol=1e-5)
    np.testing.assert_array_equal(neighbours[:, 0], real[np.argmin(all_distances, axis=1)])
    assert evaluation.nearest_distances(*(x.reshape(len(x), -1) / 255 for x in (samples, real))) == pytest.approx(
        distances[:, 0], rel=1e-5
    )


def test_report_of_a_sweep(command, tmp_path, monkeypatch):
    grid = sweeps.cells({"S": {"10": {}, "20": {}}, "noise": {"<b>0</b>": {}, "σ̂": {}}})
    results = sweeps.Results(tmp_path, {"seed": 0, "workdir": EVIL})
    for cell, value in zip(grid, (1.0, 2.5, 3.0, 0.25), strict=True):
        results.save(cell, {"kernel": value, "kernel_floor": 0.125, "seconds": 7.0})
    viz.save_png(tmp_path / "map.png", np.zeros((2, 2, 3), np.uint8))
    command("report", "--sweep", tmp_path)
    reader = read(tmp_path / "report.html")
    assert reader.tags.count("strong") == 2
    assert reader.tags.count("img") == 1
    assert reader.text.count("<b>0</b>") == 3
    assert reader.text.count(EVIL) == 1
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--sweep", "nowhere"], "error: nowhere is no folder that ablate.py has written"),
        (["--workdir", "nowhere"], "error: nowhere/config.json is not there"),
        (["--num", 0], "error: num=0 must be ≥ 1"),
        (["--frames", 1], "error: frames=1 must be ≥ 2"),
        (["--steps", 10, 0], "error: steps=0 must be ≥ 1"),
        (["--extractor", "x"], "error: extractor='x' must be"),
    ],
)
def test_bad_flags_are_one_line(workdir, command, tmp_path, flags, words):
    given = flags if flags[0] in ("--sweep", "--workdir") else ["--workdir", workdir, *flags]
    with pytest.raises(SystemExit) as caught:
        command("report", *given, "--out", tmp_path / "x.html")
    (line,) = caught.value.code.splitlines()
    assert line.startswith(words)
    assert not list(tmp_path.iterdir())
