"""The report's command line."""

import json
import re
import sys

import numpy as np
import pytest
from html_reader import EVIL, Reader
from PIL import Image

from diffjax import metrics, runs, viz
from diffjax.metrics import records
from diffjax.report import workdirs
from diffjax.runs import build, resolve
from diffjax.runs.train import train
from diffjax.sweeps import cells


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
    (block,) = workdirs._tried(workdirs._likelihood, tmp_path)
    assert "likelihood.json: it holds a list" in block


def test_report_of_a_run(workdir, command, monkeypatch):
    protocol = records.Protocol(
        EVIL, 10, "real", {"extractor": "pixels", "resize": "none"}, "nearest", "EMA", "ddim", 0
    )
    record = records.record({"frechet": records.Figure(1.25)}, protocol)
    (workdir / "evaluation.json").write_text(json.dumps(record | {"class_shares": [0.1, 0.2]}))
    (workdir / "likelihood.json").write_text(json.dumps({"bound": [4.5, 0.1], "protocol": "some images"}))
    left = {
        name: viz.save_png(workdir / f"{name}.png", np.zeros((2, 2, 3), np.uint8)) for name in ("samples", "denoising")
    }
    shown = []
    monkeypatch.setattr(viz, "neighbours", lambda *args, function=viz.neighbours: shown.append(args) or function(*args))

    flags = ["--num", 4, "--counts", 1000, "--frames", 6, "--images", 4, "--steps", 3, "--eta", 1]
    monkeypatch.setattr(sys, "argv", ["diffjax", "report", *map(str, flags)])
    command("report", "--workdir", workdir, *flags)
    reader = read(workdir / "report.html")
    names = {
        "consistency.png", "denoising.webp", "denoising_x.png", "denoising_x0.png", "loss_by_timestep.png",
        "neighbours.png", "samples.png", "schedule.png", "slerp.png", "training_loss.png",
    }  # fmt: skip
    assert {path.name for path in (workdir / "report").iterdir()} == names
    assert len(reader.references) == len(names) + len(left)
    text = "\n".join(reader.text)
    for words in (
        EVIL, "1.25", "0.1 … 0.2", "4.5 ± 0.1", "learning_rate", "diffjax report --num 4 --counts 1000", "a UNet of",
        "num_steps 3", "eta 1.0",
    ):  # fmt: skip
        assert words in text
    with Image.open(workdir / "report" / "denoising.webp") as file:
        assert file.n_frames == 6

    # The neighbours are the nearest of the images that were trained on.
    ((samples, neighbours, distances),) = shown
    run = runs.load(workdir).with_options(num_steps=3, eta=1.0)
    np.testing.assert_array_equal(samples, run.sample(8))
    images = build.images(run.config)
    real = np.stack([images.prepare(images.source[n]["image"]) for n in range(len(images.source))])
    all_distances = np.linalg.norm(
        (samples[:, None] / 255.0 - real / 255.0).reshape(len(samples), len(real), -1), axis=-1
    )
    np.testing.assert_allclose(distances, np.sort(all_distances, axis=1)[:, :5], rtol=1e-5)
    np.testing.assert_array_equal(neighbours[:, 0], real[np.argmin(all_distances, axis=1)])
    assert metrics.nearest_distances(*(x.reshape(len(x), -1) / 255 for x in (samples, real))) == pytest.approx(
        distances[:, 0], rel=1e-5
    )


@pytest.mark.slow
def test_report_of_a_run_that_restores_images(workdir, command, tmp_path):
    small = {
        field: runs.load(workdir).config.model[field] for field in ("base_channels", "channel_mults", "num_groups")
    }
    config = {
        "task": {"name": "super_resolution"},
        "data": {"degradation": {"kinds": ("bicubic",), "factor": 2}},
        "schedule": {"num_timesteps": 20},
        "model": small | {"num_res_blocks": 1, "attention_resolutions": ()},
        "train": {"steps": 2, "batch_size": 8},
        "sample": {"num_steps": 3},
    }
    train(resolve.resolve(config), tmp_path / "sr3", progress=False)
    command("report", "--workdir", tmp_path / "sr3", "--images", 4, "--out", tmp_path / "page.html")
    reader = read(tmp_path / "page.html")
    names = {"loss_by_timestep.png", "restored.png", "schedule.png", "training_loss.png"}
    assert {path.name for path in (tmp_path / "page").iterdir()} == names
    assert len(reader.references) == len(names) + 1  # restored.png of training
    assert "SuperResolution by a UNet" in "\n".join(reader.text)
    assert (tmp_path / "page" / "restored.png").read_bytes() == (tmp_path / "sr3" / "restored.png").read_bytes()


def test_report_of_a_sweep(command, tmp_path):
    grid = cells.cells({"S": {"10": {}, "20": {}}, "noise": {"<b>0</b>": {}, "σ̂": {}}})
    results = cells.Results(tmp_path, {"seed": 0, "workdir": EVIL})
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


def test_the_highest_precision_is_bold(command, tmp_path):
    grid = cells.cells({"S": {"10": {}}, "eta": {"0": {}, "1": {}}})
    results = cells.Results(tmp_path, {})
    for cell, value in zip(grid, (0.25, 0.75), strict=True):
        results.save(cell, {"precision": value, "kernel": value})
    command("report", "--sweep", tmp_path)
    assert re.findall(r"<strong>(\S+)</strong>", (tmp_path / "report.html").read_text()) == ["0.75", "0.25"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--sweep", "nowhere"], "error: nowhere is not the folder of a sweep"),
        (["--sweep", "nowhere", "--eta", 1], "error: --eta goes with --workdir"),
        (["--workdir", "nowhere"], "error: nowhere/config.json does not exist"),
        (["--workdir", "nowhere", "--out", "page"], "error: --out=page must end in .html"),
        (["--workdir", "nowhere", "--out", "/dev/null/x.html"], "error: cannot write to /dev/null: /dev/null is not a"),
        (["--frames", 1], "error: frames=1 must be ≥ 2"),
        (["--steps", 0], "error: config.sample.num_steps: 0 must be"),
        (["--extractor", "x"], "error: extractor='x' must be"),
    ],
)
def test_bad_flags_are_one_line(workdir, command, tmp_path, flags, words):
    given = flags if flags[0] in ("--sweep", "--workdir") else ["--workdir", workdir, *flags]
    with pytest.raises(SystemExit) as caught:
        command("report", "--out", tmp_path / "x.html", *given)
    (line,) = caught.value.code.splitlines()
    assert line.startswith(words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flags", [["--num", 0], ["--counts", 10, 0], ["--seed", -1], ["--sweep", "x"]])
def test_wrong_usage_has_the_status_2(workdir, command, flags, capsys):
    with pytest.raises(SystemExit) as caught:
        command("report", "--workdir", workdir, *flags)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err
