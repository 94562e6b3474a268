from functools import partial

import numpy as np
import pytest

from diffjax import data, evaluation
from diffjax.errors import UserError
from diffjax.evaluation import classifier, quality
from diffjax.evaluation.inception_score import inception_score
from diffjax.evaluation.precision_recall import precision_recall


@pytest.fixture(scope="module")
def digits():
    """(trained on, held out)."""
    source = data.digits()
    order = np.random.default_rng(0).permutation(len(source))
    return [data.ArraySource(source.images[part], source.labels[part]) for part in (order[359:], order[:359])]


@pytest.fixture(scope="module")
def judge(digits):
    kept, _ = digits
    return classifier.train(kept.images, kept.labels, epochs=6, batch_size=64, learning_rate=5e-3, trained_on="digits")


def test_pixels():
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 2), dtype=np.uint8)
    extractor = evaluation.pixels((4, 3, 2))
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

    extractor = evaluation.Extractor(1, {"extractor": "sum", "resize": "none"}, function, batch_size=4)
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    features, logits = extractor(images)
    assert sizes == [4, 4, 4]
    np.testing.assert_array_equal(features[:, 0], np.arange(10))
    np.testing.assert_array_equal(logits, -features)


def test_images_that_an_extractor_is_not_for():
    extractor = evaluation.pixels((4, 4, 1))
    for images in (np.zeros((2, 4, 4, 1)), np.zeros((2, 4, 5, 1), np.uint8), np.zeros((2, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"'pixels .*' takes uint8 \[N, 4, 4, 1\]; these are"):
            extractor(images)


def test_the_classifier_learns(digits, judge):
    _, held_out = digits
    assert classifier.accuracy(judge, held_out.images, held_out.labels) > 0.93
    extractor = judge.extractor()
    features, logits = extractor(held_out.images)
    assert features.shape == (len(held_out), extractor.dim) == (359, 64)
    assert logits.shape == (359, 10)
    assert np.sqrt(np.mean(features.astype(float) ** 2)) == pytest.approx(1, abs=0.1)
    assert "digits" in extractor.protocol["training"].values()


def test_accuracy_is_a_figure_of_labelled_samples(digits, judge):
    kept, held_out = digits
    reference = quality.Reference(judge.extractor()(kept.images).features, "digits")
    figures = partial(quality.figures, held_out.images, reference, judge.extractor(), floors=False)
    assert figures(labels=held_out.labels)["accuracy"].value == classifier.accuracy(
        judge, held_out.images, held_out.labels
    )
    assert figures(labels=(held_out.labels + 1) % 10)["accuracy"].value < 0.05
    assert figures().keys() == {"kernel", "frechet"}


def test_figures_are_those_of_their_functions(digits, judge):
    kept, held_out = digits
    extract = judge.extractor()
    real, (drawn, logits) = extract(kept.images).features, extract(held_out.images)
    found = quality.figures(held_out.images, quality.Reference(real, "digits"), extract, quality.FIGURES)
    assert list(found) == list(quality.FIGURES)
    near = precision_recall(drawn, real, k=3)
    assert (found["precision"].value, found["recall"].value) == near
    assert found["precision"].floor == pytest.approx(near.precision, abs=0.1)  # held-out digits are real ones
    assert (found["inception_score"].value, found["inception_score"].std) == inception_score(logits)
    assert 5 < found["inception_score"].value < 10
    with pytest.raises(UserError, match="num=9 samples: an Inception score is of 10 parts"):
        quality.figures(held_out.images[:9], quality.Reference(real, "digits"), extract, ["inception_score"])


def test_the_same_seed_trains_the_same_classifier(digits):
    kept, _ = digits
    first, again = (
        classifier.train(kept.images[:300], kept.labels[:300], epochs=1, batch_size=50, seed=1) for _ in range(2)
    )
    assert first.sha256() == again.sha256()


def test_a_classifier_comes_back_from_its_file(tmp_path, digits, judge):
    path = tmp_path / "judge.safetensors"
    classifier.save(path, judge)
    loaded = classifier.load(path)
    assert loaded.sha256() == judge.sha256()
    assert loaded.extractor().protocol == judge.extractor().protocol
    images = digits[1].images[:20]
    np.testing.assert_array_equal(loaded.extractor()(images).features, judge.extractor()(images).features)


def test_what_holds_no_classifier(tmp_path):
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "text").write_text("text")
    for name, complaint in (("none", "not there"), ("other.safetensors", "no classifier"), ("text", "cannot read")):
        with pytest.raises(UserError, match=complaint):
            classifier.load(tmp_path / name)


def test_images_that_cannot_be_trained_on(digits):
    kept, _ = digits
    for images, labels in (
        (kept.images[:100], kept.labels[:100]),
        (kept.images / 255, kept.labels),
        (kept.images, kept.labels[:-1]),
    ):
        with pytest.raises(ValueError, match="N ≥ batch_size=128"):
            classifier.train(images, labels)
