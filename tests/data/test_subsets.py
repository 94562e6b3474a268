import numpy as np
import pytest
from PIL import Image

from diffjax import data

LABELS = np.array([3, 0, 2, 3, 1, 0, 2, 2])


class Unlisted:
    """A source that holds no array of labels."""

    def __init__(self, source):
        self.source = source

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        return self.source[index]


def numbered(labels=LABELS):
    """A source whose n-th image is n."""
    return data.ArraySource(np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1), labels)


@pytest.mark.parametrize("wrap", [lambda source: source, Unlisted])
def test_examples_are_kept_and_relabelled_in_the_order_given(wrap):
    subset = data.of_classes(wrap(numbered()), (3, 0))
    assert len(subset) == 4
    assert [int(subset[n]["image"].item()) for n in range(4)] == [0, 1, 3, 5]
    assert [subset[n]["label"] for n in range(4)] == [0, 1, 0, 1]
    np.testing.assert_array_equal(subset.labels, [0, 1, 0, 1])


def test_a_subset_of_a_subset():
    subset = data.of_classes(data.of_classes(numbered(), [2, 3, 0]), [1])
    assert [int(subset[n]["image"].item()) for n in range(len(subset))] == [0, 3]
    assert {subset[n]["label"] for n in range(len(subset))} == {0}


def test_a_source_with_labels_is_not_read():
    class Unreadable(data.ArraySource):
        def __getitem__(self, index):
            raise AssertionError

    assert len(data.of_classes(Unreadable(np.zeros((8, 1, 1, 1), np.uint8), LABELS), (2,))) == 3


def test_batches_of_two_classes():
    subset = data.of_classes(data.digits(), (9, 7))
    kept, held = data.split(subset, 0.2, seed=0)
    assert len(kept) + len(held) == len(subset) == 359
    batch = next(data.batches(kept, batch_size=32, seed=0))
    assert set(batch["label"].tolist()) == {0, 1}


@pytest.mark.parametrize(
    "classes", [(), (1, 1), (-1,), (1.0,), (True,), ("1",), "1", 1, None, (None,), (float("nan"),)]
)
def test_invalid_classes(classes):
    with pytest.raises(ValueError, match=r"^classes=.* must be one or more different whole numbers ≥ 0$"):
        data.of_classes(numbered(), classes)


def test_absent_classes():
    with pytest.raises(ValueError, match=r"^classes=\(11,\): label 11 is not in the source; it has 0 … 9$"):
        data.of_classes(data.digits(), (11,))
    with pytest.raises(ValueError, match=r"^classes=\(4, 3\): label 3 is not in the source; it has 2, 4, 7$"):
        data.of_classes(numbered(np.array([7, 2, -1, 4])), (4, 3))
    with pytest.raises(ValueError, match=r"label 1 is not in the source; it has 0, 2, .*, 38, …$"):
        data.of_classes(numbered(2 * np.arange(100)), (1,))
    with pytest.raises(ValueError, match="label 1000000000000000000000 is not"):
        data.of_classes(numbered(), (10**21,))


def test_sources_without_labels(tmp_path):
    with pytest.raises(ValueError, match=r"^classes=\(0,\) needs a source with labels; this one has none$"):
        data.of_classes(data.ArraySource(np.zeros((2, 1, 1, 1), np.uint8)), (0,))
    for name in ("sharp", "blur"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name / "0.png")
    with pytest.raises(ValueError, match="needs a source with labels"):
        data.of_classes(data.pairs(tmp_path), (0,))
