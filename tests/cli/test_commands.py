"""The command lines, on a network trained for a few steps."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from diffjax import json_files, learn, runs
from diffjax.cli import sample as cli_sample
from diffjax.noise import sample_keys
from diffjax.runs import Run, build
from diffjax.runs.run import of_config
from diffjax.training.lock import locked

ROOT = Path(__file__).parents[2]
AXES = (("S", (("2", {"num_steps": 2}),)),)


def run(name, *arguments):
    """A process of its own, on one device."""
    return subprocess.run(
        [sys.executable, "-m", "diffjax.cli.main", name, *map(str, arguments)],
        cwd=ROOT, env=os.environ | {"XLA_FLAGS": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_train_writes_what_it_lists(workdir):
    assert {p.name for p in workdir.iterdir()} >= {"config.json", "checkpoints", "metrics.jsonl", "tensorboard"}
    assert Image.open(workdir / "samples" / "step_0000040.png").size == (8 * 66 + 2, 8 * 66 + 2)
    reports = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [report["step"] for report in reports] == [20, 40, 60]
    assert reports[0].keys() == {
        "step", "loss", "loss_t0", "loss_t1", "loss_t2", "loss_t3", "grad_norm", "skipped", "learning_rate",
        "images_per_second", "checksum",
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
    found = {}
    for name, flags in {
        "default": [],
        "eta": ["--eta", "1.0"],
        "ddpm": ["--sampler", "ddpm", "--steps", "20", "--sample", "variance=fixed_large"],
        "raw": ["--raw"],
        "seed": ["--seed", "1"],
        "spacing": ["--spacing", "leading"],
    }.items():
        command("sample", "--workdir", workdir, "--num", 2, "--out", tmp_path / name, *flags)
        found[name] = np.load(tmp_path / name / "samples.npz")["arr_0"]
    assert all(not np.array_equal(found[a], found[b]) for a in found for b in found if a < b)
    # A short flag is a spelling of --sample.
    command("sample", "--workdir", workdir, "--num", 2, "--out", tmp_path / "same", "--sample", "eta=1,num_steps=5")
    np.testing.assert_array_equal(np.load(tmp_path / "same" / "samples.npz")["arr_0"], found["eta"])


@pytest.fixture
def sample(workdir, command):
    """A function: samples ten images in batches of three into a folder, and returns them."""

    def run(out, *flags):
        command("sample", "--workdir", workdir, "--out", out, "--num", 10, "--batch-size", 3, *flags)
        return np.load(out / "samples.npz")["arr_0"]

    return run


@pytest.fixture
def sampled(monkeypatch):
    """The first samples of all batches so far; the first time, sampling is interrupted after two of them."""
    batches, starts = Run.batches, []

    def interrupted(*args, **options):
        for start, batch in batches(*args, **options):
            starts.append(start)
            yield start, batch
            if starts == [0, 3]:
                raise KeyboardInterrupt

    monkeypatch.setattr(Run, "batches", interrupted)
    return starts


def test_a_long_run_resumes_where_it_was_interrupted(sample, sampled, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        sample(tmp_path / "cut")
    with pytest.raises(SystemExit, match="holds parts of another run .seed differ."):
        sample(tmp_path / "cut", "--seed", "1")
    monkeypatch.setattr(cli_sample, "of_config", with_other_weights)
    with pytest.raises(SystemExit, match="holds parts of another run .parameters differ."):
        sample(tmp_path / "cut")
    monkeypatch.setattr(cli_sample, "of_config", of_config)
    images = sample(tmp_path / "cut")
    assert sampled == [0, 3, 6, 9]
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {"grid.png", "samples.npz", "lock"}
    np.testing.assert_array_equal(images, sample(tmp_path / "whole"))


def with_other_weights(*args, **options):
    run = of_config(*args, **options)
    return dataclasses.replace(run, params=jax.tree.map(lambda leaf: leaf + 1, run.params))


def test_parts_of_another_run_are_not_taken(sample, sampled, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        sample(tmp_path / "cut")
    (tmp_path / "cut" / "parts" / "run.json").unlink()  # as a removal that was killed leaves them
    images = sample(tmp_path / "cut", "--seed", "1")
    assert sampled == [0, 3, 0, 3, 6, 9]
    np.testing.assert_array_equal(images, sample(tmp_path / "whole", "--seed", "1"))


def test_one_command_at_a_time_samples_into_a_folder(sample, tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(SystemExit, match=f"^error: {tmp_path} is in use by process .* another --out$"),
    ):
        sample(tmp_path)


@pytest.mark.parametrize(
    ("name", "flags", "size"),
    [
        ("sample", ["--num", 20], 100),  # what identifies the samples
        ("sample", ["--num", 20], 1500),  # the batch
        ("sample", ["--num", 20], 2500),  # the grid
        ("export", [], 1000),
        ("evaluate", ["--num", 70], 100),
        ("likelihood", ["--num", 2], 100),
        ("report", ["--num", 4, "--frames", 4, "--images", 4, "--searched", 8, "--counts", 2], 100),
        ("ablate", ["--config", "ablations/ddim_table1", f"--config.axes={AXES}", "--config.num=70"], 500),
    ],
)
def test_a_full_disk_is_one_line(name, flags, size, workdir, command, tmp_path, file_size_limit, capsys):
    out = tmp_path / "out"
    if name in ("evaluate", "likelihood", "report"):
        out = out.with_suffix(".html" if name == "report" else ".json")
        out.write_text("before")
    with file_size_limit(size), pytest.raises(SystemExit) as caught:
        command(name, "--workdir", workdir, "--out", out, *flags)
    assert re.fullmatch(rf"error: cannot write {tmp_path}/out\S*: File too large", caught.value.code)
    assert not list(tmp_path.rglob("*.part"))
    assert not out.is_file() or out.read_text() == "before"


def test_evaluate(workdir, command, capsys):
    command("evaluate", "--workdir", workdir, "--num", 70, "--steps", 3)
    record = json_files.read_record(workdir / "evaluation.json", "")
    assert "| kernel | frechet | samples | N | reference |" in capsys.readouterr().out
    protocol = record["protocol"]
    assert protocol["samples"] == f"{workdir}, step 60"
    assert {"sampler ddim", "num_steps 3", "timestep_spacing trailing"} <= set(protocol["sampler"].split(", "))
    assert (protocol["num"], protocol["reference"], protocol["ema"]) == (70, "1797 images of digits", "EMA 0.995")
    # Hardly trained: far from the data, and known to be.
    assert record["figures"]["frechet"]["value"] > 2 * record["figures"]["frechet"]["floor"]
    assert record["figures"]["kernel"]["value"] > 10 * abs(record["figures"]["kernel"]["floor"])
    assert record["confidence_real"] == pytest.approx(0.908, abs=0.005)
    assert record["neighbour_ratio"] > 1
    assert record.keys() == {
        "figures", "protocol", "confidence", "confidence_real", "frechet_real_halves", "class_shares", "neighbour_ratio",
    }  # fmt: skip


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
    with pytest.raises(SystemExit, match="error: '.*empty' must hold images"):
        command("evaluate", "--images", tmp_path / "empty", "--reference", tmp_path / "real.npz")
    for size in (4, 5):
        Image.new("L", (size, 4)).save(tmp_path / "empty" / f"{size}.png")
    with pytest.raises(SystemExit, match="error: images must be of one size, but .*4.png is 4×4 and .*5.png is 5×4"):
        command("evaluate", "--images", tmp_path / "empty", "--reference", tmp_path / "real.npz")
    with pytest.raises(SystemExit, match="--images needs --reference"):
        command("evaluate", "--images", tmp_path / "real.npz")
    for flags in (["--steps", 5], ["--sample", "eta=1"], ["--ema", 0.5]):
        with pytest.raises(SystemExit, match=f"{flags[0]} goes with --workdir"):
            command("evaluate", "--images", tmp_path / "real.npz", "--reference", tmp_path / "real.npz", *flags)
    np.savez(tmp_path / "large.npz", arr_0=np.zeros((300, 8, 8, 1), np.uint8))
    with pytest.raises(SystemExit, match=r"must be of one size, but are \(8, 8, 1\) and \(4, 4, 1\)"):
        command("evaluate", "--images", tmp_path / "large.npz", "--reference", tmp_path / "real.npz")


def test_evaluate_with_a_metric_of_an_import_path(command, tmp_path, monkeypatch):
    (tmp_path / "own_metrics.py").write_text("def brightness(images):\n    return images.mean() / 255\n")
    monkeypatch.syspath_prepend(tmp_path)
    np.savez(tmp_path / "half.npz", arr_0=np.full((10, 4, 4, 1), 51, np.uint8))
    command(
        "evaluate", "--images", tmp_path / "half.npz", "--reference", tmp_path / "half.npz",
        "--figures", "own_metrics:brightness", "--out", tmp_path / "out.json",
    )  # fmt: skip
    figures = json.loads((tmp_path / "out.json").read_text())["figures"]
    assert figures["own_metrics:brightness"]["value"] == pytest.approx(0.2)


def test_likelihood(workdir, command, capsys, tmp_path):
    command("likelihood", "--workdir", workdir, "--num", 5, "--batch-size", 3, "--exact", "--tolerance", 1e-3)
    figures = json.loads(capsys.readouterr().out)
    assert json_files.read_record(workdir / "likelihood.json", "") == figures
    assert figures["num"] == 5
    assert len(figures["L_t"]) == 19
    parts = sum(figures["L_t"]) + figures["L_0"][0] + figures["L_T"][0]
    assert figures["bound"][0] == pytest.approx(parts, rel=1e-5)
    assert 0 < figures["bound"][1] < figures["bound"][0]
    # The same images at once, and the bound alone.
    command("likelihood", "--workdir", workdir, "--num", 5, "--out", tmp_path / "again.json")
    again = json.loads(capsys.readouterr().out)
    assert json_files.read_record(tmp_path / "again.json", "") == again
    assert again["bound"] == pytest.approx(figures["bound"], rel=1e-4)
    assert "exact" in figures
    assert "exact" not in again
    # Other images: here the first of all, those that were trained on included.
    command("likelihood", "--workdir", workdir, "--num", 5, "--data", "holdout=0.0")
    other = json.loads(capsys.readouterr().out)
    assert other["protocol"].startswith("5 images (holdout=0.0), EMA")
    assert other["bound"] != again["bound"]


def test_moments(workdir, command, tmp_path):
    out = tmp_path / "moments.json"
    command("moments", "--workdir", workdir, "--num", 8, "--batch-size", 5, "--out", out)
    run = runs.load(workdir)
    found = learn.load_moments(out, run.schedule)
    assert found.num == 8
    images = build.images(run.config)
    x0 = np.stack([images.source[n]["image"] for n in range(8)]) / 127.5 - 1
    x0, keys = x0.astype(np.float32), sample_keys(0, 0, 8)
    again = learn.moments(run.schedule, run.predictor(), x0, keys, clip=1.0)
    decoder = learn.decoder_terms(
        run.schedule, run.predictor(), x0, keys, decoder_variance=again.x0_mse, clip=1.0
    ).decoder
    for mine, expected in zip(found, again._replace(decoder=decoder, decoder_error=found.decoder_error), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-3)
    command(
        "sample", "--workdir", workdir, "--sampler", "analytic", "--sample", f"path={out}", "--steps", 2, "--num", 3,
        "--out", tmp_path / "samples",
    )  # fmt: skip
    assert np.load(tmp_path / "samples" / "samples.npz")["arr_0"].shape == (3, 8, 8, 1)


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        (
            "sample",
            ["--sampler", "analytic", "--sample", "path=x.json"],
            "error: config.sample.path: 'x.json' holds no moments: .*`diffjax moments` writes it",
        ),
        ("moments", ["--out", "/dev", "--workdir", "nowhere"], "error: --out=/dev must be a file; it is a folder"),
        ("moments", ["--num", 1], "error: --num=1 must be within 2 … 1438, the number of images"),
        ("moments", ["--split", "all"], "argument --split: invalid choice: 'all'"),
        ("sample", ["--steps", 21], "error: config.sample.num_steps: 21 .*allowed is 1 … 20|1 … 20"),
        ("sample", ["--eta", 1.5], "error: config.sample.eta: 1.5 must be within .0, 1."),
        (
            "sample",
            ["--sampler", "ddpm", "--eta", 0.5],
            "error: config.sample.eta: '0.5' is given, but .* no such field",
        ),
        ("sample", ["--label", 3], "error: label=3: this network has no classes"),
        ("sample", ["--label", "0,a"], "argument --label: '0,a' must be whole numbers, as in 3 or 0,1,2"),
        ("sample", ["--guidance", 2], "error: config.sample.guidance_scale: 2.0 needs a network with classes"),
        ("sample", ["--sample", "guidance_rescale=0.5"], "error: config.sample.guidance_rescale: 0.5 has no effect"),
        ("sample", ["--num", 0], "argument --num: 0 must be ≥ 1"),
        ("sample", ["--seed", -1], "argument --seed: -1 must be within 0 … 4294967295"),
        ("sample", ["--sampler", "dpm"], "error: config.sample.sampler: 'dpm' must be one of 'ddpm', 'ddim'"),
        ("sample", ["--ema", 0.5], "error: ema=0.5 is not one of the run's decays 0.995"),
        ("sample", ["--workdir", "nowhere"], "error: nowhere/config.json does not exist: --workdir must be"),
        ("evaluate", ["--workdir", "nowhere"], "error: nowhere/config.json does not exist: --workdir must be"),
        ("evaluate", ["--num", 64], "error: num=64 samples: 'frechet' needs at least 65; .*kernel"),
        ("evaluate", ["--num", 0], "argument --num: 0 must be ≥ 1"),
        ("evaluate", ["--reference-num", 50], "error: reference_num=50 real images: .* needs at least 65"),
        ("evaluate", ["--num", 1, "--figures", "kernel"], "error: num=1 samples: 'kernel' needs at least 2"),
        ("evaluate", ["--num", 3, "--figures", "recall"], "error: num=3 samples: 'recall' needs at least 4"),
        ("evaluate", ["--figures", "inception_score"], "error: figures='inception_score' needs logits"),
        ("evaluate", ["--figures", "fid"], "error: figures='fid' is not one of .*'frechet'"),
        ("evaluate", ["--reference", "x.npz"], "error: --reference goes with --images"),
        ("evaluate", ["--steps", 21], "error: config.sample.num_steps: 21 .*1 … 20"),
        ("evaluate", ["--ema", "nan"], "error: ema=nan is not one of the run's decays 0.995"),
        ("evaluate", ["--extractor", "none"], "error: extractor='none' must be 'pixels', a .* import path"),
        (
            "evaluate",
            ["--extractor", "none.pth"],
            "error: none.pth does not exist: get the weights of FID's Inception from https.*sha256",
        ),
        # The place of the output is checked before the run is read.
        ("sample", ["--out", "/dev/null"], "error: cannot write to /dev/null: /dev/null is not a folder"),
        ("evaluate", ["--out", "/dev", "--workdir", "nowhere"], "error: --out=/dev must be a file; it is a folder"),
        ("evaluate", ["--out", "/dev/null/x.json", "--workdir", "nowhere"], "error: cannot write to /dev/null: /dev/"),
        ("likelihood", ["--out", "/dev", "--workdir", "nowhere"], "error: --out=/dev must be a file; it is a folder"),
        ("likelihood", ["--num", 1], "error: --num=1 must be within 2 … 359, the number of images"),
        ("likelihood", ["--num", 360], "error: --num=360 must be within 2 … 359, the number of images"),
        ("likelihood", ["--variance", "learned_range"], "error: --variance=learned_range needs a network"),
        ("likelihood", ["--probes", -1], "argument --probes: -1 must be ≥ 0"),
        ("likelihood", ["--tolerance", "nan"], "argument --tolerance: nan must be within .0, 1."),
        ("likelihood", ["--batch-size", 0], "argument --batch-size: 0 must be ≥ 1"),
        ("likelihood", ["--data", "imagez=x"], "error: config.data.imagez: 'x' is given, but config.data has no such"),
        ("likelihood", ["--data", "images"], "error: --data images: 'images' must be FIELD=VALUE"),
        (
            "likelihood",
            ["--data", "holdout=0", "--split", "train"],
            "argument --split: not allowed with argument --data",
        ),
    ],
)
def test_bad_flags_are_one_line(workdir, command, capsys, name, flags, words):
    with pytest.raises(SystemExit) as caught:
        command(name, "--workdir", workdir, *flags)
    by_argparse = caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:] if by_argparse else caught.value.code.splitlines()
    assert re.search(words, line), line


@pytest.mark.parametrize("name", ["evaluate", "likelihood", "moments"])
def test_a_run_that_restores_images_is_refused(name, workdir, tmp_path, command):
    config = json.loads((workdir / "config.json").read_text())
    config["task"] = {"name": "super_resolution"}
    del config["checksum"]
    config["data"]["degradation"]["kinds"] = ["bicubic"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit, match="error: --workdir=.*: this run restores images"):
        command(name, "--workdir", tmp_path)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.schedule.name=lineer", "config.schedule.name: 'lineer' must be one of 'linear', "),
        (
            "--config.schedule.nam=linear",
            "config.schedule.nam: 'linear' is given, but .* nearest: config.schedule.name",
        ),
        ("--config.train.steps=-1", "config.train.steps: -1 must be a whole number ≥ 1"),
    ],
)
def test_train_refuses_a_bad_config_in_one_line(tmp_path, command, flag, words):
    with pytest.raises(SystemExit, match=f"^error: {words}") as caught:
        command("train", "--config=digits", f"--workdir={tmp_path / 'x'}", flag)
    assert len(caught.value.code.splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_an_error_in_a_process_of_its_own_has_status_1(tmp_path):
    result = run("train", "--config=nowhere", f"--workdir={tmp_path / 'x'}")
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: --config=nowhere is not a file")


def test_classifier_is_an_extractor(workdir, tmp_path, command, capsys, file_size_limit):
    digits = "--config=digits", "--config.data.holdout=0.2"
    with pytest.raises(SystemExit, match=r"^error: --out=\S*digits.npz must end in .safetensors$"):
        command("classifier", *digits, "--out", tmp_path / "digits.npz")
    with file_size_limit(1000), pytest.raises(SystemExit, match=r"error: cannot write .*x.safetensors: File too large"):
        command("classifier", *digits, "--epochs", 1, "--out", tmp_path / "x.safetensors")
    out = tmp_path / "digits.safetensors"
    command("classifier", *digits, "--epochs", 1, "--out", out)
    printed = capsys.readouterr().out
    assert float(re.search(r"accuracy (\S+) on 359 others", printed)[1]) > 0.2
    command("evaluate", "--workdir", workdir, "--num", 70, "--extractor", out, "--out", tmp_path / "evaluation.json")
    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert record["protocol"]["extractor"]["training"] == {
        "trained_on": "digits", "images": 1438, "epochs": 1, "seed": 0,
    }  # fmt: skip


@pytest.mark.slow
def test_classifier_is_tested_on_other_images(tmp_path, command, capsys):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    images = np.broadcast_to((labels * 200)[:, None, None], (300, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "data.npz", x=images[:200], y=labels[:200], x_test=images[200:], y_test=labels[200:])
    source = ["--config=digits", "--config.data.source=npz", f"--config.data.path={tmp_path / 'data.npz'}"]
    source += ["--config.data.image_key=x", "--out", tmp_path / "classifier.safetensors", "--epochs", 20]
    with pytest.raises(SystemExit, match="error: config.data.source: 'npz' has images without a label"):
        command("classifier", *source)
    command("classifier", *source, "--config.data.label_key=y", "--data", "image_key=x_test,label_key=y_test")
    assert "trained on 200 images; accuracy 1.0000 on 100 others" in capsys.readouterr().out


def test_evaluate_of_what_is_no_npz_file(tmp_path, command):
    for content in (b"", b"<html>", b"PK\x03\x04", b"\x93NUMPY"):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(SystemExit, match="^error: cannot read .*a.npz, which is not an npz file: .*[^\n]$"):
            command("evaluate", "--images", tmp_path / "a.npz", "--reference", tmp_path / "a.npz")


def test_a_classifier_needs_labels(tmp_path, command):
    images = np.zeros((130, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=np.append(np.zeros(129, int), -1))
    fields = "--config.data.source=npz", f"--config.data.path={tmp_path / 'a.npz'}", "--config.data.label_key=y_train"
    words = "config.data.source: a classifier needs a label of every image, but 1 of 130 have none, such as image 129"
    with pytest.raises(SystemExit, match=words):
        command(
            "classifier", "--config", "digits", *fields, "--config.data.holdout=0", "--out", tmp_path / "a.safetensors"
        )
