"""A small classifier whose last hidden layer is the feature space for images like MNIST's; `train` trains it."""

import dataclasses
import hashlib
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from diffjax import state_dicts
from diffjax.errors import UserError
from diffjax.files import write
from diffjax.metrics.features.base import EXTRACTORS, Extractor


class ConvNet(nn.Module):
    """Three strided convolutions and two dense layers."""

    num_classes: int
    dim: int = 64

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns (features `[B, dim]`, logits `[B, num_classes]`) of images, uint8 `[B, H, W, C]`."""
        x = images.astype(jnp.float32) / 127.5 - 1.0
        for channels in (32, 64, 64):
            x = nn.gelu(nn.Conv(channels, (3, 3), strides=2)(x))
        features = nn.gelu(nn.Dense(self.dim)(x.reshape(len(x), -1)))
        return features, nn.Dense(self.num_classes)(features)


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained `ConvNet`, with the facts of its training."""

    params: Any
    image_shape: tuple[int, int, int]
    num_classes: int
    dim: int
    scale: float
    """The root mean square of its hidden layer over the training images. Features are divided by it, since the kernel
    of `kernel_distance` is meant for features near 1."""
    training: dict[str, Any]
    """The images and settings of its training, for the protocol."""

    def extractor(self, batch_size: int = 500) -> Extractor:
        """Returns an extractor of its features and logits; the protocol has the `sha256`, which identifies it."""
        params = jax.device_put(self.params)
        apply = jax.jit(partial(_apply, ConvNet(self.num_classes, self.dim)))

        def function(images):
            features, logits = apply(params, images)
            return features / self.scale, logits

        facts = {
            "extractor": f"classifier {self.sha256()[:12]}, {self.dim} features",
            "training": self.training,
            "resize": "none",
        }
        return Extractor(self.dim, facts, function, self.image_shape, batch_size, classes="labels")

    def sha256(self) -> str:
        """Returns the SHA-256 of the parameters and the scale, in hexadecimal."""
        flat = sorted(flatten_dict({**self.params, "scale": np.float64(self.scale)}, sep="/").items())
        return hashlib.sha256(b"".join(name.encode() + np.asarray(leaf).tobytes() for name, leaf in flat)).hexdigest()


def train(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    epochs: int = 4,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    dim: int = 64,
    seed: int = 0,
    trained_on: str = "images given",
) -> Classifier:
    """Trains a classifier with Adam, cosine decay and cross-entropy.

    The same arguments give the same parameters on the same machine.

    Args:
      images: uint8 `[N, H, W, C]`, N ≥ `batch_size`.
      labels: int `[N]` in 0 … classes - 1.
      epochs: the number of passes over the images, each in another order; an incomplete last batch is left out.
      batch_size: the number of images in a step.
      learning_rate: the learning rate of the first step.
      dim: the number of features.
      seed: the seed of the parameters and of the order.
      trained_on: a description of the images, for the protocol.

    Raises:
      ValueError: images or labels of another dtype or shape, or too few of them.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or labels.shape != images.shape[:1] or len(images) < batch_size:
        raise ValueError(
            f"images must be uint8 [N, H, W, C] and labels [N] with N ≥ batch_size={batch_size}, not "
            f"{images.dtype} {images.shape} and {labels.shape}"
        )
    num_classes = int(labels.max()) + 1
    net = ConvNet(num_classes, dim)
    per_epoch = len(images) // batch_size
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, epochs * per_epoch))
    params = net.init(jax.random.key(seed), jnp.asarray(images[:1]))["params"]
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, images, labels):
        def loss(params):
            _, logits = _apply(net, params, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    facts = {"trained_on": trained_on, "images": len(images), "epochs": epochs, "seed": seed}
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(images))[: per_epoch * batch_size].reshape(per_epoch, batch_size)
        for rows in order:
            params, state = step(params, state, images[rows], labels[rows])
    trained = Classifier(jax.tree.map(np.asarray, params), images.shape[1:], num_classes, dim, 1.0, facts)
    squares = trained.extractor()(images).features ** 2
    return dataclasses.replace(trained, scale=float(np.sqrt(squares.mean(dtype=np.float64))))


def accuracy(classifier: Classifier, images: np.ndarray, labels: np.ndarray) -> float:
    """Returns the share of images, uint8 `[N, H, W, C]`, whose most probable class is their label, int `[N]`."""
    return float((classifier.extractor()(images).logits.argmax(1) == labels).mean())


def save(path: str | os.PathLike, classifier: Classifier) -> None:
    """Writes the classifier to a safetensors file, with all but the parameters as JSON in its header."""
    facts = {name: getattr(classifier, name) for name in ("image_shape", "num_classes", "dim", "scale", "training")}
    content = state_dicts.to_safetensors(flatten_dict(classifier.params, sep="/"), {"classifier": json.dumps(facts)})
    write(path, content)


def load(path: str | os.PathLike) -> Classifier:
    """Returns the classifier in a file of `save`.

    Raises:
      UserError: a missing file, or another kind of file.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist")
    flat, metadata = state_dicts.read_safetensors(Path(path))
    if "classifier" not in metadata:
        raise UserError(f"{path} holds no classifier")
    try:
        facts = json.loads(metadata["classifier"])
        return Classifier(unflatten_dict(flat, sep="/"), **facts | {"image_shape": tuple(facts["image_shape"])})
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no classifier that can be read: {error}") from error


@EXTRACTORS.register(name=".safetensors")
def from_file(path: str | os.PathLike) -> Extractor:
    """Returns the extractor of the classifier in a file.

    Args:
      path: the file, written by `save`.
    """
    return load(path).extractor()


def _apply(net: ConvNet, params: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    return net.apply({"params": params}, images)
