"""Degradations of images: blur with noise, or a lower resolution.

    record = sample(rng, kinds=("motion", "defocus"), noise=(0, 4))
    condition = apply(record, image)        # a function of both; json.dumps(record._asdict()) stores the record

Everything runs on the host, on 8-bit images; a reduced image is rounded to 8 bits before it is enlarged again.
"""

from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from diffjax.data.images import is_whole_number, scale
from diffjax.fields import shown

BLURS = ("gaussian", "motion", "defocus")
REDUCTIONS = ("bicubic", "area")
KINDS = (*BLURS, *REDUCTIONS)

Range = tuple[float, float]

_BOUNDS = {
    "sigma": (0, 1000),
    "length": (0, 1000),
    "angle": (-360, 360),
    "radius": (0, 1000),
    "noise": (0, 255),
}
"""The smallest and largest number of each range."""

_FACTORS = (2, 64)


class Degradation(NamedTuple):
    """The degradation of one image, in plain numbers for JSON."""

    kind: str
    """One of `KINDS`."""
    size: float
    """The standard deviation of a Gaussian, the length of a motion or the radius of a disc, in pixels; or the whole
    factor of a reduction."""
    angle: float = 0.0
    """The direction of a motion, in degrees counter-clockwise from the x-axis."""
    noise: float = 0.0
    """The standard deviation of the noise that is added after a blur, on the scale 0 … 255."""
    seed: int = 0
    """The seed of that noise."""


def sample(
    rng: np.random.Generator | None,
    *,
    kinds: tuple[str, ...],
    sigma: Range = (1.0, 1.0),
    length: Range = (9.0, 9.0),
    angle: Range = (0.0, 180.0),
    radius: Range = (2.0, 2.0),
    noise: Range = (0.0, 0.0),
    factor: int = 4,
) -> Degradation:
    """Samples a degradation: one of `kinds` with equal probability, its numbers uniform in their ranges (low, high).

    Args:
      rng: The random generator; None is allowed if the options leave nothing to sample.
      kinds: The kinds to choose from: "gaussian", "motion" and "defocus" (blurs), "bicubic" and "area" (reductions of
        the resolution).
      sigma: The range of the standard deviation of a "gaussian" blur, in pixels.
      length: The range of the length of a "motion" blur, in pixels.
      angle: The range of the direction of a "motion" blur, in degrees counter-clockwise from the x-axis.
      radius: The range of the radius of a "defocus" blur, in pixels.
      noise: The range of the standard deviation of the noise added after a blur, on the scale 0 … 255.
      factor: The factor by which "bicubic" and "area" reduce height and width.

    Raises:
      ValueError: Invalid options (`check`), or options that must be sampled although `rng` is None.
    """
    check(kinds, sigma=sigma, length=length, angle=angle, radius=radius, noise=noise, factor=factor)

    def uniform(name, bounds):
        low, high = bounds
        if low == high:
            return float(low)
        return float(_required(rng, f"{name}=({low}, {high})").uniform(low, high))

    kind = kinds[0] if len(kinds) == 1 else kinds[_required(rng, f"kinds={tuple(kinds)}").integers(len(kinds))]
    if kind in REDUCTIONS:
        return Degradation(kind, int(factor))
    name, bounds = {"gaussian": ("sigma", sigma), "motion": ("length", length), "defocus": ("radius", radius)}[kind]
    size = uniform(name, bounds)
    direction = uniform("angle", angle) if kind == "motion" else 0.0
    strength = uniform("noise", noise)
    seed = int(_required(rng, f"noise={tuple(noise)}").integers(2**32)) if strength else 0
    return Degradation(kind, size, direction, strength, seed)


def check(kinds: tuple[str, ...], *, factor: int = 4, **ranges: Range) -> None:
    """Checks options of `sample`.

    Args:
      kinds: One or more different entries of `KINDS`.
      factor: A whole number within [2, 64].
      ranges: Pairs of numbers low ≤ high: angles within [-360, 360], noise within [0, 255], others within [0, 1000].

    Raises:
      ValueError: An unknown or invalid option.
    """
    if not (
        isinstance(kinds, tuple | list)
        and kinds
        and all(isinstance(kind, str) and kind in KINDS for kind in kinds)
        and len(set(kinds)) == len(kinds)
    ):
        raise ValueError(f"kinds={shown(kinds)} must be one or more different ones of {', '.join(map(repr, KINDS))}")
    for name, bounds in ranges.items():
        if name not in _BOUNDS:
            raise ValueError(f"{name}={shown(bounds)} is not an option; the options are: {', '.join(_BOUNDS)}")
        low, high = _BOUNDS[name]
        if not (_are_two_numbers(bounds) and low <= bounds[0] <= bounds[1] <= high):
            raise ValueError(f"{name}={shown(bounds)} must be two numbers (low, high), {low} ≤ low ≤ high ≤ {high}")
    if not (is_whole_number(factor) and _FACTORS[0] <= factor <= _FACTORS[1]):
        raise ValueError(f"factor={shown(factor)} must be a whole number within [{_FACTORS[0]}, {_FACTORS[1]}]")


def degrade(image: np.ndarray, rng: np.random.Generator | None = None, **options: Any) -> np.ndarray:
    """Degrades an image by a degradation from `sample(rng, **options)`: uint8 `[H, W, C]`, of the image's size.

    Args:
      image: The image, uint8 `[H, W, C]`.
      rng: The random generator; None is allowed if the options leave nothing to sample.
      options: The options of `sample`.

    Raises:
      ValueError: As in `sample` and `apply`.
    """
    return apply(sample(rng, **options), image)


def apply(record: Degradation, image: np.ndarray) -> np.ndarray:
    """Applies a degradation to an image: uint8 `[H, W, C]`, of the image's size.

    A blur is a convolution in float64 over the image, reflected at its edges; the noise is added and the sum rounded
    once. A reduced image is enlarged again bicubically, which gives the condition of SR3 (Saharia et al. 2021).

    Args:
      record: The degradation.
      image: The image, uint8 `[H, W, C]`.

    Raises:
      ValueError: An unknown kind, or a height or width that the factor of a reduction does not divide.
    """
    _check_kind(record.kind, KINDS)
    if record.kind in REDUCTIONS:
        return upsample(downsample(image, record.size, record.kind), image.shape[:2])
    blurred = convolve(image, kernel(record))
    if record.noise:
        blurred += record.noise * np.random.default_rng(record.seed).standard_normal(image.shape)
    return np.clip(np.round(blurred), 0, 255).astype(np.uint8)


def kernel(record: Degradation) -> np.ndarray:
    """Returns the weights of a blur, float64 `[k, k]` with k odd, which sum to 1 and are symmetric about their centre.

    "gaussian" is the normal density at the pixels, out to 4σ; "motion" is a line through the centre, each of its points
    distributed bilinearly; "defocus" is a disc, whose border pixels are weighted by how far they lie within it.

    Args:
      record: The degradation, of one of `BLURS`.

    Raises:
      ValueError: Another kind.
    """
    _check_kind(record.kind, BLURS)
    reach = {"gaussian": 4 * record.size, "motion": record.size / 2, "defocus": record.size}[record.kind]
    half = int(np.ceil(reach))
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    if record.kind == "gaussian":
        # The tiny term makes σ = 0 leave the image as it is.
        weights = np.exp(-(x**2 + y**2) / (2 * record.size**2 + 1e-30))
    elif record.kind == "defocus":
        weights = np.clip(record.size + 0.5 - np.hypot(x, y), 0.0, 1.0)
    else:
        along = np.linspace(-reach, reach, 16 * half + 1)
        radians = np.deg2rad(record.angle)
        # Row numbers grow downwards.
        px, py = along * np.cos(radians), -along * np.sin(radians)
        # Row by row, because all rows at once take gigabytes for long motions.
        in_column = np.clip(1 - np.abs(x[0][:, None] - px), 0, None)
        weights = np.stack([(in_column * np.clip(1 - np.abs(row - py), 0, None)).sum(axis=-1) for row in y[:, 0]])
    return weights / weights.sum()


def convolve(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Convolves each channel of an image, which is reflected at its edges: float64 `[H, W, C]`.

    Args:
      image: The image, `[H, W, C]`.
      weights: The weights, `[k, k]` with k odd.
    """
    from scipy.signal import fftconvolve

    half = len(weights) // 2
    padded = np.pad(image.astype(np.float64), ((half, half), (half, half), (0, 0)), mode="reflect")
    return fftconvolve(padded, weights[..., None], mode="valid", axes=(0, 1))


def downsample(image: np.ndarray, factor: int, kind: str = "bicubic") -> np.ndarray:
    """Reduces the resolution of an image with Pillow: uint8 `[H/factor, W/factor, C]`.

    Args:
      image: The image, uint8 `[H, W, C]`.
      factor: The factor, which must divide height and width.
      kind: The filter, "bicubic" (a = -0.5, antialiased) or "area" (the mean of each box).

    Raises:
      ValueError: Another kind, or a height or width that the factor does not divide.
    """
    _check_kind(kind, REDUCTIONS)
    height, width = image.shape[:2]
    if height % factor or width % factor:
        raise ValueError(f"factor={factor} must divide the height and width of an image of {height}×{width}")
    return scale(image, (height // int(factor), width // int(factor)), kind)


def upsample(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarges an image with Pillow's bicubic filter: uint8 `[height, width, C]`.

    Args:
      image: The image, uint8 `[H, W, C]`.
      size: The height and width to return.
    """
    return scale(image, size, "bicubic")


def _required(rng: np.random.Generator | None, option: str) -> np.random.Generator:
    if rng is None:
        raise ValueError(f"{option} is sampled at random, but there is no random generator here (on_device=True)")
    return rng


def _are_two_numbers(values: Any) -> bool:
    return (
        isinstance(values, tuple | list)
        and len(values) == 2
        and all(isinstance(value, Real) and not isinstance(value, bool) for value in values)
    )


def _check_kind(kind: str, allowed: tuple[str, ...]) -> None:
    if kind not in allowed:
        raise ValueError(f"kind={shown(kind)} is not one of {', '.join(map(repr, allowed))}")
