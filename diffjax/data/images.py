"""What happens to one image between its source and the batch: to the wanted shape, and augmented."""

import numpy as np

FITS = ("exact", "pad", "crop", "resize")
CROPS = ("center", "random")
RESAMPLES = ("area", "bicubic")


def prepare(
    image: np.ndarray,
    rng: np.random.Generator | None = None,
    *,
    shape: tuple[int, int, int],
    window: tuple[int, int, int, int] | None = None,
    fit: str = "exact",
    crop: str = "center",
    resample: str = "bicubic",
    flip: bool = False,
    turn: bool = False,
) -> np.ndarray:
    """The image as uint8 `[H, W, C]` of a given shape.

    Args:
      image: uint8 `[h, w, c]`, with c 1 or 3.
      rng: where chance comes from; None: no chance, so central crops, no flips and no turns.
      shape: `(H, W, C)`; C = 1 makes colours grey (ITU-R 601), C = 3 repeats grey.
      window: (top, left, height, width) that is cut out before all else.
      fit: "exact" (it has that size already), "pad" (black on all sides, as much before as after or one less), "crop"
        (a part of it, unscaled), or "resize" (scaled until it just covers the size; what sticks out is cropped).
      crop: where the part lies: "center", or anywhere ("random").
      resample: of "resize", by Pillow: "area" (mean over the pixel's box) or "bicubic" (widened when it scales down).
      flip: whether one in two is mirrored, left to right.
      turn: whether each is turned by 0, 90, 180 or 270 degrees, as chance has it.

    Raises:
      ValueError: an image that does not fit, or an unknown option.
    """
    for name, value, allowed in (("fit", fit, FITS), ("crop", crop, CROPS), ("resample", resample, RESAMPLES)):
        if value not in allowed:
            raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}")
    where = rng if crop == "random" else None
    fitted = _window(image, window)
    if fit == "pad":
        fitted = _pad(fitted, shape)
    elif fit == "crop":
        fitted = _crop(fitted, shape, where)
    elif fit == "resize":
        fitted = _resize(fitted, shape, where, resample)
    fitted = _channels(fitted, shape[2])
    if fitted.shape != tuple(shape):
        raise ValueError(f"with fit={fit!r}, an image of shape {image.shape} cannot be image_shape={tuple(shape)}")
    if flip and rng is not None and rng.random() < 0.5:
        fitted = fitted[:, ::-1]
    if turn and shape[0] != shape[1]:
        raise ValueError(f"turn=True needs a square image_shape, not {tuple(shape)}")
    return np.rot90(fitted, rng.integers(4)) if turn and rng is not None else fitted


def _window(image, window):
    if window is None:
        return image
    top, left, height, width = window
    cut = image[top : top + height, left : left + width]
    if min(window) < 0 or cut.shape[:2] != (height, width):
        raise ValueError(f"window={tuple(window)} does not lie within an image of shape {image.shape}")
    return cut


def _pad(image, shape):
    if any(found > wanted for found, wanted in zip(image.shape[:2], shape[:2], strict=True)):
        return image
    top, left = ((wanted - found) // 2 for found, wanted in zip(image.shape[:2], shape[:2], strict=True))
    padded = np.zeros((*shape[:2], image.shape[2]), np.uint8)
    padded[top : top + image.shape[0], left : left + image.shape[1]] = image
    return padded


def _crop(image, shape, rng):
    spare = [max(0, found - wanted) for found, wanted in zip(image.shape[:2], shape[:2], strict=True)]
    top, left = (n // 2 if rng is None else rng.integers(n + 1) for n in spare)
    return image[top : top + shape[0], left : left + shape[1]]


def _resize(image, shape, rng, resample):
    from PIL import Image

    # The part that will be seen, in pixels of the image and fractions of them: Pillow scales it in one pass.
    scale = min(found / wanted for found, wanted in zip(image.shape[:2], shape[:2], strict=True))
    height, width = (min(scale * wanted, found) for found, wanted in zip(image.shape[:2], shape[:2], strict=True))
    spare = image.shape[0] - height, image.shape[1] - width
    top, left = (n / 2 if rng is None else rng.uniform(0, n) for n in spare)
    box = left, top, min(left + width, image.shape[1]), min(top + height, image.shape[0])
    resampling = Image.Resampling.BOX if resample == "area" else Image.Resampling.BICUBIC
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    scaled = np.asarray(picture.resize((shape[1], shape[0]), resampling, box=box))
    return scaled.reshape(*scaled.shape[:2], image.shape[2])


def _channels(image, channels):
    if (image.shape[2], channels) == (1, 3):
        return np.repeat(image, 3, axis=2)
    if (image.shape[2], channels) == (3, 1):
        from PIL import Image

        return np.asarray(Image.fromarray(image).convert("L"))[..., None]
    return image
