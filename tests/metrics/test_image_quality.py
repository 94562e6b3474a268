import numpy as np
import pytest

from diffjax.data import degradations
from diffjax.metrics import image_quality


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_psnr_of_a_known_error():
    truth = np.full((2, 4, 5, 3), 100, np.uint8)
    images = truth.copy()
    images[1] += 10
    assert image_quality.psnr(images, truth) == pytest.approx([np.inf, 20 * np.log10(25.5)])


def test_ssim_of_constant_images_is_their_luminance_term():
    a, b = (np.full((1, 12, 13, 1), level, np.uint8) for level in (50, 100))
    c1 = (0.01 * 255) ** 2
    assert image_quality.ssim(a, b) == pytest.approx([(2 * 50 * 100 + c1) / (50**2 + 100**2 + c1)], rel=1e-9)
    assert image_quality.ssim(a, a) == pytest.approx([1.0])


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_scikit_image_s(channels):
    metrics = pytest.importorskip("skimage.metrics")
    a = pixels(2, 20, 17, channels)
    b = np.clip(a + np.random.default_rng(1).normal(0, 30, a.shape), 0, 255).astype(np.uint8)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    expected = [metrics.structural_similarity(x, y, channel_axis=-1, **options) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(image_quality.ssim(a, b), expected, rtol=1e-12)


def test_consistency_of_downsampled_images_is_0():
    truth = pixels(3, 8, 8, 1)

    def downsample(image):
        return degradations.downsample(image, 4, "area")

    low = np.stack([downsample(image) for image in truth])
    assert image_quality.consistency(truth, low, downsample).tolist() == [0, 0, 0]
    shifted = image_quality.consistency(np.zeros_like(truth), np.full_like(low, 51), downsample)
    np.testing.assert_allclose(shifted, 0.2**2 * 1e5)


def test_luma():
    colours = np.array([[[[0, 0, 0], [255, 255, 255], [255, 0, 0]]]], np.uint8)
    assert image_quality.luma(colours).ravel().tolist() == [16, 235, 81]


def test_bad_images():
    with pytest.raises(ValueError, match=r"of one shape, not uint8 \(1, 4, 4, 1\) and uint8 \(1, 4, 5, 1\)"):
        image_quality.psnr(pixels(1, 4, 4, 1), pixels(1, 4, 5, 1))
    with pytest.raises(ValueError, match="at least 11×11, the window of SSIM, not 10×12"):
        image_quality.ssim(pixels(1, 10, 12, 1), pixels(1, 10, 12, 1))
