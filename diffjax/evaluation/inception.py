"""FID's Inception-v3: the network of TensorFlow's `inception-2015-12-05`, whose pool features every FID is made of.

It differs from the Inception of model zoos (Szegedy et al. 2016): averages leave out the padding, the last block takes
a maximum where the others average, there are 1008 classes, and its weights are its own.

The weights are the user's to bring (`SOURCE`). They could not be had where this was written: the network is tested
against the same architecture in PyTorch with random weights in a file of that layout, never with the real ones.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from diffjax.evaluation import weights
from diffjax.evaluation.features import Extractor
from diffjax.evaluation.resize import RESIZES

SOURCE = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIZE_IN_BYTES = 95_628_359
TAPS = ("64", "192", "768", "2048")
SIZE = 299
_BATCH_NORM_EPSILON = 1e-3


class Inception(nn.Module):
    """`[B, H, W, 3]` in [-1, 1] → `{"64", "192", "768", "2048", "logits_unbiased", "logits"}`, each `[B, …]`.

    The taps are spatial means after the two first max pools, before what was the auxiliary classifier, and at the end.
    `logits_unbiased` leave out the last layer's bias, as TensorFlow's Inception score does. H and W are 299 for every
    published figure, and at least 75. Batch normalisation is in the convolutions (`load`).
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        """The six by name."""
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
    """Convolution and ReLU, in full float32 on every device. A stride goes without padding."""
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
    """Branches of 1×1, 5×5, two 3×3, and a mean (35×35)."""

    pooled: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        single = _conv(x, 64, 1, "branch1x1")
        five = _conv(_conv(x, 48, 1, "branch5x5_1"), 64, 5, "branch5x5_2")
        double = _conv(_conv(x, 64, 1, "branch3x3dbl_1"), 96, 3, "branch3x3dbl_2")
        double = _conv(double, 96, 3, "branch3x3dbl_3")
        return _join(single, five, double, _conv(_mean(x), self.pooled, 1, "branch_pool"))


class _B(nn.Module):
    """To half the size (35 → 17)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = _conv(x, 384, 3, "branch3x3", stride=2)
        double = _conv(_conv(x, 64, 1, "branch3x3dbl_1"), 96, 3, "branch3x3dbl_2")
        return _join(three, _conv(double, 96, 3, "branch3x3dbl_3", stride=2), _halve(x))


class _C(nn.Module):
    """Branches of 1×1, 7×7 and two 7×7, each as 1×7 and 7×1, and a mean (17×17)."""

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
    """To half the size (17 → 8)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = _conv(_conv(x, 192, 1, "branch3x3_1"), 320, 3, "branch3x3_2", stride=2)
        seven = _conv(_conv(x, 192, 1, "branch7x7x3_1"), 192, (1, 7), "branch7x7x3_2")
        seven = _conv(_conv(seven, 192, (7, 1), "branch7x7x3_3"), 192, 3, "branch7x7x3_4", stride=2)
        return _join(three, seven, _halve(x))


class _E(nn.Module):
    """Branches of 1×1, 3×3 and two 3×3 whose last are 1×3 beside 3×1, and what `pool` gives (8×8)."""

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
    """Features of a tap, and `logits_unbiased`, by the weights in a file.

    Args:
      path: the file from `SOURCE`.
      tap: one of `TAPS`; published FIDs are of "2048".
      resize: "torch-fidelity" or "pytorch-fid": how images come to 299×299 and [-1, 1]. Grey ones are first made three
        equal channels.
      batch_size: images at a time; 50 take about 3 GB.
      check_hash: False takes weights that are not the standard ones.

    Raises:
      ValueError: another tap or resize.
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
            raise ValueError(f"Inception takes images of 1 or 3 channels; these have {images.shape[-1]}")
        return apply(params, images)

    facts = {
        "extractor": f"FID Inception-v3 (2015-12-05), tap {tap}",
        "weights": "standard" if check_hash else weights.sha256(path),
        "resize": f"{resize}, bilinear to {SIZE}",
    }
    return Extractor(int(tap), facts, function, batch_size=batch_size, classes="ImageNet")


def load(path: Path, *, check_hash: bool = True) -> dict[str, Any]:
    """The parameters of `Inception` in the PyTorch file from `SOURCE`.

    Raises:
      UserError: no such file (says where to get it), another file than the standard one, or tensors that are missing,
        left over or of the wrong shape, by name.
    """
    published = weights.Published("FID's Inception", SOURCE, SIZE_IN_BYTES, SHA256)
    return from_state(weights.read(path, published, check_hash=check_hash), str(path))


def from_state(state: dict[str, np.ndarray], what: str) -> dict[str, Any]:
    """The parameters in a state dict, in its dtype: each batch normalisation is folded into its convolution.

    Args:
      state: PyTorch's.
      what: names it in errors.

    Raises:
      UserError: every tensor that is missing, left over or of the wrong shape, by name.
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
    """The tensors that a parameter is made of, and their shapes in PyTorch."""
    if path[0].startswith("fc"):
        return {"fc.bias": shape} if path == ("fc_bias",) else {"fc.weight": shape[::-1]}
    prefix, channels = ".".join(path[:-1]), shape[-1:]
    norm = {f"{prefix}.bn.{leaf}": channels for leaf in ("weight", "bias", "running_mean", "running_var")}
    return norm | ({f"{prefix}.conv.weight": (shape[3], shape[2], *shape[:2])} if path[-1] == "kernel" else {})


def _param(path: tuple[str, ...], state: dict[str, np.ndarray]) -> np.ndarray:
    """OIHW → HWIO; (Wx - mean)·scale/√(var + ε) + bias is a convolution with another kernel and a bias."""
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
