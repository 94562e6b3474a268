import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.metrics.features import resize

SHAPES = [(2, 8, 5, 3), (1, 19, 19, 1), (1, 40, 23, 3), (1, 1, 1, 1)]


def pixels(shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def tensorflow1_by_loops(images, size):
    """TensorFlow 1's kernel, pixel by pixel: source = i·scale, scale in float32; neighbours end at the border."""
    batch, height, width, channels = images.shape
    result = np.empty((batch, size, size, channels))
    for i in range(size):
        for j in range(size):
            y, x = i * float(np.float32(height / size)), j * float(np.float32(width / size))
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            a, b, c, d = (images[:, r, s].astype(float) for r in (top, bottom) for s in (left, right))
            upper, lower = a + (b - a) * (x - left), c + (d - c) * (x - left)
            result[:, i, j] = upper + (lower - upper) * (y - top)
    return (result - 128) / 128


@pytest.mark.parametrize("shape", SHAPES)
def test_tensorflow1(x64, shape):
    images = pixels(shape)
    expected = tensorflow1_by_loops(images, 19)
    np.testing.assert_allclose(resize.tensorflow1(jnp.asarray(images), 19, np.float64), expected, atol=1e-14)
    found = resize.tensorflow1(jnp.asarray(images), 19)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6 * 19)


@pytest.mark.parametrize("shape", SHAPES)
def test_pytorch(x64, shape):
    torch = pytest.importorskip("torch")
    images = pixels(shape)
    x = torch.tensor(images).permute(0, 3, 1, 2).double() / 255
    expected = torch.nn.functional.interpolate(x, size=(19, 19), mode="bilinear", align_corners=False)
    expected = (2 * expected - 1).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(resize.pytorch(jnp.asarray(images), 19, np.float64), expected, atol=1e-13)
    found = resize.pytorch(jnp.asarray(images), 19)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_two_are_not_the_same():
    ramp = np.arange(0, 256, 8, dtype=np.uint8).reshape(1, 1, 32, 1).repeat(32, 1)
    shift = resize.pytorch(jnp.asarray(ramp), 299) - resize.tensorflow1(jnp.asarray(ramp), 299)
    # Half a pixel of 32, less half of 299: 0.446 grey levels of 8 of 255, and the ranges [-1, 1] and [-1, 127/128].
    inside = 2 * 8 * (0.5 * 32 / 299 - 0.5) / 255
    np.testing.assert_allclose(shift[0, 100, 20:270, 0].mean(), inside, atol=0.01)
