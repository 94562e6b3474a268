import numpy as np
import pytest
from PIL import Image

from diffjax.errors import UserError
from diffjax.metrics import image_sets


def picture(seed, shape=(6, 5, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def test_a_folder_and_those_below(tmp_path):
    for number, name in enumerate(("a.png", "b/c.PNG", "b/d/e.png")):
        write(tmp_path / name, picture(number))
    (tmp_path / "notes.txt").write_text("no image")
    found = image_sets.find(tmp_path)
    assert (len(found), found.image_shape) == (3, (6, 5, 3))
    parts = list(found.batches(2))
    assert [len(part) for part in parts] == [2, 1]
    np.testing.assert_array_equal(np.concatenate(parts), [picture(number) for number in range(3)])
    assert len(image_sets.find(tmp_path, num=2)) == 2


def test_grey_only_if_all_are(tmp_path):
    grey, rgba = picture(0, (4, 4)), picture(1, (4, 4, 4))
    rgba[..., 3] = 255
    write(tmp_path / "a.png", grey)
    found = image_sets.find(tmp_path)
    assert found.image_shape == (4, 4, 1)
    np.testing.assert_array_equal(next(found.batches()), grey[None, :, :, None])
    write(tmp_path / "b.png", rgba)
    found = image_sets.find(tmp_path)
    assert found.image_shape == (4, 4, 3)
    np.testing.assert_array_equal(next(found.batches()), [grey[:, :, None].repeat(3, -1), rgba[..., :3]])


def test_jpeg(tmp_path):
    write(tmp_path / "a.jpeg", np.full((8, 8, 3), 100, np.uint8))
    write(tmp_path / "b.jpg", np.full((8, 8, 3), 200, np.uint8))
    (found,) = image_sets.find(tmp_path).batches()
    np.testing.assert_allclose(found.mean((1, 2, 3)), [100, 200], atol=2)


def test_an_npz(tmp_path):
    stack = picture(0, (7, 4, 3, 1))
    np.savez(tmp_path / "x.npz", arr_0=stack, real=stack[:2])
    found = image_sets.find(tmp_path / "x.npz")
    np.testing.assert_array_equal(np.concatenate(list(found.batches(3))), stack)
    assert found.image_shape == (4, 3, 1)
    assert len(image_sets.find(tmp_path / "x.npz", name="real")) == 2
    assert len(image_sets.find(tmp_path / "x.npz", num=5)) == 5


def test_bad_folders(tmp_path):
    with pytest.raises(UserError, match="neither a folder of images nor an npz"):
        image_sets.find(tmp_path / "none")
    with pytest.raises(UserError, match="must hold images"):
        image_sets.find(tmp_path)
    write(tmp_path / "a.png", picture(0))
    with pytest.raises(UserError, match="holds 1 images, fewer than num=2"):
        image_sets.find(tmp_path, num=2)
    write(tmp_path / "b.png", picture(0))
    write(tmp_path / "c.png", picture(0, (5, 6, 3)))
    with pytest.raises(UserError, match=r"of one size, but \S*a\.png is 5×6 and \S*c\.png is 6×5"):
        image_sets.find(tmp_path)


def test_damaged_and_deep_files(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"cannot read .*a\.png"):
        image_sets.find(tmp_path)
    write(tmp_path / "a.png", picture(0, (60, 50, 3)))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cannot read .*a\.png"):
        list(image_sets.find(tmp_path).batches())
    write(tmp_path / "a.png", np.zeros((4, 4), np.uint16))
    with pytest.raises(UserError, match=r"cannot read .*a\.png.*8 bits per channel"):
        list(image_sets.find(tmp_path).batches())


def test_bad_npz(tmp_path):
    path = tmp_path / "x.npz"
    path.write_text("text")
    with pytest.raises(UserError, match="cannot read"):
        image_sets.find(path)
    np.savez(
        path, floats=np.zeros((2, 4, 4, 1)), flat=np.zeros((2, 4), np.uint8), none=np.zeros((0, 4, 4, 1), np.uint8)
    )
    with pytest.raises(UserError, match="'arr_0' is not in .*; it has 'floats', 'flat', 'none'"):
        image_sets.find(path)
    for name in ("floats", "flat"):
        with pytest.raises(UserError, match="must be uint8"):
            image_sets.find(path, name=name)
    with pytest.raises(UserError, match="holds 0 images"):
        image_sets.find(path, name="none")
    with pytest.raises(UserError, match="must be an existing file"):
        image_sets.find(tmp_path / "none.npz")


def test_sizes_are_those_of_turned_images(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(0, (4, 6, 3))).save(tmp_path / "a.png", exif=exif)
    write(tmp_path / "b.png", picture(1, (6, 4, 3)))
    found = image_sets.find(tmp_path)
    assert found.image_shape == (6, 4, 3)
    np.testing.assert_array_equal(next(found.batches())[0], np.rot90(picture(0, (4, 6, 3)), -1))


def test_images_that_are_too_large(tmp_path, monkeypatch):
    write(tmp_path / "a.png", picture(0))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match="^cannot read .*a.png: it is larger than 20 pixels"):
        image_sets.find(tmp_path)
