"""Arrays of another layout are refused, and the message converts them."""

import re

import numpy as np
import pytest

from diffjax import data
from diffjax.data import arrays

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
IMAGES[0, 0, 0] = 0, 255, 0  # so that the range of values can be seen
LABELS = np.array([2, 0, 1, 2, 0])


@pytest.mark.parametrize(
    "given",
    [
        IMAGES / 255,
        (IMAGES / 255).astype(np.float16),
        IMAGES / 127.5 - 1,
        IMAGES.astype(np.float32),
        IMAGES.astype(np.int64),
        IMAGES.astype(np.uint16) * 257,
        IMAGES.transpose(0, 3, 1, 2),
        IMAGES.transpose(0, 3, 1, 2) / 255,
        IMAGES.transpose(0, 3, 1, 2).reshape(5, -1),
        IMAGES.transpose(0, 3, 1, 2).reshape(5, -1) / 255,
    ],
)
def test_images_are_converted_by_the_line_of_the_message(given, tmp_path):
    np.savez(tmp_path / "a.npz", x_train=given)
    with pytest.raises(
        ValueError, match=r"'x_train' of \S*a.npz must be uint8 \[N, H, W, C\], not .*with x = "
    ) as caught:
        data.npz(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)
    converted = eval(str(caught.value).partition("with x = ")[2], {"x": given})
    np.testing.assert_array_equal(converted, IMAGES)
    data.ArraySource(converted)


@pytest.mark.parametrize(
    "given",
    [
        np.uint8(3), np.zeros((2, 0, 4, 1), np.uint8), np.zeros((2, 77), np.uint8), np.array(["a", "b"]),
        np.zeros((1, 2, 3, 4, 5), np.uint8), np.zeros(0),
    ],
)  # fmt: skip
def test_arrays_that_are_no_images(given, tmp_path):
    np.savez(tmp_path / "a.npz", x_train=given)
    with pytest.raises(
        ValueError, match=re.escape(f"must be uint8 [N, H, W, C], not {given.dtype} {given.shape}") + "$"
    ):
        data.npz(tmp_path / "a.npz")


def test_no_images_at_all(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.zeros((0, 8, 8, 1), np.uint8))
    with pytest.raises(ValueError, match="^'x_train' of .*a.npz holds 0 images$"):
        data.npz(tmp_path / "a.npz")


@pytest.mark.parametrize("given", [np.eye(3)[LABELS], np.eye(3, dtype=int)[LABELS], LABELS * 1.0, np.array([*"cabca"])])
def test_labels_are_converted_by_the_line_of_the_message(given, tmp_path):
    np.savez(tmp_path / "a.npz", x_train=IMAGES, y=given)
    with pytest.raises(ValueError, match=r"^'y' of \S*a.npz must be whole numbers \[5\], .* with y = ") as caught:
        data.npz(tmp_path / "a.npz", label_key="y")
    np.testing.assert_array_equal(eval(str(caught.value).partition("with y = ")[2], {"y": given, "np": np}), LABELS)


def test_labels_that_are_out_of_range():
    arrays.check_labels(np.array([-1, 0, 2**31 - 1]), 3)
    for label in (-2, 2**31):
        with pytest.raises(ValueError, match=rf"^labels must be within -1 .* the label of image 1 is {label}$"):
            arrays.check_labels(np.array([0, label, 1]), 3)
    for wrong in (np.arange(2), np.int64(3), np.zeros((3, 0), int)):
        with pytest.raises(ValueError, match=r"^labels must be whole numbers \[3\], one for each image, not int64 \("):
            arrays.check_labels(wrong, 3)
