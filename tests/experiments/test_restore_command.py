import importlib.util
import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from diffjax import schedules, viz
from diffjax.data import degradations
from diffjax.errors import UserError
from diffjax.evaluation import restoration
from diffjax.evaluation.frechet import feature_distance
from diffjax.training import run_config, setup, state, ways
from diffjax.training.checkpoints import Checkpoints

ROOT = Path(__file__).parents[2]


@pytest.fixture
def untrained(made_once):
    """A function: (name, fields of configs/digits.py) → a workdir of a network that has not been trained."""
    spec = importlib.util.spec_from_file_location("digits_config", ROOT / "configs" / "digits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def of(name, **fields):
        config = module.get_config()
        config.update_from_flattened_dict({
            "schedule.num_timesteps": 20, "model.channels": 8, "model.multipliers": (1,), "model.num_res_blocks": 1,
            "task.name": "super_resolution", "data.degradation.kinds": ("bicubic",), "data.degradation.factor": 2,
            "data.holdout": 0.2, "sample.steps": 3, "sample.sampler": "ddpm",
        } | fields)  # fmt: skip

        def make(path):
            experiment = setup.experiment(config)
            optimizer = setup.training(config, experiment.image_shape, 8).optimizer
            run_config.save(config, path)
            jax.config.update("jax_disable_most_optimizations", True)
            fresh = jax.jit(
                lambda key: state.create(lambda k: setup.init(experiment, k), optimizer, key, ema_decays=(0.995,))
            )
            with Checkpoints(path, keep=1) as checkpoints:
                checkpoints.save(fresh(jax.random.key(0)), {})
            jax.config.update("jax_disable_most_optimizations", False)

        return made_once(name, make)

    return of


@pytest.fixture
def super_resolution(untrained):
    return untrained("super_resolution")


@pytest.fixture
def larger(untrained):
    """What goes on from 8×8."""
    return untrained("larger", **{"data.image_shape": (16, 16, 1), "data.fit": "resize"})


@pytest.mark.usefixtures("quick_compilation")
def test_a_row_for_each_way(super_resolution, command, tmp_path, capsys):
    rows = ["--sample", "steps=2", "--sample", "steps=2,draws=2", "--sample", "num_timesteps=3,steps=3,beta_start=0.1,beta_end=0.9"]  # fmt: skip
    tiles = ["--tile", 4, "--best", "frechet"]
    command("restore", "--workdir", super_resolution, *rows, *tiles, "--num", 12, "--batch-size", 5, "--out", tmp_path)
    saved = json.loads((tmp_path / "restoration.json").read_text())
    assert [row["protocol"]["samples"].split(" ")[0] for row in saved["rows"]] == ["input", *rows[1::2]]
    assert "beta_end 0.9" in saved["rows"][3]["protocol"]["sampler"]
    assert "draws 2" in saved["rows"][2]["protocol"]["sampler"]
    # The input's figures can be had by hand.
    _, held_out, prepare = setup.images(run_config.load(super_resolution))
    truth = np.stack([prepare(held_out[n]["image"]) for n in range(12)])
    records = [degradations.Degradation(**record) for record in saved["degradations"]]
    blurry = np.stack([degradations.apply(*pair) for pair in zip(records, truth, strict=True)])
    assert saved["rows"][0]["figures"]["psnr"]["value"] == pytest.approx(restoration.psnr(blurry, truth).mean())
    assert saved["rows"][1]["figures"].keys() == {"psnr", "consistency", "kernel", "frechet"}
    quarters = [
        images[:, y : y + 4, x : x + 4].reshape(12, -1) / 255
        for images in (blurry, truth)
        for y in (0, 4)
        for x in (0, 4)
    ]
    distance = feature_distance(np.concatenate(quarters[:4]), np.concatenate(quarters[4:]))
    assert saved["rows"][0]["figures"]["frechet"]["value"] == pytest.approx(distance, rel=1e-4)
    # One sample is another than the mean of two.
    assert saved["rows"][1]["figures"] != saved["rows"][2]["figures"]
    assert np.load(tmp_path / "restored.npz")["arr_0"].shape == (12, 8, 8, 1)
    assert (tmp_path / "restored.png").exists()
    assert (tmp_path / "curve.png").exists()
    assert "| psnr |" in capsys.readouterr().out


@pytest.mark.usefixtures("quick_compilation")
def test_a_cascade(super_resolution, larger, command, tmp_path):
    flags = ["--cascade", f"{larger},steps=2", "--sample", "steps=1", "--num", 3, "--out", tmp_path]
    command("restore", "--workdir", super_resolution, *flags)
    rows = {
        row["protocol"]["samples"].split(" ")[0]: row
        for row in json.loads((tmp_path / "restoration.json").read_text())["rows"]
    }
    assert list(rows) == ["input", "cascade", "steps=1"]
    sampler = rows["cascade"]["protocol"]["sampler"]
    assert re.search(r"steps 1; then \S+ \(step 0\): .*steps 2$", sampler)
    assert np.load(tmp_path / "restored.npz")["arr_0"].shape == (3, 16, 16, 1)
    # The input is made four times smaller, from the larger images.
    _, held_out, prepare = setup.images(run_config.load(larger))
    truth = np.stack([prepare(held_out[n]["image"]) for n in range(3)])
    blurry = np.stack([degradations.apply(degradations.Degradation("bicubic", 4), image) for image in truth])
    assert rows["input"]["figures"]["psnr"]["value"] == pytest.approx(restoration.psnr(blurry, truth).mean())
    # The second stage is no bicubic enlargement.
    assert rows["cascade"]["figures"]["psnr"] != rows["steps=1"]["figures"]["psnr"]


@pytest.mark.usefixtures("quick_compilation")
def test_a_cascade_of_whole_images(super_resolution, larger, command, tmp_path):
    rng = np.random.default_rng(0)
    for n, size in enumerate([(23, 18), (16, 33)]):
        viz.save_png(tmp_path / "photographs" / f"{n}.png", rng.integers(0, 256, size, np.uint8))
    images = ["--data", "source=folder", f"path={tmp_path / 'photographs'}", "holdout=0.0", "--whole", "--num", 2]
    stages = ["--cascade", f"{larger},steps=1", "--sample", "steps=1"]
    command("restore", "--workdir", super_resolution, *stages, *images, "--out", tmp_path / "out")
    made = [np.array(Image.open(path)) for path in sorted((tmp_path / "out" / "images").iterdir())]
    assert [image.shape for image in made] == [(20, 16), (16, 32)]  # what four times a whole number of pixels leaves
    rows = json.loads((tmp_path / "out" / "restoration.json").read_text())["rows"]
    assert all(row["protocol"]["reference"].startswith("2 whole images of folder source=folder path=") for row in rows)
    truth = [np.array(Image.open(path)) for path in sorted((tmp_path / "photographs").iterdir())]
    psnr = [
        restoration.psnr(image[None, ..., None], real[: len(image), : image.shape[1]][None, ..., None])[0]
        for image, real in zip(made, truth, strict=True)
    ]
    assert rows[1]["figures"]["psnr"]["value"] == pytest.approx(np.mean(psnr))


def test_ways_in_turn_start_from_the_small_image():
    seen = []

    def restore(condition, keys):
        seen.append((condition.shape, keys))
        return condition

    low, keys = np.zeros((2, 3, 5, 1), np.float32), jax.random.split(jax.random.key(0), 2)
    stages = [ways.Way(restore, "a"), ways.Way(restore, "b")]
    both, first = ways.in_turn(stages, [2, 4]), ways.in_turn(stages[:1], [2, 4])
    assert both.restore(low, keys).shape == first.restore(low, keys).shape == (2, 24, 40, 1)
    assert [shape for shape, _ in seen] == [(2, 6, 10, 1), (2, 24, 40, 1), (2, 6, 10, 1)]
    # The first stage draws what it draws alone.
    drawn = [jax.random.key_data(keys).tolist() for _, keys in seen]
    assert drawn[0] == drawn[2] != drawn[1]
    assert both.sampler == "a; then b"


def test_stages_that_do_not_fit(super_resolution, command):
    words = (
        r"makes images \(8, 8, 1\), 2 times as large as its input; after images \(8, 8, 1\) that must be \(16, 16, 1"
    )
    with pytest.raises(SystemExit, match=f"--cascade .*{words}"):
        command("restore", "--workdir", super_resolution, "--cascade", super_resolution)
    network = ways.load(super_resolution)
    network.config.data.degradation.kinds = ("gaussian",)
    with pytest.raises(UserError, match="--workdir: a cascade is of super-resolution by one of"):
        ways.stages(network, [str(super_resolution)])


def test_candidates_end_where_they_say(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    restore = importlib.import_module("restore")
    ends = []
    for text in restore.candidates(25):
        fields = dict(part.split("=") for part in text.split(","))
        schedule = schedules.linear(25, beta_start=float(fields["beta_start"]), beta_end=float(fields["beta_end"]))
        ends.append(schedule.alpha_bars[-1])
    np.testing.assert_allclose(ends, [1e-2, 1e-3, 1e-4] * 3, rtol=0.02)
    figures = [{"psnr": restore.Figure(value), "kernel": restore.Figure(value)} for value in (3.0, 1.0, 2.0)]
    found = dict(zip("abc", figures, strict=True))
    assert restore.best(found, ["b", "c"], "psnr") == "c"
    assert restore.best(found, ["a", "b"], "kernel") == "b"
    sys.modules.pop("restore")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--sample", "stepz=3"], "--sample stepz=3: 'stepz' is no field of config.sample; allowed are beta_end, "),
        (["--sample", "draws=0"], "draws=0 must be a whole number ≥ 1"),
        (["--sample", "steps"], "--sample steps: must be NAME=VALUE"),
        (["--sample", "steps=0"], "config.sample.steps"),
        (["--data", "imagez=x"], "--data: 'imagez' is no field of config.data"),
        (["--num", 100_000], "--num=100000: there are 359 images"),
        (["--search", 1], "--search=1 must be ≥ 2"),
        (["--lpips", "a.pth", "b.pth"], "no weights of torchvision's AlexNet at a.pth: get them from https"),
    ],
)
def test_bad_flags_are_one_line(super_resolution, command, flags, words):
    with pytest.raises(SystemExit, match=words) as caught:
        command("restore", "--workdir", super_resolution, *flags)
    assert "\n" not in str(caught.value)
