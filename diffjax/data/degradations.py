"""What makes an image worse: blur with noise, or lower resolution. What was drawn is a record that can do it again.

    record = draw(rng, kinds=("motion", "defocus"), noise=(0, 4))
    condition = apply(record, image)        # the same for the same record: json.dumps(record._asdict()) keeps it

All on the host. Everything is 8 bits a channel, also between lowering a resolution and raising it again.
"""

from typing import NamedTuple

import numpy as np

BLURS = ("gaussian", "motion", "defocus")
REDUCTIONS = ("bicubic", "area")
KINDS = (*BLURS, *REDUCTIONS)

Range = tuple[float, float]


class Degradation(NamedTuple):
    """What is done to one image; plain numbers, for JSON."""

    kind: str
    """Of `KINDS`."""
    size: float
    """In pixels: a Gaussian's σ, a motion's length, a disc's radius; of a reduction, the whole factor."""
    angle: float = 0.0
    """A motion's, in degrees counter-clockwise from the x-axis."""
    noise: float = 0.0
    """Standard deviation of what is added after a blur, in 0 … 255."""
    seed: int = 0
    """Of that noise."""


def draw(
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
    """One of `kinds`, each as likely, with its numbers uniform in their ranges (low, high).

    Args:
      rng: where chance comes from; None: nothing may be left to chance.
      kinds: of `KINDS`.
      sigma: of "gaussian".
      length: of "motion".
      angle: of "motion".
      radius: of "defocus".
      noise: of blurs.
      factor: of "bicubic" and "area".

    Raises:
      ValueError: an unknown kind or none, a range that cannot be, a factor under 2, or chance without `rng`.
    """
    check(kinds, sigma=sigma, length=length, angle=angle, radius=radius, noise=noise, factor=factor)

    def uniform(name, bounds):
        low, high = bounds
        if low == high:
            return float(low)
        return float(_chance(rng, f"{name}=({low}, {high})").uniform(low, high))

    kind = kinds[0] if len(kinds) == 1 else kinds[_chance(rng, f"kinds={tuple(kinds)}").integers(len(kinds))]
    if kind in REDUCTIONS:
        return Degradation(kind, factor)
    name, bounds = {"gaussian": ("sigma", sigma), "motion": ("length", length), "defocus": ("radius", radius)}[kind]
    size = uniform(name, bounds)
    direction = uniform("angle", angle) if kind == "motion" else 0.0
    strength = uniform("noise", noise)
    seed = int(_chance(rng, f"noise={tuple(noise)}").integers(2**32)) if strength else 0
    return Degradation(kind, size, direction, strength, seed)


def check(kinds: tuple[str, ...], *, factor: int = 4, **ranges: Range) -> None:
    """Whether `draw` can take these.

    Raises:
      ValueError: if not.
    """
    if not kinds:
        raise ValueError(f"kinds=() must name one or more of {', '.join(map(repr, KINDS))}")
    for kind in kinds:
        _check_kind("kinds", kind, KINDS)
    for name, bounds in ranges.items():
        if len(bounds) != 2 or not -np.inf < bounds[0] <= bounds[1] < np.inf:
            raise ValueError(f"{name}={tuple(bounds)} must be (low, high) with low ≤ high")
        if name != "angle" and bounds[0] < 0:
            raise ValueError(f"{name}={tuple(bounds)} must be ≥ 0")
    if factor != int(factor) or factor < 2:
        raise ValueError(f"factor={factor} must be a whole number ≥ 2")


def degrade(image: np.ndarray, rng: np.random.Generator | None = None, **options) -> np.ndarray:
    """`image` as `draw(rng, **options)` would have it: uint8 `[H, W, C]`, of the image's size.

    Raises:
      ValueError: as `draw` and `apply`.
    """
    return apply(draw(rng, **options), image)


def apply(record: Degradation, image: np.ndarray) -> np.ndarray:
    """The degraded image, uint8 `[H, W, C]` of the image's own size.

    A blur is a convolution in float64, over an image that is mirrored at its edges; then come the noise and one
    rounding. A reduction is made undone bicubically: SR3's condition.

    Raises:
      ValueError: an unknown kind, or a size that the factor does not divide.
    """
    _check_kind("kind", record.kind, KINDS)
    if record.kind in REDUCTIONS:
        return upsample(downsample(image, record.size, record.kind), image.shape[:2])
    blurred = convolve(image, kernel(record))
    if record.noise:
        blurred += record.noise * np.random.default_rng(record.seed).standard_normal(image.shape)
    return np.clip(np.round(blurred), 0, 255).astype(np.uint8)


def kernel(record: Degradation) -> np.ndarray:
    """A blur's weights, float64 `[k, k]` with k odd: they add up to 1 and are symmetric about their centre.

    Gaussian: its density at the pixels, out to 4σ. Motion: a line through the centre, each point of it shared out
    bilinearly. Defocus: a disc, whose border pixels count by how far they lie within it.

    Raises:
      ValueError: another kind.
    """
    _check_kind("kind", record.kind, BLURS)
    reach = {"gaussian": 4 * record.size, "motion": record.size / 2, "defocus": record.size}[record.kind]
    half = int(np.ceil(reach))
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    if record.kind == "gaussian":
        # The tiny term is for σ = 0, which leaves the image as it is.
        weights = np.exp(-(x**2 + y**2) / (2 * record.size**2 + 1e-30))
    elif record.kind == "defocus":
        weights = np.clip(record.size + 0.5 - np.hypot(x, y), 0.0, 1.0)
    else:
        along = np.linspace(-reach, reach, 16 * half + 1)
        radians = np.deg2rad(record.angle)
        # Rows count downwards.
        px, py = along * np.cos(radians), -along * np.sin(radians)
        share = np.clip(1 - np.abs(x[..., None] - px), 0, None) * np.clip(1 - np.abs(y[..., None] - py), 0, None)
        weights = share.sum(axis=-1)
    return weights / weights.sum()


def convolve(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`image` `[H, W, C]` convolved with `[k, k]`, each channel for itself, mirrored at the edges: float64."""
    from scipy.signal import fftconvolve

    half = len(weights) // 2
    padded = np.pad(image.astype(np.float64), ((half, half), (half, half), (0, 0)), mode="reflect")
    return fftconvolve(padded, weights[..., None], mode="valid", axes=(0, 1))


def downsample(image: np.ndarray, factor: int, kind: str = "bicubic") -> np.ndarray:
    """uint8 `[H/factor, W/factor, C]`, by Pillow: "bicubic" (a = -0.5, widened) or "area" (each box's mean).

    Raises:
      ValueError: another kind, or a size that the factor does not divide.
    """
    _check_kind("kind", kind, REDUCTIONS)
    height, width = image.shape[:2]
    if height % factor or width % factor:
        raise ValueError(f"an image of {height}×{width} cannot be made {factor} times smaller in whole pixels")
    return _resize(image, (height // int(factor), width // int(factor)), kind)


def upsample(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 `[height, width, C]` of `size` = (height, width), by Pillow's bicubic."""
    return _resize(image, size, "bicubic")


def _resize(image, size, kind):
    from PIL import Image

    resampling = {"bicubic": Image.Resampling.BICUBIC, "area": Image.Resampling.BOX}[kind]
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    return np.asarray(picture.resize(size[::-1], resampling)).reshape(*size, image.shape[2])


def _chance(rng, what):
    if rng is None:
        raise ValueError(f"{what} leaves something to chance, but this use of it has none (resident=True)")
    return rng


def _check_kind(argument, value, allowed):
    if value not in allowed:
        raise ValueError(f"{argument}={value!r} is not one of {', '.join(map(repr, allowed))}")
