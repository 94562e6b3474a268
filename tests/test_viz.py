import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffjax import viz


def test_to_uint8_rounds_and_clips():
    x = jnp.array([-1.5, -1.0, 0.0, 0.999, 1.0, 3.0, 2 * 100 / 255 - 1])
    assert viz.to_uint8(x).tolist() == [0, 0, 128, 255, 255, 255, 100]


def test_grid_enlarges_without_blur_and_keeps_a_gap():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    picture = viz.grid(images, columns=3, tile=8, gap=2)
    assert picture.shape == (2 + 2 * 10, 2 + 3 * 10, 3)
    for n in range(5):
        top, left = 2 + 10 * (n // 3), 2 + 10 * (n % 3)
        assert np.all(picture[top : top + 8, left : left + 8] == n)
    assert np.all(picture[:2] == 255)
    assert np.all(picture[:, 10:12] == 255)
    assert np.all(picture[12:, 22:] == 255)  # no sixth image


def test_grid_of_colour_images():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    picture = viz.grid(images, columns=2, tile=4, gap=0)
    np.testing.assert_array_equal(picture, np.concatenate(images, axis=1))


@pytest.mark.parametrize(
    "images", [np.zeros((1, 2, 2, 1)), np.zeros((2, 2, 1), np.uint8), np.zeros((1, 2, 2, 2), np.uint8)]
)
def test_grid_refuses(images):
    with pytest.raises(ValueError, match="images must be uint8"):
        viz.grid(images, columns=1)


def test_denoising_strip_has_two_rows_a_sample_in_order():
    x = np.linspace(-1, 1, 3 * 2).reshape(3, 2, 1, 1, 1) * np.ones((1, 1, 8, 8, 1))
    strip = viz.denoising_strip([10, 5, -1], x, -x, tile=64, gap=2)
    body = strip[-(4 * 66 + 2) :, -(3 * 66 + 2) :]
    for k in range(3):
        for n in range(2):
            for row, value in ((2 * n, x[k, n]), (2 * n + 1, -x[k, n])):
                tile = body[2 + 66 * row :, 2 + 66 * k :][:64, :64]
                assert np.all(tile == viz.to_uint8(value[0, 0, 0]))
    assert np.any(strip[:22] != 255)  # the labels


def test_save_png_is_lossless_and_makes_the_folder(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = viz.save_png(tmp_path / "a" / "b.png", picture)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)
    assert [p.name for p in path.parent.iterdir()] == ["b.png"]
