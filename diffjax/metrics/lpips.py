"""LPIPS (Zhang et al. 2018), version 0.1 on AlexNet: the perceptual distance between two images.

    d(x, y) = Σ_l mean over positions of Σ_c w_lc·(x̂_lc - ŷ_lc)²

x̂_l is the output for x of the l-th of AlexNet's five ReLUs, divided at each position by its norm over the channels.

The user provides the weights: AlexNet's, as published by torchvision, and the w_l of the `lpips` package. The code is
tested against the same architecture in PyTorch with random weights in files of those layouts, not with the published
weights.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax.metrics.features import weights
from diffjax.metrics.records import mean_and_error
from diffjax.metrics.registry import METRICS, Metric

ALEXNET = weights.Published(
    "torchvision's AlexNet",
    "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    244_408_911,
    "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
)
LINEAR = weights.Published(
    "LPIPS's linear layers",
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/alex.pth",
    6_009,
    "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
)
LEAST = 31
"""The least height and width of images, in pixels, that AlexNet's pooling layers allow."""
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_EPSILON = 1e-10

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(images, truth), uint8 `[N, H, W, C]` each → float64 `[N]`."""


class Convolution(NamedTuple):
    """One of AlexNet's convolutions, and the weight of its features in the distance."""

    kernel: jax.Array
    """`[k, k, in, out]`."""
    bias: jax.Array
    weight: jax.Array
    """w_l, `[out]`."""


class _Shape(NamedTuple):
    key: str
    inputs: int
    outputs: int
    size: int
    stride: int = 1
    pooled: bool = False
    """Whether a 3×3 max pool of stride 2 comes before it."""


_SHAPES = (
    _Shape("features.0", 3, 64, 11, stride=4),
    _Shape("features.3", 64, 192, 5, pooled=True),
    _Shape("features.6", 192, 384, 3, pooled=True),
    _Shape("features.8", 384, 256, 3),
    _Shape("features.10", 256, 256, 3),
)


def load(alexnet: Path, linear: Path, *, check_hash: bool = True) -> Distance:
    """Returns LPIPS with the weights in two files; grey images are repeated to three channels.

    The returned function raises a `ValueError` as `check`, or for two sets of different shapes.

    Args:
      alexnet: the file from `ALEXNET.url`.
      linear: the file from `LINEAR.url`.
      check_hash: whether the files must be the published ones; False allows others of the same layout.

    Raises:
      UserError: a missing file (the message says where to get it), another file than the published one, or tensors that
        are missing, left over or of the wrong shape, by name.
    """
    states = (
        weights.read(alexnet, ALEXNET, check_hash=check_hash),
        weights.read(linear, LINEAR, check_hash=check_hash),
    )
    layers = jax.device_put(jax.tree.map(np.float32, from_states(*states, f"{alexnet} and {linear}")))
    compiled = jax.jit(distances)

    def function(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
        if images.shape != truth.shape:
            raise ValueError(f"images must be of one shape, not {images.shape} and {truth.shape}")
        check(images.shape[1:])
        pair = (np.broadcast_to(part / np.float32(127.5) - 1, (*part.shape[:3], 3)) for part in (images, truth))
        return np.asarray(compiled(layers, *pair), np.float64)

    return function


def check(shape: tuple[int, ...]) -> None:
    """Checks that LPIPS can measure images of `shape`, (H, W, C).

    Raises:
      ValueError: images that are too small, or have neither 1 nor 3 channels.
    """
    if min(shape[:2]) < LEAST or shape[2] not in (1, 3):
        raise ValueError(
            f"images must be at least {LEAST}×{LEAST} with 1 or 3 channels for LPIPS, not {shape[0]}×{shape[1]} with "
            f"{shape[2]}"
        )


def distances(layers: Sequence[Convolution], x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns d, `[B]`, of x and y, `[B, H, W, 3]` in [-1, 1]."""
    total = jnp.zeros(len(x), x.dtype)
    for layer, of_x, of_y in zip(layers, _features(layers, x), _features(layers, y), strict=True):
        total += jnp.mean((of_x - of_y) ** 2 @ layer.weight, axis=(1, 2))
    return total


def per_image(images: np.ndarray, truth: np.ndarray, perceptual: Distance) -> np.ndarray:
    """Returns the LPIPS of uint8 images, float64 `[N]`, by the function that `load` returned."""
    return perceptual(images, truth)


def _features(layers: Sequence[Convolution], x: jax.Array) -> list[jax.Array]:
    """Returns x̂_l, `[B, H_l, W_l, C_l]`, for each l."""
    x = (x - jnp.asarray(_SHIFT, x.dtype)) / jnp.asarray(_SCALE, x.dtype)
    found = []
    for layer, shape in zip(layers, _SHAPES, strict=True):
        if shape.pooled:
            x = nn.max_pool(x, (3, 3), strides=(2, 2))
        # The first convolution pads the image by 2, the others keep its size.
        padding = 2 if shape.stride > 1 else shape.size // 2
        x = jax.lax.conv_general_dilated(
            x,
            layer.kernel,
            (shape.stride, shape.stride),
            ((padding, padding),) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
        x = nn.relu(x + layer.bias)
        found.append(x / (jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True)) + _EPSILON))
    return found


def from_states(alexnet: dict[str, np.ndarray], linear: dict[str, np.ndarray], what: str) -> list[Convolution]:
    """Returns the layers in two state dicts, in their dtype; AlexNet's classifier is ignored.

    Args:
      alexnet: the state dict of AlexNet.
      linear: the state dict with the w_l.
      what: the name of the two in error messages.

    Raises:
      UserError: tensors that are missing, left over or of the wrong shape, by name.
    """
    state = {key: tensor for key, tensor in alexnet.items() if not key.startswith("classifier.")} | linear
    expected = {}
    for n, shape in enumerate(_SHAPES):
        expected[f"{shape.key}.weight"] = (shape.outputs, shape.inputs, shape.size, shape.size)
        expected[f"{shape.key}.bias"] = (shape.outputs,)
        expected[_linear(n)] = (1, shape.outputs, 1, 1)
    weights.check_shapes(state, expected, what, "LPIPS on AlexNet")
    return [
        Convolution(
            state[f"{shape.key}.weight"].transpose(2, 3, 1, 0), state[f"{shape.key}.bias"], state[_linear(n)].ravel()
        )
        for n, shape in enumerate(_SHAPES)
    ]


def _linear(n: int) -> str:
    """Returns the name of w_l's tensor."""
    return f"lin{n}.model.1.weight"


METRICS.register(Metric("lpips", per_image, min_count=1, summary=mean_and_error))
