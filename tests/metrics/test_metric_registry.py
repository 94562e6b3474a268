"""Every metric by its name: its direction, what it needs, and metrics from other modules by import path."""

import subprocess
import sys

import numpy as np
import pytest

from diffjax import metrics
from diffjax.data import degradations
from diffjax.errors import UserError
from diffjax.metrics import image_quality, registry

OWN = """
from diffjax.metrics import Metric

def brightness(images): return images.mean()
def shift(samples, reference): return abs(samples.mean() - reference.mean())
def spread(samples, reference): return samples.std(), 0.5
def sharpness(images, truth): return abs(images.astype(float) - truth).mean((1, 2, 3))
sharpness.higher_is_better = True
entry = Metric("entry", shift, higher_is_better=True, min_count=20)
number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Makes the module own_metrics importable."""
    (tmp_path / "own_metrics.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_metrics", None)


def images(seed, count=30, shape=(12, 12, 1), low=0):
    return np.random.default_rng(seed).integers(low, 256, (count, *shape), np.uint8)


def classes_extractor():
    """Two features and ten logits: the brightness of ten columns."""

    def function(x):
        columns = x.mean(axis=(1, 3))[:, :10]
        return columns[:, :2], columns

    return metrics.Extractor(2, {"extractor": "columns", "resize": "none"}, function, classes="labels")


def normal(seed, shift=0.0, scale=1.0, count=60):
    return shift + scale * np.random.default_rng(seed).normal(size=(count, 3))


def better_and_worse():
    """Name → (given of a better set, given of a worse set)."""
    truth = images(0, shape=(16, 16, 3))
    noise = np.random.default_rng(1).normal(size=truth.shape)
    slight, strong = (np.clip(truth + scale * noise, 0, 255).astype(np.uint8) for scale in (5, 50))

    def downsample(image):
        return degradations.downsample(image, 4, "area")

    def perceptual(a, b):
        return np.abs(a.astype(float) - b).mean(axis=(1, 2, 3))

    condition = {
        "truth": truth, "low": np.stack([downsample(image) for image in truth]), "downsample": downsample,
        "perceptual": perceptual,
    }  # fmt: skip
    restored = tuple(condition | {"images": each} for each in (slight, strong))
    reference, spread = normal(0), np.concatenate([normal(0), normal(1, shift=100)])
    near, far = ({"samples": normal(2, shift), "reference": reference} for shift in (0.0, 1.0))
    one_mode = {"samples": normal(2), "reference": spread}
    both_modes = {"samples": np.concatenate([normal(2), normal(3, shift=100)]), "reference": spread}
    invented = {"samples": both_modes["samples"], "reference": reference}
    labels = np.arange(50) % 10
    sure, unsure = ({"logits": scale * np.eye(10)[labels], "labels": labels} for scale in (9.0, 0.5))
    wrong = sure | {"labels": (labels + 1) % 10}
    return {
        "psnr": restored, "ssim": restored, "consistency": restored, "lpips": restored,
        "kernel": (near, far), "frechet": (near, far), "precision": (near, invented), "recall": (both_modes, one_mode),
        "inception_score": (sure, unsure), "accuracy": (sure, wrong),
    }  # fmt: skip


def test_every_metric_has_the_right_direction():
    cases = better_and_worse()
    assert cases.keys() == set(metrics.METRICS)
    for name, (better, worse) in cases.items():
        values = [metrics.METRICS[name](given).value for given in (better, worse)]
        if metrics.higher_is_better(name):
            values.reverse()
        assert values[0] < values[1], name


def test_names_are_those_of_the_entries():
    assert all(metric.name == name for name, metric in metrics.METRICS.items())
    assert metrics.METRICS["accuracy"].needs == ("logits", "labels")
    assert metrics.METRICS["inception_score"].needs == ("logits",)
    assert [metrics.METRICS[name].least(64) for name in ("kernel", "frechet", "recall", "inception_score")] == [
        2,
        65,
        4,
        10,
    ]


def test_other_figures_are_better_where_they_are_lower():
    assert not any(
        metrics.higher_is_better(name) for name in ("seconds", "calls", "bound", "mse", "", "no.module:metric")
    )


@pytest.mark.usefixtures("own")
def test_a_metric_by_import_path():
    samples, real = images(0), images(1, count=40, low=100)
    extract = metrics.pixels(samples.shape[1:])
    reference = metrics.Reference(extract(real).features, "noise")
    names = ("own_metrics:brightness", "kernel", "own_metrics:shift", "own_metrics:spread", "own_metrics:entry")
    found = metrics.measure(samples, reference, extract, names)
    assert tuple(found) == names
    shift = abs(extract(samples).features.mean() - reference.features.mean())
    assert found["own_metrics:brightness"] == metrics.Figure(samples.mean())
    assert found["own_metrics:shift"].value == found["own_metrics:entry"].value == pytest.approx(shift)
    assert 0 < found["own_metrics:shift"].floor < 0.2 * shift
    assert found["own_metrics:entry"].floor is None  # 40 real images are not 30 and 20
    assert found["own_metrics:spread"].std == 0.5
    assert [metrics.higher_is_better(name) for name in (*names, "own_metrics:sharpness")] == [False] * 4 + [True] * 2
    without = metrics.measure(samples, reference, extract, names, floors=False)
    assert without["own_metrics:shift"].floor is None


@pytest.mark.usefixtures("own")
def test_a_metric_of_restored_images_by_import_path():
    truth = images(0, count=5)
    pairs = [image_quality.Pair(image, image, None) for image in truth]
    names = ("own_metrics:sharpness", "psnr", "consistency", "own_metrics:shift")
    found = image_quality.Measure(pairs, metrics.pixels((6, 6, 1)), (6, 6, 1), names=names)(list(truth // 2))
    assert list(found) == ["own_metrics:sharpness", "psnr", "own_metrics:shift"]
    expected = np.abs(truth // 2 - truth.astype(float)).mean((1, 2, 3))
    assert found["own_metrics:sharpness"] == (pytest.approx(expected.mean()), pytest.approx(expected.std()), None, None)
    tiles = [(x / 255.0).mean() for x in (truth // 2, truth)]
    assert found["own_metrics:shift"].value == pytest.approx(tiles[1] - tiles[0], rel=1e-5)


@pytest.mark.usefixtures("own")
def test_too_few_samples_and_unknown_names():
    extract = metrics.pixels((4, 4, 1))
    registry.check(17, 17, extract)
    registry.check(2, 2, extract, ["kernel", "own_metrics:shift"])
    registry.check(2, 1, extract, ["own_metrics:brightness"])
    for num, real, names, words in (
        (16, 99, ("kernel", "frechet"), "num=16 samples: 'frechet' needs at least 17; the kernel distance alone"),
        (99, 16, ("frechet",), "reference_num=16 real images: 'frechet' needs at least 17"),
        (1, 9, ("kernel",), "num=1 samples: 'kernel' needs at least 2"),
        (3, 9, ("recall",), "num=3 samples: 'recall' needs at least 4"),
        (19, 99, ("own_metrics:entry",), "num=19 samples: 'entry' needs at least 20"),
        (99, 0, ("own_metrics:brightness",), "reference_num=0 real images: .* needs at least 1"),
        (99, 99, (), r"figures=\(\) must be some of .*'kernel'"),
        (99, 99, ("kernel", "fid"), "figures='fid' is not one of .*'kernel'.* nor an import path"),
        (99, 99, ("own_metrics:none",), "figures='own_metrics:none' cannot be imported"),
        (99, 99, ("own_metrics:number",), "figures='own_metrics:number' must be a Metric or a function, not int"),
        (99, 99, ("inception_score",), "figures='inception_score' needs logits: .* the extractor 'pixels in"),
        (99, 99, ("psnr",), "figures='psnr' needs truth"),
    ):
        with pytest.raises(UserError, match=words):
            registry.check(num, real, extract, names)


def test_accuracy_needs_labels():
    extract, samples = classes_extractor(), images(0)
    reference = metrics.Reference(extract(images(1)).features, "noise")
    labels = extract(samples).logits.argmax(1)
    assert list(metrics.measure(samples, reference, extract)) == ["kernel", "frechet"]
    found = metrics.measure(samples, reference, extract, ["kernel", "inception_score"], labels=labels)
    assert list(found) == ["kernel", "inception_score", "accuracy"]
    assert found["accuracy"] == metrics.Figure(1.0)
    assert list(metrics.measure(samples, reference, extract, ["accuracy", "kernel"], labels=labels)) == [
        "accuracy",
        "kernel",
    ]
    registry.check(30, 30, extract, ["accuracy"])
    with pytest.raises(UserError, match="figures='accuracy' needs labels"):
        metrics.measure(samples, reference, extract, ["accuracy"])


def test_the_import_is_light():
    code = (
        "import sys, diffjax.metrics; "
        "heavy = ['PIL', 'sklearn', 'torch', 'tensorflow', 'flax', 'matplotlib']; "
        "heavy += [f'diffjax.{name}' for name in ('training', 'runs', 'sweeps', 'interop', 'report')]; "
        "print([name for name in heavy if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
