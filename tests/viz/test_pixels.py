import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffjax import viz
from diffjax.data.pixels import to_uint8
from diffjax.errors import UserError


def test_to_uint8_rounds_and_clips():
    x = jnp.array([-1.5, -1.0, 0.0, 0.999, 1.0, 3.0, 2 * 100 / 255 - 1])
    assert to_uint8(x).tolist() == [0, 0, 128, 255, 255, 255, 100]
    with pytest.raises(UserError, match="^2 of the 3 values of these images are NaN or infinite"):
        to_uint8(np.array([0.0, np.nan, np.inf]))


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
    with pytest.raises(ValueError, match="columns=0 must be ≥ 1"):
        viz.grid(np.zeros((1, 2, 2, 1), np.uint8), columns=0)


def test_denoising_strip_has_two_rows_a_sample_in_order():
    x = np.linspace(-1, 1, 3 * 2).reshape(3, 2, 1, 1, 1) * np.ones((1, 1, 8, 8, 1))
    strip = viz.denoising_strip([10, 5, -1], x, -x, tile=64, gap=2)
    body = strip[-(4 * 66 + 2) :, -(3 * 66 + 2) :]
    for k in range(3):
        for n in range(2):
            for row, value in ((2 * n, x[k, n]), (2 * n + 1, -x[k, n])):
                tile = body[2 + 66 * row :, 2 + 66 * k :][:64, :64]
                assert np.all(tile == to_uint8(value[0, 0, 0]))
    heads = [strip[:22, -(3 * 66 + 2) :][:, 2 + 66 * k :][:, :64] for k in range(3)]
    names = [
        viz.table(np.zeros((1, 1, 8, 8, 1), np.uint8), columns=[name], rows=[""]) for name in ("t=10", "t=5", "clean")
    ]
    for head, name in zip(heads, names, strict=True):
        np.testing.assert_array_equal(head, name[:22, -66:-2])


def test_save_png_is_lossless_and_makes_the_folder(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = viz.save_png(tmp_path / "a" / "b.png", picture)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)
    assert [p.name for p in path.parent.iterdir()] == ["b.png"]


def test_nothing_is_left_of_what_could_not_be_written(tmp_path):
    path = viz.save_png(tmp_path / "b.png", np.zeros((2, 2, 3), np.uint8))
    before = path.read_bytes()
    with pytest.raises(TypeError):
        viz.save_png(path, np.zeros((2, 2, 5)))
    assert [p.name for p in tmp_path.iterdir()] == ["b.png"]
    assert path.read_bytes() == before


def test_captions_are_below_their_images_and_not_clipped():
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.full((1, 4, 4, 1), 50, np.uint8)
    picture = viz.captioned(images, ["a", "a long caption", "b"], columns=2, tile=8, gap=2)
    height, width = (picture.shape[0] - 2) // 2, (picture.shape[1] - 2) // 2
    cells = [picture[2 + height * (n // 2) :, 2 + width * (n % 2) :][: height - 2, : width - 2] for n in range(4)]
    for n, cell in enumerate(cells[:3]):
        left = (width - 2 - 8) // 2
        assert np.all(cell[:8, left : left + 8] == 50 * n)
        assert np.all(cell[:8, :left] == 255)
        assert np.any(cell[8:] < 128)
        assert np.all(cell[:, [0, -1]] == 255)
    assert np.all(cells[3] == 255)
    with pytest.raises(ValueError, match="2 captions for 3 images"):
        viz.captioned(images, ["a", "b"], columns=2)


def test_table_names_rows_and_columns():
    images = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * np.full((1, 1, 4, 4, 1), 40, np.uint8)
    picture = viz.table(images, columns=["S = 10", "S = 20", "S = 1000"], rows=["noise 0", "noise 1"], tile=64)
    body = picture[-(2 * 66 + 2) :, -(3 * 66 + 2) :]
    for row in range(2):
        for column in range(3):
            assert np.all(body[2 + 66 * row :, 2 + 66 * column :][:64, :64] == 40 * (3 * row + column))
    assert np.all(picture[:, 0] == 255)  # no name reaches the edge
    assert np.any(picture[22:, : -(3 * 66 + 2)] < 128)
    with pytest.raises(ValueError, match="1 rows and 3 columns are named"):
        viz.table(images, columns=["a", "b", "c"], rows=["d"])


def test_frames_are_labelled_with_their_levels():
    frames = np.linspace(-1, 1, 4).reshape(4, 1, 1, 1) * np.ones((1, 8, 8, 3))
    wanted = viz.captioned(to_uint8(frames), ["t=999", "t=500", "t=0", "clean"], columns=2, tile=40)
    np.testing.assert_array_equal(viz.frame_grid([999, 500, 0, -1], frames, columns=2), wanted)


def test_neighbours_stand_beside_their_sample():
    shades = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
    images = shades[:, :, None, None, None] * np.ones((8, 8, 1), np.uint8)
    picture = viz.neighbours(images[:, 0], images[:, 1:], np.array([[0.5, 1.0], [2.0, 123.4]]), tile=64)
    wanted = ["sample", "0.500", "1.00", "sample", "2.00", "123"]
    np.testing.assert_array_equal(picture, viz.captioned(images.reshape(6, 8, 8, 1), wanted, columns=3, tile=64))


def test_shrink_means_blocks():
    images = np.arange(2 * 6 * 4 * 1, dtype=np.float32).reshape(2, 6, 4, 1)
    small = viz.shrink(images, 3)
    np.testing.assert_allclose(small[:, 1, 1], images[:, 2:4, 2:4].mean((1, 2)))
    assert small.shape == (2, 3, 2, 1)
    assert viz.shrink(images, 6) is images
    assert viz.shrink(images.astype(np.uint8), 5).shape == (2, 3, 2, 1)
    assert viz.shrink(np.array([1, 2, 2, 2], np.uint8).reshape(1, 2, 2, 1), 1).tolist() == [[[[2]]]]
    assert viz.shrink(np.zeros((1, 7, 3, 1)), 3).shape == (1, 2, 1, 1)
    assert viz.shrink(np.zeros((1, 8, 1, 1)), 2).shape == (1, 2, 1, 1)
    with pytest.raises(ValueError, match="size=0"):
        viz.shrink(images, 0)
