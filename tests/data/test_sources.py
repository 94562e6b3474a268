import numpy as np
import pytest

from diffjax import data


def test_digits_are_the_real_ones():
    source = data.digits()
    assert len(source) == 1797
    example = source[3]
    assert example["image"].shape == (8, 8, 1)
    assert example["image"].dtype == np.uint8
    assert [source[i]["label"] for i in range(10)] == list(range(10))
    assert np.unique(source.images).tolist() == [round(255 * level / 16) for level in range(17)]


def test_split_is_a_partition_and_repeats():
    source = data.digits()
    kept, held = data.split(source, 0.2, seed=1)
    assert (len(kept), len(held)) == (1438, 359)
    rows = np.concatenate([kept.images, held.images]).reshape(1797, -1)
    np.testing.assert_array_equal(
        rows[np.lexsort(rows.T)], source.images.reshape(1797, -1)[np.lexsort(source.images.reshape(1797, -1).T)]
    )
    np.testing.assert_array_equal(data.split(source, 0.2, seed=1)[1].images, held.images)
    assert not np.array_equal(data.split(source, 0.2, seed=2)[1].images, held.images)
    whole, nothing = data.split(source, 0.0, seed=1)
    np.testing.assert_array_equal(whole.images, source.images)
    assert len(nothing) == 0


def test_bad_input():
    with pytest.raises(ValueError, match="holdout=1.0"):
        data.split(data.digits(), 1.0, seed=0)
    with pytest.raises(ValueError, match="uint8"):
        data.ArraySource(np.zeros((2, 8, 8, 1)), np.zeros(2, int))
    with pytest.raises(ValueError, match="labels"):
        data.ArraySource(np.zeros((2, 8, 8, 1), np.uint8), np.zeros(3, int))
