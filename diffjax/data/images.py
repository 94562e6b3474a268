"""Preparation of single images: cropping, resizing, conversion of channels and random augmentation."""

from numbers import Integral
from typing import Any, Literal, get_args

import numpy as np

from diffjax.fields import shown

Resize = Literal["exact", "pad", "crop", "cover"]
Crop = Literal["center", "random"]
Resample = Literal["area", "bicubic"]

RESIZES, CROPS, RESAMPLES = get_args(Resize), get_args(Crop), get_args(Resample)

MAX_SIZE = 16_384
"""The largest height and width of a prepared image."""


def prepare(
    image: np.ndarray,
    rng: np.random.Generator | None = None,
    *,
    shape: tuple[int, int, int],
    crop_box: tuple[int, int, int, int] | None = None,
    resize: Resize = "exact",
    crop: Crop = "center",
    resample: Resample = "bicubic",
    random_flip: bool = False,
    random_rot90: bool = False,
) -> np.ndarray:
    """Returns the image with a given shape, uint8 `[H, W, C]`, and with random augmentation if options ask for it.

    Args:
      image: The image, uint8 `[h, w, c]`.
      rng: The random generator; if None, crops are central and images are neither flipped nor rotated.
      shape: The shape (H, W, C) to return, where C = 1 converts RGB to grey (ITU-R 601) and C = 3 repeats grey.
      crop_box: The part (top, left, height, width) of the image that is cut out first; None keeps all of it.
      resize: How an image gets the height and width of `shape`; "exact" requires them, "pad" centres the image on
        black, "crop" cuts out a part at its original scale, and "cover" scales the image until it just covers `shape`
        and crops the rest.
      crop: The position of the part that "crop" and "cover" keep: "center" or "random".
      resample: The filter of "cover" (Pillow): "area", the mean over a pixel's area, or an antialiased "bicubic".
      random_flip: Whether half of the images are mirrored, left to right.
      random_rot90: Whether each image is rotated by 0, 90, 180 or 270 degrees, with equal probability.

    Raises:
      ValueError: An invalid option, or an image that `shape` does not match.
    """
    for name, value, allowed in (("resize", resize, RESIZES), ("crop", crop, CROPS), ("resample", resample, RESAMPLES)):
        if value not in allowed:
            raise ValueError(f"{name}={shown(value)} is not one of {', '.join(map(repr, allowed))}")
    for name, value in (("random_flip", random_flip), ("random_rot90", random_rot90)):
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"{name}={shown(value)} must be True or False")
    _check_shape(shape, image.shape[2])
    if random_rot90 and shape[0] != shape[1]:
        raise ValueError(f"random_rot90=True needs a square image_shape, not {tuple(shape)}")
    crop_rng = rng if crop == "random" else None
    cropped = result = image if crop_box is None else _crop_box(image, crop_box)
    if resize == "pad":
        result = _pad(cropped, shape)
    elif resize == "crop":
        result = _crop(cropped, shape, crop_rng)
    elif resize == "cover":
        result = _cover(cropped, shape, crop_rng, resample)
    result = convert_channels(result, shape[2])
    if result.shape != tuple(shape):
        raise ValueError(
            f"image_shape={tuple(shape)} does not match an image of shape {cropped.shape} with resize={resize!r}; "
            "resize='cover' accepts any size"
        )
    if random_flip and rng is not None and rng.random() < 0.5:
        result = result[:, ::-1]
    return np.rot90(result, rng.integers(4)) if random_rot90 and rng is not None else result


def scale(
    image: np.ndarray,
    size: tuple[int, int],
    resample: Resample,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Scales an image to `size` with Pillow: uint8 `[height, width, C]`.

    Args:
      image: The image, uint8 `[h, w, C]`.
      size: The height and width to return.
      resample: The filter: "area", the mean over a pixel's area, or an antialiased "bicubic" (a = -0.5).
      box: The part (left, top, right, bottom) of the image that is scaled, in pixels and fractions of them.
    """
    from PIL import Image

    resampling = Image.Resampling.BOX if resample == "area" else Image.Resampling.BICUBIC
    # Pillow would read four channels as RGBA, so all but RGB are scaled one channel at a time.
    pictures = [image] if image.shape[2] == 3 else [np.ascontiguousarray(plane) for plane in np.moveaxis(image, 2, 0)]
    return np.dstack([Image.fromarray(picture).resize(size[::-1], resampling, box=box) for picture in pictures])


def resampling_matrix(size: int, new_size: int, resample: Resample) -> np.ndarray:
    """Returns the weights `[new_size, size]` by which `scale` resamples one axis, before it rounds: float64.

    They are read from Pillow, which computes them in float64 and gives them in float32: their sums are 1 to 1e-7.
    """
    from PIL import Image

    resampling = Image.Resampling.BOX if resample == "area" else Image.Resampling.BICUBIC
    unit_columns = Image.fromarray(np.eye(size, dtype=np.float32))
    return np.asarray(unit_columns.resize((size, new_size), resampling), np.float64)


def convert_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Converts an image, uint8 `[H, W, C]`, between grey and RGB, if `channels` is 1 and C = 3 or vice versa."""
    if (image.shape[2], channels) == (1, 3):
        return np.repeat(image, 3, axis=2)
    if (image.shape[2], channels) == (3, 1):
        from PIL import Image

        return np.asarray(Image.fromarray(image).convert("L"))[..., None]
    return image


def is_whole_number(value: Any) -> bool:
    """Returns whether a value is a Python or NumPy integer; a bool is not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_shape(shape: Any, channels: int) -> None:
    if not (
        _are_whole_numbers(shape, 3)
        and all(1 <= length <= MAX_SIZE for length in shape[:2])
        and shape[2] in (1, 3, channels)
    ):
        raise ValueError(
            f"image_shape={shown(shape)} must be (height, width, channels): height and width whole numbers within "
            f"[1, {MAX_SIZE}], and as many channels as the image, which has {channels}, or 1 or 3"
        )


def _are_whole_numbers(values: Any, count: int) -> bool:
    return isinstance(values, tuple | list) and len(values) == count and all(map(is_whole_number, values))


def _crop_box(image: np.ndarray, crop_box: Any) -> np.ndarray:
    if not _are_whole_numbers(crop_box, 4) or min(crop_box[:2]) < 0 or min(crop_box[2:]) < 1:
        raise ValueError(
            f"crop_box={shown(crop_box)} must be (top, left, height, width): whole numbers, top and left ≥ 0, "
            "height and width ≥ 1"
        )
    top, left, height, width = crop_box
    if top + height > image.shape[0] or left + width > image.shape[1]:
        raise ValueError(f"crop_box={tuple(crop_box)} does not lie within an image of shape {image.shape}")
    return image[top : top + height, left : left + width]


def _pad(image: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    if any(length > target for length, target in zip(image.shape[:2], shape[:2], strict=True)):
        return image
    top, left = ((target - length) // 2 for length, target in zip(image.shape[:2], shape[:2], strict=True))
    padded = np.zeros((*shape[:2], image.shape[2]), np.uint8)
    padded[top : top + image.shape[0], left : left + image.shape[1]] = image
    return padded


def _crop(image: np.ndarray, shape: tuple[int, int, int], rng: np.random.Generator | None) -> np.ndarray:
    spare = [max(0, length - target) for length, target in zip(image.shape[:2], shape[:2], strict=True)]
    top, left = (n // 2 if rng is None else rng.integers(n + 1) for n in spare)
    return image[top : top + shape[0], left : left + shape[1]]


def _cover(
    image: np.ndarray, shape: tuple[int, int, int], rng: np.random.Generator | None, resample: Resample
) -> np.ndarray:
    # The part that is kept, in pixels of the image and fractions of them: Pillow scales it in one pass.
    ratio = min(length / target for length, target in zip(image.shape[:2], shape[:2], strict=True))
    height, width = (min(ratio * target, length) for length, target in zip(image.shape[:2], shape[:2], strict=True))
    spare = image.shape[0] - height, image.shape[1] - width
    top, left = (n / 2 if rng is None else rng.uniform(0, n) for n in spare)
    box = left, top, min(left + width, image.shape[1]), min(top + height, image.shape[0])
    return scale(image, tuple(shape[:2]), resample, box)
