from functools import partial

import numpy as np
import pytest

from diffjax import data, metrics
from diffjax.errors import UserError
from diffjax.metrics import registry
from diffjax.metrics.features import classifier
from diffjax.metrics.inception_score import inception_score
from diffjax.metrics.precision_recall import precision_recall


@pytest.fixture(scope="module")
def digits():
    """(trained on, held out)."""
    source = data.digits()
    order = np.random.default_rng(0).permutation(len(source))
    return [data.ArraySource(source.images[part], source.labels[part]) for part in (order[359:], order[:359])]


@pytest.fixture(scope="module")
def trained(digits):
    kept, _ = digits
    return classifier.train(kept.images, kept.labels, epochs=6, batch_size=64, learning_rate=5e-3, trained_on="digits")


def test_pixels():
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 2), dtype=np.uint8)
    extractor = metrics.pixels((4, 3, 2))
    features, logits = extractor(images)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, images.reshape(5, 24) / np.float32(255))
    assert logits is None
    assert extractor.dim == 24
    assert extractor(images[:0]).features.shape == (0, 24)


def test_an_extractor_sees_batches_of_one_size():
    sizes = []

    def function(images):
        sizes.append(len(images))
        sums = images.reshape(len(images), -1).sum(1, keepdims=True, dtype=float)
        return sums, -sums

    extractor = metrics.Extractor(1, {"extractor": "sum", "resize": "none"}, function, batch_size=4)
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    features, logits = extractor(images)
    assert sizes == [4, 4, 4]
    np.testing.assert_array_equal(features[:, 0], np.arange(10))
    np.testing.assert_array_equal(logits, -features)


def test_images_of_another_shape():
    extractor = metrics.pixels((4, 4, 1))
    for images in (np.zeros((2, 4, 4, 1)), np.zeros((2, 4, 5, 1), np.uint8), np.zeros((2, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"must be uint8 \[N, 4, 4, 1\] for the extractor 'pixels .*', not"):
            extractor(images)


def test_the_classifier_learns(digits, trained):
    _, held_out = digits
    assert classifier.accuracy(trained, held_out.images, held_out.labels) > 0.93
    extractor = trained.extractor()
    features, logits = extractor(held_out.images)
    assert features.shape == (len(held_out), extractor.dim) == (359, 64)
    assert logits.shape == (359, 10)
    assert np.sqrt(np.mean(features.astype(float) ** 2)) == pytest.approx(1, abs=0.1)
    assert "digits" in extractor.protocol["training"].values()


def test_accuracy_is_a_figure_of_labelled_samples(digits, trained):
    kept, held_out = digits
    reference = registry.Reference(trained.extractor()(kept.images).features, "digits")
    figures = partial(registry.measure, held_out.images, reference, trained.extractor(), floors=False)
    assert figures(labels=held_out.labels)["accuracy"].value == classifier.accuracy(
        trained, held_out.images, held_out.labels
    )
    assert figures(labels=(held_out.labels + 1) % 10)["accuracy"].value < 0.05
    assert figures().keys() == {"kernel", "frechet"}


def test_figures_are_those_of_their_functions(digits, trained):
    kept, held_out = digits
    extract = trained.extractor()
    real, (features, logits) = extract(kept.images).features, extract(held_out.images)
    names = ("kernel", "frechet", "precision", "recall", "inception_score")
    found = registry.measure(held_out.images, registry.Reference(real, "digits"), extract, names)
    assert tuple(found) == names
    assert found["kernel"].value == metrics.kernel_distance(features, real)
    assert found["frechet"].value == metrics.feature_distance(features, real)
    near = precision_recall(features, real, k=3)
    assert (found["precision"].value, found["recall"].value) == near
    assert found["precision"].floor == pytest.approx(near.precision, abs=0.1)  # held-out digits are real ones
    assert (found["inception_score"].value, found["inception_score"].std) == inception_score(logits)
    assert 5 < found["inception_score"].value < 10
    with pytest.raises(UserError, match="num=9 samples: 'inception_score' needs at least 10"):
        registry.measure(held_out.images[:9], registry.Reference(real, "digits"), extract, ["inception_score"])


def test_names_suffixes_and_import_paths(tmp_path, digits, trained, monkeypatch):
    shape = (8, 8, 1)
    assert registry.extractor("pixels", shape).dim == 64
    path = str(tmp_path / "trained.safetensors")
    classifier.save(path, trained)
    assert registry.extractor(path, shape).protocol == trained.extractor().protocol
    with pytest.raises(UserError, match=rf"extractor='{path}': images must be uint8 \[N, 8, 8, 1\]"):
        registry.extractor(path, (8, 8, 3))
    with pytest.raises(UserError, match="none.pth does not exist: get the weights of FID's Inception"):
        registry.extractor(str(tmp_path / "none.pth"), shape)

    (tmp_path / "own_extractors.py").write_text(
        "from diffjax.metrics import Extractor\n"
        "def mean(image_shape):\n"
        "    facts = {'extractor': 'mean', 'resize': 'none'}\n"
        "    return Extractor(1, facts, lambda x: (x.mean((1, 2, 3))[:, None], None), image_shape)\n"
        "def number(): return 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    images = digits[1].images[:3]
    found = registry.extractor("own_extractors:mean", shape)(images).features
    np.testing.assert_allclose(found, images.mean((1, 2, 3))[:, None], rtol=1e-6)
    with pytest.raises(UserError, match="extractor='own_extractors:number': it returned a int, not an Extractor"):
        registry.extractor("own_extractors:number", shape)
    with pytest.raises(UserError, match="extractor='own_extractors:none': .* cannot be imported"):
        registry.extractor("own_extractors:none", shape)
    for name in ("eyes", "weights.bin"):
        with pytest.raises(
            UserError, match=f"extractor='{name}' must be 'pixels', a .safetensors file, a .pth file or"
        ):
            registry.extractor(name, shape)


def test_the_same_seed_trains_the_same_classifier(digits):
    kept, _ = digits
    first, again = (
        classifier.train(kept.images[:300], kept.labels[:300], epochs=1, batch_size=50, seed=1) for _ in range(2)
    )
    assert first.sha256() == again.sha256()


def test_a_classifier_comes_back_from_its_file(tmp_path, digits, trained):
    path = tmp_path / "trained.safetensors"
    classifier.save(path, trained)
    loaded = classifier.load(path)
    assert loaded.sha256() == trained.sha256()
    assert loaded.extractor().protocol == trained.extractor().protocol
    images = digits[1].images[:20]
    np.testing.assert_array_equal(loaded.extractor()(images).features, trained.extractor()(images).features)


def test_files_without_a_classifier(tmp_path):
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "text").write_text("text")
    for name, complaint in (
        ("none", "does not exist"),
        ("other.safetensors", "no classifier"),
        ("text", "cannot read"),
    ):
        with pytest.raises(UserError, match=complaint):
            classifier.load(tmp_path / name)


def test_invalid_training_images(digits):
    kept, _ = digits
    for images, labels in (
        (kept.images[:100], kept.labels[:100]),
        (kept.images / 255, kept.labels),
        (kept.images, kept.labels[:-1]),
    ):
        with pytest.raises(ValueError, match="N ≥ batch_size=128"):
            classifier.train(images, labels)
