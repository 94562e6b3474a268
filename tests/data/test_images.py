import numpy as np
import pytest

from diffjax import data


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_exact_changes_nothing():
    image = pixels(5, 4, 3)
    np.testing.assert_array_equal(data.prepare(image, shape=(5, 4, 3)), image)
    with pytest.raises(ValueError, match=r"with fit='exact', images of shape \(5, 4, 3\) cannot be \(4, 4, 3\)"):
        data.prepare(image, shape=(4, 4, 3))


def test_pad_keeps_the_image_in_the_middle():
    image = pixels(28, 27, 1)
    padded = data.prepare(image, shape=(32, 32, 1), fit="pad")
    np.testing.assert_array_equal(padded[2:30, 2:29], image)
    assert padded.sum(dtype=int) == image.sum(dtype=int)
    with pytest.raises(ValueError, match="cannot be"):
        data.prepare(image, shape=(16, 32, 1), fit="pad")


def test_half_of_the_images_are_flipped():
    image = pixels(2, 3, 1)
    rng = np.random.default_rng(0)
    flipped = [not np.array_equal(data.prepare(image, rng, shape=image.shape, flip=True), image) for _ in range(400)]
    assert abs(sum(flipped) - 200) < 4 * 10  # four standard deviations
    np.testing.assert_array_equal(
        next(
            x for x in (data.prepare(image, rng, shape=image.shape, flip=True) for _ in range(99)) if (x != image).any()
        ),
        image[:, ::-1],
    )
    assert all(np.array_equal(data.prepare(image, shape=image.shape, flip=True), image) for _ in range(20))
