"""`diffjax restore`: its rows, figures and files, cascades, and wrong flags."""

import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

from diffjax import viz
from diffjax.data import degradations
from diffjax.errors import UserError
from diffjax.metrics import image_quality
from diffjax.metrics.frechet import feature_distance
from diffjax.runs import build, resolve, restore, saved
from diffjax.training import state
from diffjax.training.checkpoints import Checkpoints

RESTORING = {
    "schedule.num_timesteps": 20, "model.base_channels": 8, "model.channel_mults": (1,), "model.num_res_blocks": 1,
    "model.num_groups": 4, "model.attention_resolutions": (), "model.middle_attention": False,
    "task.name": "super_resolution", "data.degradation.kinds": ("bicubic",), "data.degradation.factor": 2,
    "data.holdout": 0.2, "train.ema_decays": (0.995,), "sample.num_steps": 3, "sample.sampler": "ddpm",
}  # fmt: skip


@pytest.fixture
def untrained(made_once):
    """A function: (name, fields) → a workdir of a network that has not been trained."""

    def of(name, **fields):
        config = resolve.override({}, RESTORING | {field.replace("__", "."): value for field, value in fields.items()})

        def make(path):
            task = build.task(config)
            optimizer = build.training(config, task, 8).optimizer
            saved.save(config, path)
            fresh = jax.jit(lambda key: state.create(task.init, optimizer, key, ema_decays=(0.995,)))
            with Checkpoints(path, keep=1) as checkpoints:
                checkpoints.save(fresh(jax.random.key(0)), {})

        return made_once(f"untrained_{name}", make)

    return of


@pytest.fixture
def super_resolution(untrained):
    return untrained("super_resolution")


@pytest.fixture
def larger(untrained):
    """A stage after 8×8."""
    return untrained("larger", data__image_shape=(16, 16, 1), data__resize="cover")


def rows_of(out):
    """The rows of `restoration.json`, by the names of the methods."""
    saved_rows = json.loads((out / "restoration.json").read_text())["rows"]
    return {row["protocol"]["samples"].split(" ")[0]: row for row in saved_rows}


def test_a_row_for_each_method(super_resolution, untrained, command, tmp_path, capsys):
    regression = untrained("regression", task__name="regression")
    rows = ["--sample", "num_steps=2", "--sample", "num_steps=2,num_samples=2", "--sample", "schedule.num_timesteps=3,num_steps=3,schedule.beta_start=0.1,schedule.beta_end=0.9"]  # fmt: skip
    flags = ["--compare", regression, *rows, "--tile", 4, "--best", "frechet", "--num", 12, "--batch-size", 5]
    command("restore", "--workdir", super_resolution, *flags, "--out", tmp_path)
    found = rows_of(tmp_path)
    assert list(found) == ["input", "regression", *rows[1::2]]
    protocols = [row["protocol"] for row in found.values()]
    assert protocols[1]["samples"] == f"regression ({regression}, step 0)"
    assert [protocol["sampler"] for protocol in protocols[:2]] == ["none", "none"]
    assert [protocol["ema"] for protocol in protocols] == ["none"] + 4 * ["EMA 0.995"]
    assert "num_samples 2" in protocols[3]["sampler"]
    assert "schedule.beta_end 0.9" in protocols[4]["sampler"]
    # The input's figures, computed here.
    images = build.images(saved.load(super_resolution))
    truth = np.stack([images.prepare(images.held_out[n]["image"]) for n in range(12)])
    recorded = json.loads((tmp_path / "restoration.json").read_text())["degradations"]
    records = [degradations.Degradation(**record) for record in recorded]
    low = np.stack([degradations.apply(*pair) for pair in zip(records, truth, strict=True)])
    assert found["input"]["figures"]["psnr"]["value"] == pytest.approx(image_quality.psnr(low, truth).mean())
    assert found["regression"]["figures"].keys() == {"psnr", "consistency", "kernel", "frechet"}
    quarters = [
        images[:, y : y + 4, x : x + 4].reshape(12, -1) / 255 for images in (low, truth) for y in (0, 4) for x in (0, 4)
    ]
    distance = feature_distance(np.concatenate(quarters[:4]), np.concatenate(quarters[4:]))
    assert found["input"]["figures"]["frechet"]["value"] == pytest.approx(distance, rel=1e-4)
    # One sample differs from the mean of two.
    assert found[rows[1]]["figures"] != found[rows[3]]["figures"]
    assert np.load(tmp_path / "restored.npz")["arr_0"].shape == (12, 8, 8, 1)
    assert (tmp_path / "restored.png").exists()
    assert (tmp_path / "curve.png").exists()
    assert "| psnr |" in capsys.readouterr().out


def test_a_deblurring_is_compared_with_its_predictor(untrained, command, tmp_path):
    blurry = untrained("deblurring", task__name="deblurring", data__degradation__kinds=("gaussian",))
    command("restore", "--workdir", blurry, "--num", 2, "--out", tmp_path)
    assert list(found := rows_of(tmp_path)) == ["input", "predictor", "sample"]
    assert found["predictor"]["protocol"]["samples"] == f"predictor ({blurry}, step 0)"
    # An untrained predictor changes nothing.
    assert found["predictor"]["figures"]["psnr"] == found["input"]["figures"]["psnr"]


def test_the_search_names_the_best(super_resolution, command, tmp_path, capsys):
    command("restore", "--workdir", super_resolution, "--search", 2, "--best", "psnr", "--num", 2, "--out", tmp_path)
    values = {name: row["figures"]["psnr"]["value"] for name, row in rows_of(tmp_path).items() if name != "input"}
    assert len(values) == 9
    assert f"best psnr: --sample {max(values, key=values.get)}\n" in capsys.readouterr().out


def test_a_cascade(super_resolution, larger, command, tmp_path):
    flags = ["--cascade", f"{larger},num_steps=2", "--sample", "num_steps=1", "--num", 3, "--out", tmp_path]
    command("restore", "--workdir", super_resolution, *flags)
    rows = rows_of(tmp_path)
    assert list(rows) == ["input", "cascade", "num_steps=1"]
    sampler = rows["cascade"]["protocol"]["sampler"]
    assert re.search(r"num_steps 1, .*; then \S+, step 0: .*num_steps 2,", sampler)
    assert np.load(tmp_path / "restored.npz")["arr_0"].shape == (3, 16, 16, 1)
    # The input is a quarter of the larger images' size.
    images = build.images(saved.load(larger))
    truth = np.stack([images.prepare(images.held_out[n]["image"]) for n in range(3)])
    low = np.stack([degradations.apply(degradations.Degradation("bicubic", 4), image) for image in truth])
    assert rows["input"]["figures"]["psnr"]["value"] == pytest.approx(image_quality.psnr(low, truth).mean())
    # The second stage is no bicubic enlargement.
    assert rows["cascade"]["figures"]["psnr"] != rows["num_steps=1"]["figures"]["psnr"]


def test_a_cascade_of_whole_images(super_resolution, larger, command, tmp_path):
    rng = np.random.default_rng(0)
    for n, size in enumerate([(23, 18), (16, 33)]):
        viz.save_png(tmp_path / "photographs" / f"{n}.png", rng.integers(0, 256, size, np.uint8))
    images = ["--data", f"source=folder,path={tmp_path / 'photographs'}", "--whole", "--num", 2]
    stages = ["--cascade", f"{larger},num_steps=1", "--sample", "num_steps=1"]
    command("restore", "--workdir", super_resolution, *stages, *images, "--out", tmp_path / "out")
    made = [np.array(Image.open(path)) for path in sorted((tmp_path / "out" / "images").iterdir())]
    assert [image.shape for image in made] == [(20, 16), (16, 32)]  # multiples of four
    rows = rows_of(tmp_path / "out")
    start = "2 whole images of folder source=folder,path="
    assert all(row["protocol"]["reference"].startswith(start) for row in rows.values())
    truth = [np.array(Image.open(path)) for path in sorted((tmp_path / "photographs").iterdir())]
    psnr = [
        image_quality.psnr(image[None, ..., None], real[: len(image), : image.shape[1]][None, ..., None])[0]
        for image, real in zip(made, truth, strict=True)
    ]
    assert rows["cascade"]["figures"]["psnr"]["value"] == pytest.approx(np.mean(psnr))


def test_whole_pairs_of_two_sizes(super_resolution, command, tmp_path):
    for name, size in (("sharp", (8, 8)), ("blur", (4, 4))):
        viz.save_png(tmp_path / "pairs" / name / "0.png", np.zeros(size, np.uint8))
    flags = ["--data", f"source=pairs,path={tmp_path / 'pairs'},holdout=0", "--whole", "--num", 1]
    words = r"^error: config.data: .*of one size, but \S*sharp/0.png is 8×8 and \S*blur/0.png is 4×4$"
    with pytest.raises(SystemExit, match=words):
        command("restore", "--workdir", super_resolution, *flags, "--out", tmp_path / "out")


def test_stages_that_do_not_fit(super_resolution, larger, command):
    words = (
        r"makes images \(8, 8, 1\), 2 times as large as its input; after images \(8, 8, 1\) that must be \(16, 16, 1"
    )
    with pytest.raises(SystemExit, match=f"^error: .*{words}"):
        command("restore", "--workdir", super_resolution, "--cascade", super_resolution)
    with pytest.raises(SystemExit, match=r"larger.* restores images of shape \(16, 16, 1\); they must be"):
        command("restore", "--workdir", super_resolution, "--compare", larger)
    network = restore.load(super_resolution)
    network.config.data.degradation.kinds = ("gaussian",)
    with pytest.raises(UserError, match=": a cascade is of super-resolution by one of"):
        restore.cascade_of(network, [(restore.load(larger), {})])


def test_other_runs_of_the_same_task_are_named_by_their_folders(super_resolution, untrained):
    regression = untrained("regression", task__name="regression")
    assert list(restore.others([super_resolution, regression], (8, 8, 1))) == ["super_resolution", "regression"]
    second = super_resolution.rename(super_resolution.with_name("second"))
    copy = untrained("super_resolution")
    assert list(restore.others([second, copy], (8, 8, 1))) == ["second", copy.name]


def test_a_run_that_generates(untrained, command):
    workdir = untrained("generation", task__name="generation", data__degradation__kinds=())
    with pytest.raises(SystemExit, match="config.task.name: this run generates images and restores none"):
        command("restore", "--workdir", workdir)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--sample", "num_stepz=3"], "config.sample.num_stepz: .* no such field .*config.sample.num_steps"),
        (["--sample", "num_samples=0"], "config.sample.num_samples: 0 must be a whole number ≥ 1"),
        (["--sample", "noise_scale=nan"], "config.sample.noise_scale: nan must be a number ≥ 0"),
        (["--sample", "num_steps"], "--sample num_steps: 'num_steps' must be FIELD=VALUE"),
        (["--sample", "num_steps=0"], "config.sample.num_steps: 0 must be a whole number ≥ 1"),
        (["--data", "imagez=x"], "config.data.imagez: "),
        (["--out", "/dev/null/x"], "error: cannot write to /dev/null/x: /dev/null is not a folder"),
        (["--num", 100_000], "num=100000 must be ≤ 359, the number of images"),
        (["--search", 1], "--search: num_steps=1 must be ≥ 2"),
        (["--best", "beauty"], "--best: 'beauty' "),
        (["--best", "lpips", "--search", 2, "--num", 2], "lpips is not computed for these images; there are psnr"),
        (["--tile", 9], "--tile=9×9: an image is smaller"),
        (["--lpips", "a.pth", "b.pth"], "a.pth does not exist: get the weights of torchvision's AlexNet from https"),
    ],
)
def test_bad_flags_are_one_line(super_resolution, command, flags, words):
    with pytest.raises(SystemExit, match=words) as caught:
        command("restore", "--workdir", super_resolution, *flags)
    assert "\n" not in str(caught.value)


def test_wrong_usage(super_resolution, command, capsys):
    with pytest.raises(SystemExit, match="2"):
        command("restore", "--workdir", super_resolution, "--num", 0)
    assert "argument --num: 0 must be ≥ 1" in capsys.readouterr().err


@pytest.mark.parametrize("size", [50, 400, 2000, 9000])
def test_a_full_disk_is_one_line(super_resolution, command, tmp_path, file_size_limit, size, capsys):
    flags = ["--num", 70, "--sample", "num_steps=1", "--out", tmp_path / "out"]
    with file_size_limit(size), pytest.raises(SystemExit) as caught:
        command("restore", "--workdir", super_resolution, *flags)
    assert re.fullmatch(rf"error: cannot write {tmp_path}/out\S*: File too large", caught.value.code)
    assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / "out" / "restoration.json").exists()  # the last one
