import numpy as np
import pytest

from diffjax import data


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_exact_changes_nothing():
    image = pixels(5, 4, 3)
    np.testing.assert_array_equal(data.prepare(image, shape=(5, 4, 3)), image)
    with pytest.raises(
        ValueError, match=r"^image_shape=\(4, 4, 3\) does not match an image of shape \(5, 4, 3\) with resize='exact'"
    ):
        data.prepare(image, shape=(4, 4, 3))


def test_pad_keeps_the_image_in_the_middle():
    image = pixels(28, 27, 1)
    padded = data.prepare(image, shape=(32, 32, 1), resize="pad")
    np.testing.assert_array_equal(padded[2:30, 2:29], image)
    assert padded.sum(dtype=int) == image.sum(dtype=int)
    with pytest.raises(ValueError, match="does not match"):
        data.prepare(image, shape=(16, 32, 1), resize="pad")


def test_half_of_the_images_are_flipped():
    image = pixels(2, 3, 1)
    rng = np.random.default_rng(0)
    flipped = [
        not np.array_equal(data.prepare(image, rng, shape=image.shape, random_flip=True), image) for _ in range(400)
    ]
    assert abs(sum(flipped) - 200) < 4 * 10  # four standard deviations
    np.testing.assert_array_equal(
        next(
            x
            for x in (data.prepare(image, rng, shape=image.shape, random_flip=True) for _ in range(99))
            if (x != image).any()
        ),
        image[:, ::-1],
    )
    assert all(np.array_equal(data.prepare(image, shape=image.shape, random_flip=True), image) for _ in range(20))


def test_crop_box_then_crop():
    image = pixels(20, 30, 3)
    middle = data.prepare(image, shape=(4, 6, 3), resize="crop")
    np.testing.assert_array_equal(middle, image[8:12, 12:18])
    np.testing.assert_array_equal(data.prepare(image, shape=(5, 7, 3), crop_box=(1, 2, 5, 7)), image[1:6, 2:9])
    with pytest.raises(
        ValueError, match=r"^crop_box=\(16, 0, 5, 5\) does not lie within an image of shape \(20, 30, 3\)"
    ):
        data.prepare(image, shape=(5, 5, 3), crop_box=(16, 0, 5, 5))
    with pytest.raises(ValueError, match="does not match"):
        data.prepare(image, shape=(21, 6, 3), resize="crop")


def test_random_crops_are_everywhere():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    rng = np.random.default_rng(0)
    corners = {
        int(data.prepare(image, rng, shape=(2, 2, 1), resize="crop", crop="random")[0, 0, 0]) for _ in range(200)
    }
    assert corners == {0, 1, 2, 4, 5, 6}


@pytest.mark.parametrize("size", [(12, 20), (20, 12), (8, 8)])
def test_area_is_the_mean_over_boxes_of_the_central_square(size):
    image = pixels(*size, 3)
    side = min(size)
    top, left = ((n - side) // 2 for n in size)
    square = image[top : top + side, left : left + side].reshape(4, side // 4, 4, side // 4, 3)
    small = data.prepare(image, shape=(4, 4, 3), resize="cover", resample="area")
    np.testing.assert_allclose(small, square.mean((1, 3)), atol=1.01)  # rounds twice


def test_cover_keeps_smooth_images():
    rows, columns = np.mgrid[:40, :60]
    image = np.stack([3 * rows, 2 * columns, rows + columns], -1).astype(np.uint8)
    small = data.prepare(image, shape=(10, 10, 3), resize="cover")
    centers = 4 * np.arange(10) + 1.5
    np.testing.assert_allclose(small[1:-1, 1:-1, 0], np.repeat(3 * centers[1:-1, None], 8, 1), atol=1)
    np.testing.assert_allclose(small[1:-1, 1:-1, 1], np.repeat(2 * (centers[None, 1:-1] + 10), 8, 0), atol=1)
    rng = np.random.default_rng(0)
    lefts = [data.prepare(image, rng, shape=(10, 10, 3), resize="cover", crop="random")[5, 5, 1] for _ in range(50)]
    assert min(lefts) < 55 < 65 < max(lefts)


def test_every_size_covers_any_other():
    for height, width, h, w in np.random.default_rng(0).integers(1, 40, (300, 4)):
        for crop in ("center", "random"):
            image = data.prepare(
                np.full((height, width, 1), 77, np.uint8),
                np.random.default_rng(0),
                shape=(h, w, 1),
                resize="cover",
                crop=crop,
            )
            assert image.shape == (h, w, 1)
            assert (image == 77).all()


def test_channels():
    grey, red = pixels(4, 4, 1), np.full((4, 4, 3), (255, 0, 0), np.uint8)
    np.testing.assert_array_equal(data.prepare(grey, shape=(4, 4, 3)), np.concatenate([grey] * 3, -1))
    assert (data.prepare(red, shape=(4, 4, 1)) == 76).all()  # 0.299 · 255


@pytest.mark.parametrize("resample", ["area", "bicubic"])
def test_each_channel_is_scaled_by_itself(resample):
    image = pixels(24, 20, 5)
    small = data.prepare(image, shape=(6, 5, 5), resize="cover", resample=resample)
    for channel in range(5):
        alone = data.prepare(image[..., channel : channel + 1], shape=(6, 5, 1), resize="cover", resample=resample)
        np.testing.assert_array_equal(small[..., channel : channel + 1], alone)
    rgb = data.prepare(image[..., :3], shape=(6, 5, 3), resize="cover", resample=resample)
    np.testing.assert_array_equal(small[..., :3], rgb)


@pytest.mark.parametrize("option", ["resize", "crop", "resample"])
def test_unknown_options(option):
    for value in ("stretch", None, 1, ["pad"]):
        with pytest.raises(ValueError, match=f"^{option}=.* is not one of '"):
            data.prepare(pixels(4, 4, 1), shape=(4, 4, 1), **{option: value})


@pytest.mark.parametrize("option", ["random_flip", "random_rot90"])
@pytest.mark.parametrize("value", [float("nan"), 1, None, "True"])
def test_switches_are_booleans(option, value):
    with pytest.raises(ValueError, match=f"^{option}=.* must be True or False"):
        data.prepare(pixels(4, 4, 1), shape=(4, 4, 1), **{option: value})


@pytest.mark.parametrize(
    "shape",
    [
        (4, 4), (4, 4, 2), (0, 4, 1), (4, -1, 1), (4.0, 4, 1), (4, 4, True), (4, 4, None), "441", 4, None,
        (16_385, 4, 1), (10**12, 4, 1), (float("nan"), 4, 1), (4, 4, 0), (),
    ],
)  # fmt: skip
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=r"^image_shape=.* must be \(height, width, channels\)"):
        data.prepare(pixels(4, 4, 1), shape=shape)


@pytest.mark.parametrize(
    "box",
    [(0, 0, 0, 4), (0, 0, 4, 0), (-1, 0, 4, 4), (0, -1, 4, 4), (0, 0, 4), (0, 0, 4.0, 4), "0044", 4, (), (None,) * 4],
)
def test_bad_crop_boxes(box):
    with pytest.raises(ValueError, match=r"^crop_box=.* must be \(top, left, height, width\)"):
        data.prepare(pixels(4, 4, 1), shape=(4, 4, 1), crop_box=box)
