"""The command lines on a network of classes, trained for a few steps with labels dropped."""

import csv
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffjax import data, evaluation
from diffjax.errors import UserError
from diffjax.evaluation import classifier

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def classes(trained_briefly):
    sys.path.insert(0, str(ROOT))
    from configs import classes_digits

    sys.path.remove(str(ROOT))
    return trained_briefly("classes", classes_digits.get_config(), {})


def test_samples_of_chosen_classes(classes, tmp_path, command):
    def draw(name, *flags):
        command("sample", "--workdir", classes, "--out", tmp_path / name, *flags)
        with np.load(tmp_path / name / "samples.npz") as file:
            return file["arr_0"].astype(int), file["arr_1"].tolist()

    assert Image.open(classes / "samples" / "step_0000040.png").size == (8 * 66 + 2, 10 * 66 + 2)
    cycled, labels = draw("cycled", "--num", 12)
    assert labels == [*range(10), 0, 1]
    assert Image.open(tmp_path / "cycled" / "grid.png").size == (2 * 66 + 2, 10 * 66 + 2)
    chosen, labels = draw("chosen", "--num", 5, "--batch-size", 2, "--labels", "3,1,2")
    assert labels == [3, 1, 2, 3, 1]
    assert Image.open(tmp_path / "chosen" / "grid.png").size == (2 * 66 + 2, 3 * 66 + 2)
    # Sample n is the same in any batch, and told by n alone: here of the classes 1 and 2 both times.
    np.testing.assert_allclose(chosen[1:3], cycled[1:3], atol=1)
    three, labels = draw("three", "--num", 4, "--label", 3)
    assert labels == [3] * 4
    np.testing.assert_allclose(three[[0, 3]], chosen[[0, 3]], atol=1)
    assert np.max(np.abs(three[1] - chosen[1])) > 1

    # The scale 0 does not know the class, the scale 1 is the same in any interval.
    none = [draw(f"none{label}", "--num", 2, "--label", label, "--guidance", 0)[0] for label in (3, 5)]
    np.testing.assert_allclose(*none, atol=1)
    one = draw("one", "--num", 2, "--guidance", 1)[0]
    np.testing.assert_allclose(draw("in", "--num", 2, "--guidance", 1, "--guidance-interval", 0.5, 2)[0], one, atol=1)
    assert np.max(np.abs(one - cycled[:2])) > 1
    for name, flags in {"rescaled": ["--guidance-rescale", 1], "limited": ["--guidance-interval", 0.5, "inf"]}.items():
        assert np.max(np.abs(draw(name, "--num", 2, *flags)[0] - cycled[:2])) > 1

    with pytest.raises(SystemExit, match="error: --label=10: allowed is 0 … 9"):
        draw("bad", "--labels", "3,10")
    with pytest.raises(SystemExit, match="--guidance goes with --workdir"):
        command("sample", "--weights", ROOT / "experiments/pretrained/digits", "--guidance", 2, "--out", tmp_path / "w")


def test_accuracy_beside_the_distances(classes, tmp_path, command, monkeypatch):
    source = data.digits()
    judge = classifier.train(source.images[:640], source.labels[:640], epochs=2, batch_size=64)
    classifier.save(tmp_path / "judge.safetensors", judge)
    # Slow, and tested elsewhere.
    monkeypatch.setattr(evaluation, "held_out_confidence", lambda *_: 0.9)
    monkeypatch.setattr(evaluation, "class_confidence", lambda *_: (0.9, np.full(10, 0.1)))
    command("evaluate", "--workdir", classes, "--num", 100, "--extractor", tmp_path / "judge.safetensors")
    record = json.loads((classes / "evaluation.json").read_text())
    assert 0 < record["accuracy"] < 1
    assert "guidance 2.0" in record["protocol"]["sampler"]

    monkeypatch.syspath_prepend(ROOT / "experiments")
    monkeypatch.syspath_prepend(ROOT)
    ablate, guidance = (importlib.import_module(name) for name in ("ablate", "configs.ablations.guidance"))
    config = guidance.get_config()
    assert len(config.skip) == 4
    config.update(extractor=str(tmp_path / "judge.safetensors"), num=100, batch_size=100)
    config.axes = (("scale", tuple((f"{s:g}", {"guidance": s}) for s in (0.0, 2.0))), ("guided", guidance.HOW[:2]))
    config.skip = config.skip[:1]
    config.sample.steps = 5
    ablate.run(config, classes, tmp_path / "sweep", "0/1")
    with (tmp_path / "sweep" / "table.csv").open() as file:
        found = {(row["scale"], row["guided"]): row for row in csv.DictReader(file)}
    assert found.keys() == {("0", "everywhere"), ("2", "everywhere"), ("2", "0.3 < σ ≤ 3")}
    assert len({row["kernel"] for row in found.values()}) == 3
    for name, figure in record["figures"].items():
        assert float(found["2", "everywhere"][name]) == pytest.approx(figure["value"], rel=0.1)
    config.axes = (("scale", (("-1", {"guidance": -1.0}),)),)
    config.skip = ()
    with pytest.raises(UserError, match="config.sample.guidance: -1.0 must be ≥ 0"):
        ablate.run(config, classes, tmp_path / "bad", "0/1")
