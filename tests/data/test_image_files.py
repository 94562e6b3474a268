"""Image files are found and decoded alike by everything that takes a folder or a file."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from diffjax import data
from diffjax.data.image_files import find_images, read_image, read_shape

COLOUR = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
TURNED = {
    1: COLOUR,
    2: COLOUR[:, ::-1],
    3: COLOUR[::-1, ::-1],
    4: COLOUR[::-1],
    5: COLOUR.swapaxes(0, 1),
    6: np.rot90(COLOUR, -1),
    7: COLOUR[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90(COLOUR),
}
"""The image as it is meant to be seen, by the Exif orientation of a file that holds `COLOUR`."""


def write(path, pixels=COLOUR, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def images(tmp_path):
    for name in ("cat/a.png", "cat/b.png", "dog/c.png"):
        write(tmp_path / "images" / name)
    return tmp_path / "images"


def names(folder):
    return [path.as_posix() for path in find_images(folder)]


def test_hidden_files_and_folders_are_left_out_with_one_warning(images):
    for name in (".ipynb_checkpoints/a.png", "cat/.b.png", "dog/.cache/d.png"):
        write(images / name)
    (images / ".DS_Store").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"left out 4 hidden files and folders, such as .*/\.") as caught:
        source = data.folder(images)
    assert len(caught) == 1
    assert [source[n]["label"] for n in range(len(source))] == [0, 0, 1]


def test_a_folder_whose_own_name_is_hidden(images):
    images = images.rename(images.with_name(".images"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(find_images(images)) == 3


def test_links_are_followed_but_not_in_circles(images, tmp_path):
    write(tmp_path / "elsewhere" / "deep" / "d.png")
    (images / "ant").symlink_to(tmp_path / "elsewhere")
    (images / "cat" / "link.png").symlink_to(images / "dog" / "c.png")
    (images / "dog" / "all").symlink_to(images)
    expected = ["ant/deep/d.png", "cat/a.png", "cat/b.png", "cat/link.png", "dog/c.png"]
    assert names(images) == names(f"{images}/") == expected
    assert data.folder(images).labels.tolist() == [0, 1, 1, 1, 2]


def test_broken_links_are_refused(images):
    (images / "cat" / "gone.png").symlink_to("/nowhere/gone.png")
    (images / "eel").symlink_to("eel")
    with pytest.raises(ValueError, match=r"^path='.*' holds 2 broken links, such as .*cat/gone.png -> /nowhere/gone"):
        find_images(images)


def test_a_folder_named_like_an_image(images):
    write(images / "dog" / "e.png" / "f.png")
    os.mkfifo(images / "pipe.png")
    assert names(images) == ["cat/a.png", "cat/b.png", "dog/c.png", "dog/e.png/f.png"]


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", TURNED)
def test_images_are_turned_as_they_are_meant(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = write(tmp_path / f"a.{suffix}", exif=exif, **options)
    np.testing.assert_array_equal(read_image(path), TURNED[orientation])
    assert read_shape(path) == TURNED[orientation].shape


def test_transparent_images_are_composited_over_white(tmp_path):
    alpha = np.full((4, 6, 1), 255, np.uint8)
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.png", np.dstack([COLOUR, alpha]))), COLOUR)
    alpha[0], alpha[1] = 0, 128
    found = read_image(write(tmp_path / "b.png", np.dstack([COLOUR, alpha])))
    assert (found[0] == 255).all()
    np.testing.assert_allclose(found[1], (COLOUR[1] * 128.0 + 255 * 127) / 255, atol=1)
    np.testing.assert_array_equal(found[2:], COLOUR[2:])
    assert read_image(write(tmp_path / "c.png", np.dstack([COLOUR[..., 0], alpha[..., 0]]))).shape == (4, 6, 1)


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_transparent_colours_of_a_palette(tmp_path, suffix):
    picture = Image.fromarray(np.array([[0, 1], [1, 2]], np.uint8)).convert("P")
    picture.putpalette([10, 10, 10, 20, 20, 20, 30, 30, 30])
    picture.save(tmp_path / f"a.{suffix}", transparency=1)
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}")[..., 0], [[10, 255], [255, 30]])


def test_a_transparent_grey_level(tmp_path):
    found = read_image(write(tmp_path / "a.png", np.array([[3, 4]], np.uint8), transparency=3))
    np.testing.assert_array_equal(found[..., 0], [[255, 4]])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><p>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "it is a git-LFS pointer .* `git lfs pull`"),
        (b"\x89PNG\r\n\x1a\n", "it is damaged, or not an image of a known format"),
    ],
)
def test_what_is_no_image(tmp_path, content, words):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (read_image, read_shape):
        with pytest.raises(ValueError, match=f"^cannot read {path}: {words}"):
            read(path)


def test_images_that_are_too_large_or_too_deep(tmp_path, monkeypatch):
    path = write(tmp_path / "a.png")
    with monkeypatch.context() as patched:
        patched.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        with pytest.raises(ValueError, match=f"^cannot read {path}: it is larger than 20 pixels"):
            read_shape(path)
    deep = np.array([[0, 257, 65535]], np.uint16)
    with pytest.raises(ValueError, match=r"a.png: its pixels are 'I;16', .*: convert 16 bits with Image.fromarray\("):
        read_image(write(path, deep))
    with Image.open(path) as image:  # as the message says
        converted = (np.asarray(image) // 257).astype("uint8")
    np.testing.assert_array_equal(read_image(write(path, converted))[..., 0], [[0, 1, 255]])
