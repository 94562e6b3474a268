"""FID's Inception-v3: the network of TensorFlow's `inception-2015-12-05`, whose pool features define the FID.

It differs from the Inception of model zoos (Szegedy et al. 2016): average pools leave out the padding, the last block
has a max pool where the others have an average pool, there are 1008 classes, and the weights are others.

The user provides the weights (`SOURCE`). The network is tested against the same architecture in PyTorch with random
weights in a file of that layout, not with the published weights.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from diffjax.metrics.features import weights
from diffjax.metrics.features.base import EXTRACTORS, Extractor
from diffjax.metrics.features.resize import RESIZES

SOURCE = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIZE_IN_BYTES = 95_628_359
TAPS = ("64", "192", "768", "2048")
SIZE = 299
_BATCH_NORM_EPSILON = 1e-3


class Inception(nn.Module):
    """`[B, H, W, 3]` in [-1, 1] → `{"64", "192", "768", "2048", "logits_unbiased", "logits"}`, each `[B, …]`.

    The taps are spatial means after the first two max pools, before the place of the auxiliary classifier, and at the
    end. `logits_unbiased` leaves out the bias of the last layer, as TensorFlow's Inception score does. H and W are 299
    for every published figure, and at least 75. Batch normalization is folded into the convolutions (`from_state`).
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        """Returns the four taps and the two logits, by name."""
        taps = {}
        x = _conv(x, 32, 3, "Conv2d_1a_3x3", stride=2)
        x = _conv(x, 32, 3, "Conv2d_2a_3x3", padding="VALID")
        x = _conv(x, 64, 3, "Conv2d_2b_3x3")
        x = _halve(x)
        taps["64"] = x
        x = _conv(x, 80, 1, "Conv2d_3b_1x1")
        x = _conv(x, 192, 3, "Conv2d_4a_3x3", padding="VALID")
        x = _halve(x)
        taps["192"] = x
        for letter, pooled in zip("bcd", (32, 64, 64), strict=True):
            x = _A(pooled, name=f"Mixed_5{letter}")(x)
        x = _B(name="Mixed_6a")(x)
        for letter, inner in zip("bcde", (128, 160, 160, 192), strict=True):
            x = _C(inner, name=f"Mixed_6{letter}")(x)
        taps["768"] = x
        x = _D(name="Mixed_7a")(x)
        x = _E(_mean, name="Mixed_7b")(x)
        x = _E(_max, name="Mixed_7c")(x)
        taps["2048"] = x
        features = {name: tap.mean(axis=(1, 2)) for name, tap in taps.items()}
        dense = nn.Dense(1008, use_bias=False, precision=jax.lax.Precision.HIGHEST, name="fc")
        logits = dense(features["2048"])
        bias = self.param("fc_bias", nn.initializers.zeros, (1008,))
        return {**features, "logits_unbiased": logits, "logits": logits + bias}


def _conv(x: jax.Array, channels: int, kernel: Any, name: str, *, stride: int = 1, padding: str = "SAME") -> jax.Array:
    """Applies a convolution and a ReLU, in full float32 on every device; a strided one has no padding."""
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = "VALID" if stride > 1 else padding
    conv = nn.Conv(channels, kernel, stride, padding, precision=jax.lax.Precision.HIGHEST, name=name)
    return nn.relu(conv(x))


def _halve(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (3, 3), strides=(2, 2))


def _mean(x: jax.Array) -> jax.Array:
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def _max(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (3, 3), padding="SAME")


def _join(*branches: jax.Array) -> jax.Array:
    return jnp.concatenate(branches, axis=-1)


class _A(nn.Module):
    """Branches of 1×1, 5×5 and two 3×3 convolutions, and of an average pool (35×35)."""

    pooled: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        single = _conv(x, 64, 1, "branch1x1")
        five = _conv(_conv(x, 48, 1, "branch5x5_1"), 64, 5, "branch5x5_2")
        double = _conv(_conv(x, 64, 1, "branch3x3dbl_1"), 96, 3, "branch3x3dbl_2")
        double = _conv(double, 96, 3, "branch3x3dbl_3")
        return _join(single, five, double, _conv(_mean(x), self.pooled, 1, "branch_pool"))


class _B(nn.Module):
    """Halves the size (35 → 17)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = _conv(x, 384, 3, "branch3x3", stride=2)
        double = _conv(_conv(x, 64, 1, "branch3x3dbl_1"), 96, 3, "branch3x3dbl_2")
        return _join(three, _conv(double, 96, 3, "branch3x3dbl_3", stride=2), _halve(x))


class _C(nn.Module):
    """Branches of 1×1, 7×7 and two 7×7 convolutions, each as 1×7 and 7×1, and of an average pool (17×17)."""

    inner: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        single = _conv(x, 192, 1, "branch1x1")
        seven = _conv(_conv(x, self.inner, 1, "branch7x7_1"), self.inner, (1, 7), "branch7x7_2")
        seven = _conv(seven, 192, (7, 1), "branch7x7_3")
        double = _conv(_conv(x, self.inner, 1, "branch7x7dbl_1"), self.inner, (7, 1), "branch7x7dbl_2")
        double = _conv(double, self.inner, (1, 7), "branch7x7dbl_3")
        double = _conv(_conv(double, self.inner, (7, 1), "branch7x7dbl_4"), 192, (1, 7), "branch7x7dbl_5")
        return _join(single, seven, double, _conv(_mean(x), 192, 1, "branch_pool"))


class _D(nn.Module):
    """Halves the size (17 → 8)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = _conv(_conv(x, 192, 1, "branch3x3_1"), 320, 3, "branch3x3_2", stride=2)
        seven = _conv(_conv(x, 192, 1, "branch7x7x3_1"), 192, (1, 7), "branch7x7x3_2")
        seven = _conv(_conv(seven, 192, (7, 1), "branch7x7x3_3"), 192, 3, "branch7x7x3_4", stride=2)
        return _join(three, seven, _halve(x))


class _E(nn.Module):
    """Branches of 1×1, 3×3 and two 3×3 convolutions, the last of each as 1×3 beside 3×1, and of `pool` (8×8)."""

    pool: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        single = _conv(x, 320, 1, "branch1x1")
        three = _conv(x, 384, 1, "branch3x3_1")
        three = _join(_conv(three, 384, (1, 3), "branch3x3_2a"), _conv(three, 384, (3, 1), "branch3x3_2b"))
        double = _conv(_conv(x, 448, 1, "branch3x3dbl_1"), 384, 3, "branch3x3dbl_2")
        double = _join(_conv(double, 384, (1, 3), "branch3x3dbl_3a"), _conv(double, 384, (3, 1), "branch3x3dbl_3b"))
        return _join(single, three, double, _conv(self.pool(x), 192, 1, "branch_pool"))


def extractor(
    path: Path, *, tap: str = "2048", resize: str = "torch-fidelity", batch_size: int = 50, check_hash: bool = True
) -> Extractor:
    """Returns an extractor of the features of a tap, and of `logits_unbiased`, with the weights in a file.

    Args:
      path: the file from `SOURCE`.
      tap: one of `TAPS`; published FIDs use "2048".
      resize: how images are resized to 299×299 and scaled to [-1, 1], "torch-fidelity" or "pytorch-fid". Grey images
        are then repeated to three channels.
      batch_size: the number of images at a time; 50 need about 3 GB.
      check_hash: whether the file must be the published one; False allows other weights.

    Raises:
      ValueError: an unknown tap or resize.
      UserError: as `load`.
    """
    if tap not in TAPS:
        raise ValueError(f"tap={tap!r} must be one of {', '.join(TAPS)}")
    if resize not in RESIZES:
        raise ValueError(f"resize={resize!r} must be one of {', '.join(RESIZES)}")
    params = jax.device_put(jax.tree.map(np.float32, load(path, check_hash=check_hash)))

    @jax.jit
    def apply(params: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = RESIZES[resize](images, SIZE)
        found = Inception().apply({"params": params}, jnp.broadcast_to(x, (*x.shape[:3], 3)))
        return found[tap], found["logits_unbiased"]

    def function(images: np.ndarray) -> tuple[jax.Array, jax.Array]:
        if images.shape[-1] not in (1, 3):
            raise ValueError(f"images must have 1 or 3 channels for Inception, not {images.shape[-1]}")
        return apply(params, images)

    facts = {
        "extractor": f"FID Inception-v3 (2015-12-05), tap {tap}",
        "weights": "standard" if check_hash else weights.sha256(path),
        "resize": f"{resize}, bilinear to {SIZE}",
    }
    return Extractor(int(tap), facts, function, batch_size=batch_size, classes="ImageNet")


@EXTRACTORS.register(name=".pth")
def from_file(path: Path) -> Extractor:
    """Returns the extractor of published FIDs, with the published weights.

    Args:
      path: the file from `SOURCE`.
    """
    return extractor(path)


def load(path: Path, *, check_hash: bool = True) -> dict[str, Any]:
    """Returns the parameters of `Inception` in the PyTorch file from `SOURCE`.

    Args:
      path: the file.
      check_hash: whether the file must be the published one.

    Raises:
      UserError: a missing file (the message says where to get it), another file than the published one, or tensors that
        are missing, left over or of the wrong shape, by name.
    """
    published = weights.Published("FID's Inception", SOURCE, SIZE_IN_BYTES, SHA256)
    return from_state(weights.read(path, published, check_hash=check_hash), str(path))


def from_state(state: dict[str, np.ndarray], what: str) -> dict[str, Any]:
    """Returns the parameters in a state dict, in its dtype; batch normalizations are folded into the convolutions.

    Args:
      state: the state dict of the PyTorch network.
      what: its name in error messages.

    Raises:
      UserError: tensors that are missing, left over or of the wrong shape, by name.
    """
    shapes = jax.eval_shape(Inception().init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))["params"]
    flat = {path: leaf.shape for path, leaf in flatten_dict(shapes).items()}
    expected = {}
    for path, shape in flat.items():
        expected |= _tensors(path, shape)
    state = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    weights.check_shapes(state, expected, what, "FID's Inception")
    return unflatten_dict({path: _param(path, state) for path in flat})


def _tensors(path: tuple[str, ...], shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Returns the names and PyTorch shapes of the tensors that a parameter is computed from."""
    if path[0].startswith("fc"):
        return {"fc.bias": shape} if path == ("fc_bias",) else {"fc.weight": shape[::-1]}
    prefix, channels = ".".join(path[:-1]), shape[-1:]
    norm = {f"{prefix}.bn.{leaf}": channels for leaf in ("weight", "bias", "running_mean", "running_var")}
    return norm | ({f"{prefix}.conv.weight": (shape[3], shape[2], *shape[:2])} if path[-1] == "kernel" else {})


def _param(path: tuple[str, ...], state: dict[str, np.ndarray]) -> np.ndarray:
    """Returns a parameter, HWIO; (Wx - mean)·scale/√(var + ε) + bias is a convolution with another kernel and bias."""
    if path[0].startswith("fc"):
        return state["fc.bias"] if path == ("fc_bias",) else state["fc.weight"].T
    prefix = ".".join(path[:-1])
    scale, bias, mean, var = (
        state[f"{prefix}.bn.{leaf}"].astype(np.float64) for leaf in ("weight", "bias", "running_mean", "running_var")
    )
    scale = scale / np.sqrt(var + _BATCH_NORM_EPSILON)
    kernel = state[f"{prefix}.conv.weight"]
    folded = kernel.transpose(2, 3, 1, 0) * scale if path[-1] == "kernel" else bias - mean * scale
    return folded.astype(kernel.dtype)
