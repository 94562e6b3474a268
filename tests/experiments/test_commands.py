"""The command lines, on a network trained for a few steps."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffjax.tasks import generation

ROOT = Path(__file__).parents[2]


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, f"experiments/{script}.py", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_train_leaves_what_it_says(workdir):
    assert {p.name for p in workdir.iterdir()} >= {"config.json", "checkpoints", "metrics.jsonl", "tensorboard"}
    assert Image.open(workdir / "samples" / "step_0000040.png").size == (8 * 66 + 2, 8 * 66 + 2)
    reports = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [report["step"] for report in reports] == [20, 40, 60]
    assert reports[0].keys() == {"step", "loss", "grad_norm", "learning_rate", "images_per_second"}


def test_sample_writes_grid_and_arrays(workdir, tmp_path):
    result = run("sample", "--workdir", workdir, "--num", 10, "--batch-size", 4, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    images = np.load(tmp_path / "samples.npz")["arr_0"]
    assert images.shape == (10, 8, 8, 1)
    assert images.dtype == np.uint8
    assert Image.open(tmp_path / "grid.png").size == (8 * 66 + 2, 2 * 66 + 2)
    # The samples of a seed are the same ones in another number and in other batches.
    result = run("sample", "--workdir", workdir, "--num", 3, "--out", tmp_path / "three")
    assert result.returncode == 0, result.stderr
    three = np.load(tmp_path / "three" / "samples.npz")["arr_0"].astype(int)
    assert np.max(np.abs(three - images[:3])) <= 1


def test_sample_with_other_samplers(workdir, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    main = importlib.import_module("sample").main
    draws = {}
    for name, flags in {
        "default": [],
        "eta": ["--eta", "1.0"],
        "ddpm": ["--sampler", "ddpm", "--steps", "20", "--variance", "fixed_large"],
        "raw": ["--raw"],
        "seed": ["--seed", "1"],
        "grid": ["--grid", "leading"],
    }.items():
        out = str(tmp_path / name)
        monkeypatch.setattr("sys.argv", ["sample.py", "--workdir", str(workdir), "--num", "2", "--out", out, *flags])
        main()
        draws[name] = np.load(tmp_path / name / "samples.npz")["arr_0"]
    assert all(not np.array_equal(draws[a], draws[b]) for a in draws for b in draws if a < b)


def test_a_long_run_goes_on_where_it_was_cut(workdir, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    sample = importlib.import_module("sample")
    images, drawn = generation.images, []

    def counted(*args, **options):
        for start, batch in images(*args, **options):
            drawn.append(start)
            yield start, batch
            if drawn == [0, 3]:
                raise KeyboardInterrupt

    def draw(out, *flags):
        arguments = ["--workdir", str(workdir), "--out", str(out), "--num", "10", "--batch-size", "3", *flags]
        monkeypatch.setattr("sys.argv", ["sample.py", *arguments])
        sample.main()
        return np.load(out / "samples.npz")["arr_0"]

    whole = draw(tmp_path / "whole")
    monkeypatch.setattr(generation, "images", counted)
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "cut")
    with pytest.raises(SystemExit, match="holds parts of another run .seed differ."):
        draw(tmp_path / "cut", "--seed", "1")
    np.testing.assert_array_equal(draw(tmp_path / "cut"), whole)
    assert drawn == [0, 3, 6, 9]
    assert not (tmp_path / "cut" / "parts").exists()


def test_evaluate(workdir):
    result = run("evaluate", "--workdir", workdir, "--num", 70, "--steps", 3)
    assert result.returncode == 0, result.stderr
    figures = json.loads((workdir / "evaluation.json").read_text())
    assert json.loads(result.stdout) == figures
    assert figures["protocol"] == "70 EMA samples at step 60, DDIM-3, trailing grid, η = 0, seed 0"
    # Hardly trained: far from the data, and known to be.
    assert figures["frechet_distance"] > 10 * figures["frechet_real_halves"]
    assert figures["confidence_real"] == pytest.approx(0.908, abs=0.005)
    assert figures["neighbour_ratio"] > 1


@pytest.mark.parametrize(
    ("script", "flags", "words"),
    [
        ("sample", ["--steps", 21], "error: config.sample.steps: num_steps=21 is out of range: allowed is 1 … 20"),
        ("sample", ["--eta", 1.5], "error: config.sample: eta=1.5"),
        ("sample", ["--sampler", "ddpm", "--eta", 0.5], "error: config.sample: eta=0.5 means nothing to 'ddpm'"),
        ("sample", ["--num", 0], "error: --num=0 must be ≥ 1"),
        ("sample", ["--sampler", "dpm"], "argument --sampler: invalid choice: 'dpm'"),
        ("sample", ["--workdir", "nowhere"], "error: nowhere/config.json is not there"),
        ("evaluate", ["--num", 64], "error: --num=64"),
    ],
)
def test_bad_flags_are_one_line(workdir, script, flags, words):
    result = run(script, "--workdir", workdir, *flags)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert re.search(words, result.stderr.strip().splitlines()[-1])


def test_train_refuses_a_bad_config_in_one_line(tmp_path):
    result = run("train", "--config=configs/digits.py", f"--workdir={tmp_path / 'x'}", "--config.schedule.name=lineer")
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: config.schedule: name='lineer' is not one of 'linear', 'cosine'")
    assert not (tmp_path / "x").exists()
