"""The command lines, on a network trained for a few steps."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffjax.tasks import generation

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("quick_compilation")


def run(script, *arguments):
    """A process of its own, on one device."""
    return subprocess.run(
        [sys.executable, f"experiments/{script}.py", *map(str, arguments)],
        cwd=ROOT, env=os.environ | {"XLA_FLAGS": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_train_leaves_what_it_says(workdir):
    assert {p.name for p in workdir.iterdir()} >= {"config.json", "checkpoints", "metrics.jsonl", "tensorboard"}
    assert Image.open(workdir / "samples" / "step_0000040.png").size == (8 * 66 + 2, 8 * 66 + 2)
    reports = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [report["step"] for report in reports] == [20, 40, 60]
    assert reports[0].keys() == {
        "step", "loss", "loss_t0", "loss_t1", "loss_t2", "loss_t3", "grad_norm", "skipped", "learning_rate",
        "images_per_second",
    }  # fmt: skip


def test_sample_writes_grid_and_arrays(workdir, tmp_path, command):
    result = run("sample", "--workdir", workdir, "--num", 10, "--batch-size", 4, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    images = np.load(tmp_path / "samples.npz")["arr_0"]
    assert images.shape == (10, 8, 8, 1)
    assert images.dtype == np.uint8
    assert Image.open(tmp_path / "grid.png").size == (8 * 66 + 2, 2 * 66 + 2)
    # The samples of a seed are the same ones in another number and in other batches.
    command("sample", "--workdir", workdir, "--num", 3, "--out", tmp_path / "three")
    three = np.load(tmp_path / "three" / "samples.npz")["arr_0"].astype(int)
    assert np.max(np.abs(three - images[:3])) <= 1


def test_sample_with_other_samplers(workdir, tmp_path, command):
    draws = {}
    for name, flags in {
        "default": [],
        "eta": ["--eta", "1.0"],
        "ddpm": ["--sampler", "ddpm", "--steps", "20", "--variance", "fixed_large"],
        "raw": ["--raw"],
        "seed": ["--seed", "1"],
        "grid": ["--grid", "leading"],
    }.items():
        command("sample", "--workdir", workdir, "--num", 2, "--out", tmp_path / name, *flags)
        draws[name] = np.load(tmp_path / name / "samples.npz")["arr_0"]
    assert all(not np.array_equal(draws[a], draws[b]) for a in draws for b in draws if a < b)


def test_a_long_run_goes_on_where_it_was_cut(workdir, tmp_path, monkeypatch, command):
    images, drawn = generation.images, []

    def counted(*args, **options):
        for start, batch in images(*args, **options):
            drawn.append(start)
            yield start, batch
            if drawn == [0, 3]:
                raise KeyboardInterrupt

    def draw(out, *flags):
        command("sample", "--workdir", workdir, "--out", out, "--num", 10, "--batch-size", 3, *flags)
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


def test_evaluate(workdir, command, capsys):
    command("evaluate", "--workdir", workdir, "--num", 70, "--steps", 3)
    record = json.loads((workdir / "evaluation.json").read_text())
    assert "| kernel | frechet | samples | N | reference |" in capsys.readouterr().out
    protocol = record["protocol"]
    assert protocol["samples"] == f"{workdir}, step 60"
    assert protocol["sampler"] == "grid trailing, sampler ddim, steps 3"
    assert (protocol["num"], protocol["reference"], protocol["ema"]) == (70, "1797 images of digits", "EMA 0.995")
    # Hardly trained: far from the data, and known to be.
    assert record["figures"]["frechet"]["value"] > 2 * record["figures"]["frechet"]["floor"]
    assert record["figures"]["kernel"]["value"] > 10 * abs(record["figures"]["kernel"]["floor"])
    assert record["confidence_real"] == pytest.approx(0.908, abs=0.005)
    assert record["neighbour_ratio"] > 1


def test_evaluate_images_on_disk(command, capsys, tmp_path):
    rng = np.random.default_rng(0)
    for name, high in (("real", 256), ("same", 256), ("dark", 128)):
        np.savez(tmp_path / f"{name}.npz", arr_0=rng.integers(0, high, (300, 4, 4, 1)).astype(np.uint8))
    found = {}
    for name in ("same", "dark"):
        images, out = tmp_path / f"{name}.npz", tmp_path / f"{name}.json"
        command("evaluate", "--images", images, "--reference", tmp_path / "real.npz", "--num", 200, "--out", out)
        found[name] = json.loads(out.read_text())["figures"]
    assert abs(found["same"]["kernel"]["value"]) < 0.01 * found["dark"]["kernel"]["value"]
    assert found["same"]["frechet"]["value"] < 0.2 * found["dark"]["frechet"]["value"]
    command(
        "evaluate", "--images", tmp_path / "dark.npz", "--reference", tmp_path / "real.npz", "--num", 5,
        "--figures", "kernel", "--out", tmp_path / "few.json",
    )  # fmt: skip
    few = json.loads((tmp_path / "few.json").read_text())["figures"]
    assert few.keys() == {"kernel"}
    assert few["kernel"]["value"] == pytest.approx(found["dark"]["kernel"]["value"], rel=0.5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="error: cannot read .*empty.* holds no images"):
        command("evaluate", "--images", tmp_path / "empty", "--reference", tmp_path / "real.npz")
    for size in (4, 5):
        Image.new("L", (size, 4)).save(tmp_path / "empty" / f"{size}.png")
    with pytest.raises(SystemExit, match="error: images must be of one size, but .*4.png is 4×4 and .*5.png is 5×4"):
        command("evaluate", "--images", tmp_path / "empty", "--reference", tmp_path / "real.npz")
    with pytest.raises(SystemExit, match="--images needs --reference"):
        command("evaluate", "--images", tmp_path / "real.npz")
    np.savez(tmp_path / "large.npz", arr_0=np.zeros((300, 8, 8, 1), np.uint8))
    with pytest.raises(SystemExit, match=r"must be of one size, but are \(8, 8, 1\) and \(4, 4, 1\)"):
        command("evaluate", "--images", tmp_path / "large.npz", "--reference", tmp_path / "real.npz")


def test_likelihood(workdir, command, capsys):
    command("likelihood", "--workdir", workdir, "--num", 5, "--batch-size", 3, "--exact", "--tolerance", 1e-3)
    figures = json.loads(capsys.readouterr().out)
    assert json.loads((workdir / "likelihood.json").read_text()) == figures
    assert figures["num"] == 5
    assert len(figures["L_t"]) == 19
    parts = sum(figures["L_t"]) + figures["L_0"][0] + figures["L_T"][0]
    assert figures["bound"][0] == pytest.approx(parts, rel=1e-5)
    assert 0 < figures["bound"][1] < figures["bound"][0]
    # The same images at once, and the bound alone.
    command("likelihood", "--workdir", workdir, "--num", 5)
    again = json.loads(capsys.readouterr().out)
    assert again["bound"] == pytest.approx(figures["bound"], rel=1e-4)
    assert "exact" in figures
    assert "exact" not in again
    # Other images: here the first of all, those that were trained on included.
    command("likelihood", "--workdir", workdir, "--num", 5, "--data", "holdout=0.0")
    other = json.loads(capsys.readouterr().out)
    assert other["protocol"].startswith("5 images (holdout=0.0), EMA")
    assert other["bound"] != again["bound"]


@pytest.mark.parametrize(
    ("script", "flags", "words"),
    [
        ("sample", ["--steps", 21], "error: config.sample.steps: num_steps=21 is out of range: allowed is 1 … 20"),
        ("sample", ["--eta", 1.5], "error: config.sample: eta=1.5"),
        ("sample", ["--sampler", "ddpm", "--eta", 0.5], "error: config.sample: eta=0.5 means nothing to 'ddpm'"),
        ("sample", ["--label", 3], "error: --label=3: this network has no classes"),
        ("sample", ["--label", "0,a"], "argument --label/--labels: '0,a' must be whole numbers, as in 3 or 0,1,2"),
        ("sample", ["--guidance", 2], r"error: config.sample.guidance: 2.0 needs classes .config.model.num_classes is"),
        ("sample", ["--guidance-rescale", 0.5], "error: config.sample.guidance_rescale: 0.5 means nothing while"),
        ("sample", ["--num", 0], "error: --num=0 must be ≥ 1"),
        ("sample", ["--sampler", "dpm"], "argument --sampler: invalid choice: 'dpm'"),
        ("sample", ["--workdir", "nowhere"], "error: nowhere/config.json is not there"),
        ("evaluate", ["--num", 64], "error: num=64 samples: .* needs at least 65; the kernel distance alone"),
        ("evaluate", ["--reference-num", 50], "error: reference_num=50 real images: .* needs at least 65"),
        ("evaluate", ["--num", 1, "--figures", "kernel"], "error: num=1 samples: at least 2 are needed"),
        ("evaluate", ["--num", 3, "--figures", "recall"], "error: num=3 samples: precision and recall need at least 4"),
        ("evaluate", ["--figures", "inception_score"], "error: figures: 'inception_score' needs classes; 'pixels in"),
        (
            "evaluate",
            ["--extractor", "none.pth"],
            "error: no weights of FID's Inception at none.pth: get them from https.*sha256",
        ),
        ("likelihood", ["--num", 1], "error: --num=1: allowed is 2 … 359, the images there are"),
        ("likelihood", ["--variance", "learned_range"], "error: --variance: 'learned_range' needs a network"),
        ("likelihood", ["--probes", -1], "error: --probes=-1 must be ≥ 0"),
        (
            "likelihood",
            ["--data", "imagez=x"],
            "error: --data: 'imagez' is no field of config.data; allowed are cached",
        ),
        ("likelihood", ["--data", "images"], "error: --data images: must be NAME=VALUE"),
    ],
)
def test_bad_flags_are_one_line(workdir, command, capsys, script, flags, words):
    with pytest.raises(SystemExit) as caught:
        command(script, "--workdir", workdir, *flags)
    by_argparse = caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:] if by_argparse else caught.value.code.splitlines()
    assert re.search(words, line)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.schedule.name=lineer", "config.schedule: name='lineer' is not one of 'linear', 'cosine'"),
        (
            "--config.schedule.nam=linear",
            "config.schedule.nam is no field of the config; nearest: config.schedule.name",
        ),
    ],
)
def test_train_refuses_a_bad_config_in_one_line(tmp_path, flag, words):
    result = run("train", "--config=configs/digits.py", f"--workdir={tmp_path / 'x'}", flag)
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith(f"error: {words}")
    assert not (tmp_path / "x").exists()


def test_classifier_is_an_extractor(workdir, tmp_path, command, capsys):
    digits = "--config=configs/digits.py", "--config.data.holdout=0.2"
    refused = run("classifier", *digits, "--out", tmp_path / "digits.npz")
    assert refused.stderr.strip() == f"error: --out={tmp_path / 'digits.npz'}: must end in .safetensors"
    out = tmp_path / "digits.safetensors"
    result = run("classifier", *digits, "--epochs", 8, "--out", out)
    assert result.returncode == 0, result.stderr
    assert float(re.search(r"accuracy (\S+) on 359 others", result.stdout)[1]) > 0.9
    command("evaluate", "--workdir", workdir, "--num", 70, "--extractor", out, "--out", tmp_path / "evaluation.json")
    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert record["protocol"]["extractor"]["training"] == {
        "trained_on": "digits", "images": 1438, "epochs": 8, "seed": 0,
    }  # fmt: skip
