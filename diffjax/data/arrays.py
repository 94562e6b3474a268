"""Checks of arrays of images and labels; the message for an array of another layout says how to convert it."""

import math

import numpy as np

MAX_LABEL = 2**31 - 1


def check_images(images: np.ndarray, name: str = "images") -> None:
    """Checks that an array holds images.

    Args:
      images: uint8 `[N, H, W, C]`, N may be 0.
      name: the name of the array for the message.

    Raises:
      ValueError: another dtype or shape.
    """
    first_channels = _has_channels_first(images)
    if images.dtype == np.uint8 and images.ndim == 4 and min(images.shape[1:]) > 0 and not first_channels:
        return
    text = f"{name} must be uint8 [N, H, W, C], not {images.dtype} {images.shape}"
    if converted := _conversion(images, first_channels):
        text += f": convert them with x = {converted}"
    raise ValueError(text)


def check_labels(labels: np.ndarray, num_images: int, name: str = "labels") -> None:
    """Checks that an array holds one label for each image.

    Args:
      labels: int `[N]`, each ≥ -1.
      num_images: N.
      name: the name of the array for the message.

    Raises:
      ValueError: another dtype or shape, or a label that is out of range.
    """
    text = f"{name} must be whole numbers [{num_images}], one for each image, not {labels.dtype} {labels.shape}"
    if labels.ndim == 2 and len(labels) == num_images and labels.shape[1] > 1:
        raise ValueError(f"{text}: convert one-hot labels with y = y.argmax(axis=1)")
    if labels.shape != (num_images,):
        raise ValueError(text)
    if labels.dtype.kind not in "iu":
        converted = "y.astype(int)" if labels.dtype.kind in "bf" else "np.unique(y, return_inverse=True)[1]"
        raise ValueError(f"{text}: convert them with y = {converted}")
    wrong = np.flatnonzero((labels < -1) | (labels > MAX_LABEL))
    if wrong.size:
        raise ValueError(
            f"{name} must be within -1 (no label) … {MAX_LABEL}, but the label of image {wrong[0]} is "
            f"{labels[wrong[0]]}"
        )


def _has_channels_first(images: np.ndarray) -> bool:
    return images.ndim == 4 and images.shape[1] in (1, 3, 4) and min(images.shape[2:]) > 4


def _conversion(images: np.ndarray, first_channels: bool) -> str | None:
    """Returns the expression that makes uint8 `[N, H, W, C]` of an array x; None if there is none."""
    if not images.size or images.dtype.kind not in "biuf":
        return None
    if first_channels:
        layout = "x.transpose(0, 2, 3, 1)"
    elif images.ndim == 2:
        layout = _unflattened(images.shape[1])
    else:
        layout = "x" if images.ndim == 4 else None
    return layout and _as_uint8(layout, images)


def _unflattened(length: int) -> str | None:
    """Returns the expression that makes images of flat rows: channels first, as CIFAR's files have them."""
    for channels in (1, 3):
        side = math.isqrt(length // channels)
        if channels * side**2 == length:
            return f"x.reshape(-1, {channels}, {side}, {side}).transpose(0, 2, 3, 1)"
    return None


def _as_uint8(x: str, images: np.ndarray) -> str:
    if images.dtype == np.uint8:
        return x
    if images.dtype == bool:
        return f"255 * {x}.astype('uint8')"
    low, high = float(images.min()), float(images.max())
    if images.dtype.kind == "f" and high <= 1.0:
        scaled = f"255 * {x}" if low >= 0.0 else f"127.5 * ({x} + 1)"
        return f"({scaled}).round().clip(0, 255).astype('uint8')"
    if images.dtype.kind == "f":
        return f"{x}.round().clip(0, 255).astype('uint8')"
    return f"{x}.astype('uint8')" if high <= 255 else f"({x} // 257).astype('uint8')"
