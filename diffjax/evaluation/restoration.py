"""How near a restored image is to the true one, image by image, in float64 on the host; and sets of them.

The functions take uint8 `[N, H, W, C]` and give `[N]`. Channels are as the images have them, grey or RGB, and count
alike; `luma` makes the one that papers on super-resolution measure.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from diffjax.data import degradations
from diffjax.evaluation import frechet, kernel, lpips
from diffjax.evaluation.features import Extractor
from diffjax.evaluation.figures import Figure

_SIGMA, _WINDOW = 1.5, 11


class Pair(NamedTuple):
    """An image, and what it is restored from; uint8 `[H, W, C]`."""

    truth: np.ndarray
    condition: np.ndarray
    record: degradations.Degradation | None
    """What was done to it; None where the source has both."""


def psnr(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """10·log₁₀(255²/MSE), the MSE over pixels and channels; infinite where they are equal.

    Raises:
      ValueError: other dtypes, or different shapes.
    """
    _check(images, truth)
    with np.errstate(divide="ignore"):
        return 10.0 * np.log10(255.0**2 / mse(images, truth))


def mse(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The mean squared error over pixels and channels, in 0 … 255²."""
    return np.mean((images.astype(np.float64) - truth.astype(np.float64)) ** 2, axis=(1, 2, 3))


def ssim(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004): the mean over channels and over windows that lie within the image.

    Gaussian windows, σ = 1.5, 11×11; K₁ = 0.01, K₂ = 0.03, L = 255; population covariances. (scikit-image's
    `structural_similarity` with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255`.)

    Raises:
      ValueError: as `psnr`, or images smaller than a window.
    """
    from scipy.ndimage import correlate1d

    _check(images, truth)
    if min(images.shape[1:3]) < _WINDOW:
        raise ValueError(f"images of {images.shape[1]}×{images.shape[2]} are smaller than the window of {_WINDOW}")
    half = _WINDOW // 2
    window = np.exp(-0.5 * (np.arange(-half, half + 1) / _SIGMA) ** 2)
    window /= window.sum()

    def mean(values):
        averaged = correlate1d(correlate1d(values, window, axis=1), window, axis=2)
        return averaged[:, half:-half, half:-half]

    def score(x, y):
        mean_x, mean_y = mean(x), mean(y)
        var_x, var_y, covariance = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2, mean(x * y) - mean_x * mean_y
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
        similarity /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
        return similarity.mean(axis=(1, 2, 3))

    pairs = zip(images, truth, strict=True)
    return np.array([score(x[None].astype(np.float64), y[None].astype(np.float64))[0] for x, y in pairs])


def consistency(images: np.ndarray, low: np.ndarray, downsample) -> np.ndarray:
    """The mean squared error of images made small again against the small ones they came from, in [0, 1]²·10⁵.

    That is SR3's unit, as its figures tell (2.68 for SR3; in 0 … 255² rounding alone would give 0.08·10⁵).

    Args:
      images: `[N, H, W, C]`.
      low: `[N, h, w, C]`.
      downsample: `[H, W, C]` → `[h, w, C]`, uint8; as the small ones were made.

    Raises:
      ValueError: as `psnr`, of the small ones.
    """
    again = np.stack([downsample(image) for image in images])
    _check(again, low)
    return 1e5 * mse(again, low) / 255.0**2


def luma(images: np.ndarray) -> np.ndarray:
    """Y of ITU-R 601 in 16 … 235, as Matlab's `rgb2ycbcr` rounds it: uint8 `[N, H, W, 3]` → `[N, H, W, 1]`.

    Grey images stay as they are.
    """
    if images.shape[-1] == 1:
        return images
    y = 16.0 + images.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255.0
    return np.round(y).astype(np.uint8)[..., None]


def _check(images: np.ndarray, truth: np.ndarray) -> None:
    if images.dtype != np.uint8 or truth.dtype != np.uint8 or images.shape != truth.shape or images.ndim != 4:
        raise ValueError(
            f"images must be uint8 [N, H, W, C], alike in shape; these are {images.dtype} {images.shape} and "
            f"{truth.dtype} {truth.shape}"
        )


class Measure:
    """The figures of restored images (uint8 `[H, W, C]` each), against the true ones, by name.

    `psnr`, `ssim` and, of reductions, `consistency` are means over the images; so is `lpips`, with its standard error.
    `kernel` and `frechet` are distances between the two sets, or their tiles of one shape, Fréchet where these are more
    than the extractor has dimensions.

    Args:
      pairs: what is restored.
      extract: of the distances.
      shape: `(H, W, C)` of an image or a tile.
      luma_alone: whether PSNR and SSIM are of `luma`.
      perceptual: LPIPS, if it is wanted.
    """

    def __init__(
        self,
        pairs: list[Pair],
        extract: Extractor,
        shape: tuple[int, int, int],
        *,
        luma_alone: bool = False,
        perceptual: lpips.Distance | None = None,
    ):
        self._pairs, self._extract, self._shape, self._perceptual = pairs, extract, shape, perceptual
        self._seen = luma if luma_alone else lambda images: images
        self._real = extract(self._tiles([pair.truth for pair in pairs])).features

    def __call__(self, images: list[np.ndarray]) -> dict[str, Figure]:
        """By name."""
        near, similar, consistent, apart = [], [], [], []
        for image, pair in zip(images, self._pairs, strict=True):
            a, b = self._seen(image[None]), self._seen(pair.truth[None])
            near += list(psnr(a, b))
            if min(image.shape[:2]) >= _WINDOW:
                similar += list(ssim(a, b))
            if pair.record is not None and pair.record.kind in degradations.REDUCTIONS:
                smaller = partial(degradations.downsample, factor=pair.record.size, kind=pair.record.kind)
                consistent += list(consistency(image[None], smaller(pair.truth)[None], smaller))
            if self._perceptual:
                apart += list(self._perceptual(image[None], pair.truth[None]))
        values = {"psnr": near, "ssim": similar, "consistency": consistent}
        found = {name: Figure(float(np.mean(v)), float(np.std(v))) for name, v in values.items() if v}
        if apart:
            error = float(np.std(apart, ddof=1) / np.sqrt(len(apart))) if len(apart) > 1 else None
            found["lpips"] = Figure(float(np.mean(apart)), error=error)
        features = self._extract(self._tiles(images)).features
        if len(features) > 1:
            found["kernel"] = Figure(kernel.kernel_distance(features, self._real))
        if len(features) > self._extract.dim:
            found["frechet"] = Figure(frechet.feature_distance(features, self._real))
        return found

    def _tiles(self, images: list[np.ndarray]) -> np.ndarray:
        height, width, _ = self._shape
        return np.stack(
            [
                image[top : top + height, left : left + width]
                for image in images
                for top in range(0, image.shape[0] - height + 1, height)
                for left in range(0, image.shape[1] - width + 1, width)
            ]
        )
