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
    assert sorted([*kept.indices, *held.indices]) == list(range(1797))
    np.testing.assert_array_equal(held[5]["image"], source[held.indices[5]]["image"])
    np.testing.assert_array_equal(data.split(source, 0.2, seed=1)[1].indices, held.indices)
    assert not np.array_equal(data.split(source, 0.2, seed=2)[1].indices, held.indices)
    whole, nothing = data.split(source, 0.0, seed=1)
    assert list(whole.indices) == list(range(1797))
    assert len(nothing) == 0


def test_bad_input():
    with pytest.raises(ValueError, match="holdout=1.0"):
        data.split(data.digits(), 1.0, seed=0)
    with pytest.raises(ValueError, match="uint8"):
        data.ArraySource(np.zeros((2, 8, 8, 1)), np.zeros(2, int))
    with pytest.raises(ValueError, match="labels"):
        data.ArraySource(np.zeros((2, 8, 8, 1), np.uint8), np.zeros(3, int))
    with pytest.raises(ValueError, match="float64"):
        data.ArraySource(np.zeros((2, 8, 8, 1), np.uint8), np.zeros(2))


@pytest.mark.parametrize(("grey", "column"), [(True, False), (False, True)])
def test_npz(tmp_path, grey, column):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3) if grey else (5, 4, 3, 3), np.uint8)
    numbers = np.arange(5)[:, None] if column else np.arange(5)
    np.savez(tmp_path / "some.npz", x=images, y=numbers)
    source = data.npz(tmp_path / "some.npz", images="x", labels="y")
    assert len(source) == 5
    np.testing.assert_array_equal(source[2]["image"], images[2].reshape(4, 3, -1))
    assert [source[n]["label"] for n in range(5)] == [0, 1, 2, 3, 4]
    assert data.npz(tmp_path / "some.npz", images="x")[3]["label"] == data.NO_LABEL


def test_bad_npz(tmp_path):
    np.savez(tmp_path / "some.npz", x_train=np.zeros((5, 4, 3)), y=np.arange(5))
    with pytest.raises(ValueError, match="path='.*nowhere.npz' is no file"):
        data.npz(tmp_path / "nowhere.npz")
    with pytest.raises(ValueError, match="'y_train' is not in .*some.npz, which holds 'x_train', 'y'"):
        data.npz(tmp_path / "some.npz", labels="y_train")
    with pytest.raises(ValueError, match="images must be uint8"):
        data.npz(tmp_path / "some.npz")
