"""The command lines on a network of classes, trained for a few steps with labels dropped."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffjax import data
from diffjax.metrics import digits_svm
from diffjax.metrics.features import classifier

ROOT = Path(__file__).parents[2]
SCALES = """
from diffjax.runs import config_files


def get_config():
    config = config_files.load("ablations/guidance")
    (_, scales), (_, methods) = config.axes
    config.axes = (("scale", scales[::3]), ("guided", methods[:2]))
    config.skip = config.skip[:1]
    config.update(num=100, batch_size=100)
    config.sample.num_steps = 5
    return config
"""


@pytest.fixture(scope="module")
def classes(trained_briefly):
    return trained_briefly("classes", "classes_digits", {})


def test_samples_of_chosen_classes(classes, tmp_path, command):
    def sample(name, *flags):
        command("sample", "--workdir", classes, "--out", tmp_path / name, *flags)
        with np.load(tmp_path / name / "samples.npz") as file:
            return file["arr_0"].astype(int), file["arr_1"].tolist()

    assert Image.open(classes / "samples" / "step_0000040.png").size == (8 * 66 + 2, 10 * 66 + 2)
    cycled, labels = sample("cycled", "--num", 12)
    assert labels == [*range(10), 0, 1]
    assert Image.open(tmp_path / "cycled" / "grid.png").size == (2 * 66 + 2, 10 * 66 + 2)
    chosen, labels = sample("chosen", "--num", 5, "--batch-size", 2, "--label", "3,1,2")
    assert labels == [3, 1, 2, 3, 1]
    assert Image.open(tmp_path / "chosen" / "grid.png").size == (2 * 66 + 2, 3 * 66 + 2)
    # Sample n is the same in any batch, and depends on n alone: here of the classes 1 and 2 both times.
    np.testing.assert_allclose(chosen[1:3], cycled[1:3], atol=1)
    three, labels = sample("three", "--num", 4, "--label", 3)
    assert labels == [3] * 4
    np.testing.assert_allclose(three[[0, 3]], chosen[[0, 3]], atol=1)
    assert np.max(np.abs(three[1] - chosen[1])) > 1

    # The scale 0 does not depend on the class, the scale 1 is the same in any interval.
    none = [sample(f"none{label}", "--num", 2, "--label", label, "--guidance", 0)[0] for label in (3, 5)]
    np.testing.assert_allclose(*none, atol=1)
    one = sample("one", "--num", 2, "--guidance", 1)[0]
    inside = sample("in", "--num", 2, "--guidance", 1, "--sample", "guidance_interval=(0.5,2)")[0]
    np.testing.assert_allclose(inside, one, atol=1)
    assert np.max(np.abs(one - cycled[:2])) > 1
    for name, fields in {"rescaled": "guidance_rescale=1", "limited": "guidance_interval=(0.5,1e9)"}.items():
        assert np.max(np.abs(sample(name, "--num", 2, "--sample", fields)[0] - cycled[:2])) > 1

    with pytest.raises(SystemExit, match="error: label=10: allowed is 0 … 9"):
        sample("bad", "--label", "3,10")
    with pytest.raises(SystemExit, match="error: config.sample.guidance_scale: 2.0 needs a network with classes"):
        command("sample", "--weights", ROOT / "experiments/pretrained/digits", "--guidance", 2, "--out", tmp_path / "w")


def test_accuracy_beside_the_distances(classes, tmp_path, command, monkeypatch):
    source = data.digits()
    judge = classifier.train(source.images[:640], source.labels[:640], epochs=2, batch_size=64)
    classifier.save(tmp_path / "judge.safetensors", judge)
    # Slow, and tested elsewhere.
    monkeypatch.setattr(digits_svm, "held_out_confidence", lambda *_: 0.9)
    monkeypatch.setattr(digits_svm, "class_confidence", lambda *_: (0.9, np.full(10, 0.1)))
    command("evaluate", "--workdir", classes, "--num", 100, "--extractor", tmp_path / "judge.safetensors")
    record = json.loads((classes / "evaluation.json").read_text())
    assert 0 < record["figures"]["accuracy"]["value"] < 1
    assert 0 < record["accuracy"] < 1
    assert "guidance_scale 2.0" in record["protocol"]["sampler"]

    # A sweep over the scale finds the same figures.
    (tmp_path / "scales.py").write_text(SCALES)
    same = "--workdir", classes, f"--config.extractor={tmp_path / 'judge.safetensors'}"
    command("ablate", "--config", tmp_path / "scales.py", *same, "--out", tmp_path / "sweep")
    with (tmp_path / "sweep" / "table.csv").open() as file:
        found = {(row["scale"], row["guided"]): row for row in csv.DictReader(file)}
    assert found.keys() == {("0", "everywhere"), ("2", "everywhere"), ("2", "0.3 < σ ≤ 3")}
    assert len({row["kernel"] for row in found.values()}) == 3
    for name, figure in record["figures"].items():
        assert float(found["2", "everywhere"][name]) == pytest.approx(figure["value"], rel=0.1)
    negative = SCALES.replace("scales[::3]", "(scales[0], ('-1', {'guidance_scale': -1.0}))")
    (tmp_path / "negative.py").write_text(negative)
    with pytest.raises(SystemExit, match="guidance_scale: -1.0 must be .*≥ 0"):
        command("ablate", "--config", tmp_path / "negative.py", *same, "--out", tmp_path / "bad")


@pytest.mark.slow
def test_labels_of_a_subset_of_classes_are_those_of_the_digits(trained_briefly, command, monkeypatch):
    fields = {"data.classes": (7, 3), "model.num_classes": 2, "train.steps": 20, "train.sample_every": 20}
    workdir = trained_briefly("subset", "digits", fields | {"train.checkpoint_every": 20})
    seen = []
    monkeypatch.setattr(digits_svm, "held_out_confidence", lambda *_: 0.9)
    monkeypatch.setattr(digits_svm, "class_confidence", lambda *_: (0.9, np.full(10, 0.1)))
    monkeypatch.setattr(digits_svm, "class_accuracy", lambda _, labels, *__: seen.extend(labels) or 0.5)
    command("evaluate", "--workdir", workdir, "--num", 4, "--figures", "kernel")
    assert seen == [7, 3, 7, 3]
