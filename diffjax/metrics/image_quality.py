"""Metrics of how close restored images are to the true ones, in float64 on the host.

The formulas take uint8 `[N, H, W, C]`, grey or RGB, and return a value per image, `[N]`; all channels have the same
weight. `luma` computes the channel on which papers on super-resolution measure.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from diffjax.data import degradations
from diffjax.metrics.features.base import Extractor
from diffjax.metrics.records import Figure
from diffjax.metrics.registry import METRICS, Metric, find
from diffjax.registry import call

USUAL = ("psnr", "ssim", "consistency", "lpips", "kernel", "frechet")
"""The default metrics of restored images."""

_SIGMA, _WINDOW = 1.5, 11


def psnr(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns 10·log₁₀(255²/MSE) in dB, `[N]`, with the MSE over pixels and channels; infinite for equal images.

    Args:
      images: uint8 `[N, H, W, C]`.
      truth: uint8 `[N, H, W, C]`.

    Raises:
      ValueError: other dtypes, or different shapes.

    Examples:
      >>> psnr(np.zeros((1, 8, 8, 1), np.uint8), np.full((1, 8, 8, 1), 255, np.uint8))
      array([0.])
    """
    _check(images, truth)
    with np.errstate(divide="ignore"):
        return 10.0 * np.log10(255.0**2 / mse(images, truth))


def mse(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns the mean squared error over pixels and channels, `[N]` in [0, 255²]."""
    return np.mean((images.astype(np.float64) - truth.astype(np.float64)) ** 2, axis=(1, 2, 3))


def ssim(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns the structural similarity (Wang et al. 2004), `[N]`: the mean over channels and windows inside the image.

    Gaussian windows of 11×11 with σ = 1.5; K₁ = 0.01, K₂ = 0.03, L = 255; population covariances. The same as
    scikit-image's `structural_similarity` with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    data_range=255`.

    Args:
      images: uint8 `[N, H, W, C]`.
      truth: uint8 `[N, H, W, C]`.

    Raises:
      ValueError: as `psnr`, or images smaller than a window.
    """
    from scipy.ndimage import correlate1d

    _check(images, truth)
    if min(images.shape[1:3]) < _WINDOW:
        raise ValueError(
            f"images must be at least {_WINDOW}×{_WINDOW}, the window of SSIM, not {images.shape[1]}×{images.shape[2]}"
        )
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


def consistency(images: np.ndarray, low: np.ndarray, downsample: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Returns the mean squared error of downsampled images against the inputs they came from, `[N]` in [0, 1]²·10⁵.

    The unit is chosen for figures of the size in the SR3 paper (2.68 for SR3); in [0, 255]² rounding alone would give
    0.08·10⁵.

    Args:
      images: restored images, uint8 `[N, H, W, C]`.
      low: the inputs, uint8 `[N, h, w, C]`.
      downsample: uint8 `[H, W, C]` → uint8 `[h, w, C]`, the function by which the inputs were computed.

    Raises:
      ValueError: as `psnr`, for the small images.
    """
    again = np.stack([downsample(image) for image in images])
    _check(again, low)
    return 1e5 * mse(again, low) / 255.0**2


def luma(images: np.ndarray) -> np.ndarray:
    """Returns Y of ITU-R 601 in 16 … 235, rounded as by Matlab's `rgb2ycbcr`: uint8 `[N, H, W, 3]` → `[N, H, W, 1]`.

    Grey images are returned as they are.
    """
    if images.shape[-1] == 1:
        return images
    y = 16.0 + images.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255.0
    return np.round(y).astype(np.uint8)[..., None]


class Pair(NamedTuple):
    """An image, and the condition that it is restored from; uint8 `[H, W, C]`."""

    truth: np.ndarray
    condition: np.ndarray
    record: degradations.Degradation | None
    """The degradation that was applied; None where the source has both images."""


class Measure:
    """Measures restored images against the true ones.

    Metrics of image pairs, such as `psnr` or `lpips`, are means over images. Metrics of two sets, such as `kernel`,
    compare the features of all restored and all true images, or of their tiles of one shape. A metric is left out where
    it cannot be computed: `consistency` without a reduction, `lpips` without its weights, `ssim` for images smaller
    than its window, `frechet` for no more tiles than the extractor has dimensions.

    Args:
      pairs: the true images and their conditions.
      extract: the extractor for metrics of two sets.
      shape: (H, W, C) of an image or a tile.
      luma_alone: whether PSNR and SSIM are computed on `luma`.
      perceptual: LPIPS with its weights (`lpips.load`).
      names: the metrics, by registered names or import paths. Their functions may take `images` and `truth`, uint8
        `[1, H, W, C]`, `low` and `downsample` as `consistency`, and `perceptual`; or the features `samples` and
        `reference`.
    """

    def __init__(
        self,
        pairs: list[Pair],
        extract: Extractor,
        shape: tuple[int, int, int],
        *,
        luma_alone: bool = False,
        perceptual: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
        names: Sequence[str] = USUAL,
    ):
        self._pairs, self._extract, self._shape = pairs, extract, shape
        self._luma_alone, self._perceptual = luma_alone, perceptual
        metrics = {name: find(name) for name in names}
        self._of_sets = {name for name, metric in metrics.items() if set(metric.needs) <= {"samples", "reference"}}
        self._metrics = metrics
        self._reference = extract(self._tiles([pair.truth for pair in pairs])).features

    def __call__(self, images: list[np.ndarray]) -> dict[str, Figure]:
        """Returns the figures of restored images, uint8 `[H, W, C]` each, by name."""
        samples = self._extract(self._tiles(images)).features
        sets = {"samples": samples, "reference": self._reference}
        pairs = [self._given(image, pair) for image, pair in zip(images, self._pairs, strict=True)]
        figures = {}
        for name, metric in self._metrics.items():
            if name in self._of_sets:
                if len(samples) >= metric.least(self._extract.dim):
                    figures[name] = metric(sets)
            elif values := list(self._values(metric, pairs)):
                figures[name] = metric.summary(np.concatenate(values))
        return figures

    def _values(self, metric: Metric, pairs: list[dict[str, Any]]) -> Iterator[np.ndarray]:
        """Yields the values `[1]` of the pairs that the metric can measure."""
        for given in pairs:
            if set(metric.needs) <= given.keys() and min(given["truth"].shape[1:3]) >= metric.min_size:
                if self._luma_alone and metric.uses_luma:
                    given = given | {"images": luma(given["images"]), "truth": luma(given["truth"])}
                yield np.atleast_1d(call(metric.function, given, {}))

    def _given(self, image: np.ndarray, pair: Pair) -> dict[str, Any]:
        """Returns the values that metrics may take for one pair, by parameter name."""
        given = {"images": image[None], "truth": pair.truth[None]}
        if pair.record is not None and pair.record.kind in degradations.REDUCTIONS:
            smaller = partial(degradations.downsample, factor=pair.record.size, kind=pair.record.kind)
            given |= {"low": smaller(pair.truth)[None], "downsample": smaller}
        return given if self._perceptual is None else given | {"perceptual": self._perceptual}

    def _tiles(self, images: list[np.ndarray]) -> np.ndarray:
        """Returns all tiles of all images, uint8 `[N, H, W, C]`; incomplete tiles are left out."""
        height, width, _ = self._shape
        return np.stack(
            [
                image[top : top + height, left : left + width]
                for image in images
                for top in range(0, image.shape[0] - height + 1, height)
                for left in range(0, image.shape[1] - width + 1, width)
            ]
        )


def _check(images: np.ndarray, truth: np.ndarray) -> None:
    if images.dtype != np.uint8 or truth.dtype != np.uint8 or images.shape != truth.shape or images.ndim != 4:
        raise ValueError(
            f"images must be uint8 [N, H, W, C] and of one shape, not {images.dtype} {images.shape} and "
            f"{truth.dtype} {truth.shape}"
        )


METRICS.register(Metric("psnr", psnr, higher_is_better=True, uses_luma=True, min_count=1))
METRICS.register(Metric("ssim", ssim, higher_is_better=True, uses_luma=True, min_count=1, min_size=_WINDOW))
METRICS.register(Metric("consistency", consistency, min_count=1))
