"""The network that is measured: that of a config, with random weights at which every layer affects the output."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from diffjax import devices, models
from diffjax.runs import build, config_files, resolve
from diffjax.runs.run import Run
from diffjax.sampling import Predict
from diffjax.training import state
from diffjax.training.step import make_train_step, put_batches, replicate

MODELS = ("digits", "fashion_mnist", "cifar10")


class Subject(NamedTuple):
    """A config's network and batch."""

    config: ml_collections.ConfigDict
    run: Run
    batch: int

    @property
    def device(self) -> jax.Device:
        """One of the devices that it runs on."""
        return jax.devices()[0]

    @property
    def name(self) -> str:
        """The name of the network: its size."""
        count = sum(leaf.size for leaf in jax.tree.leaves(self.run.params))
        return f"{count / 1e6:.3g}M UNet"

    @property
    def x(self) -> jax.Array:
        """Noise `[B, H, W, C]`, split over the devices."""
        x = jax.random.normal(jax.random.key(0), (self.batch, *self.run.image_shape))
        return devices.split(x, self.batch)

    @property
    def t(self) -> jax.Array:
        """Timesteps `[B]`, split over the devices."""
        return devices.split(jnp.arange(self.batch, dtype=jnp.int32) * 7 % 1000, self.batch)

    @property
    def images(self) -> np.ndarray:
        """Random images, uint8 `[B, H, W, C]`."""
        return np.random.default_rng(0).integers(0, 256, (self.batch, *self.run.image_shape), np.uint8)

    def predict(self, dtype: Any = None) -> Predict:
        """Returns `predict(x, t)` of the network on all devices, in another dtype if one is given."""
        network = self.run.network if dtype is None else self.run.network.clone(dtype=dtype)
        return models.predictor(network, devices.replicate(self.run.params, self.batch))

    def optimizer(self) -> optax.GradientTransformation:
        """Returns the optimizer of the config."""
        return build.optimizer(self.config, self.run.task)[1]

    def training(self, steps_per_call: int = 1) -> tuple[Any, Any, Any]:
        """Returns (the training step, compiled when it is called; its state; its batches on the devices)."""
        step = make_train_step(
            self.run.task.loss(),
            self.optimizer(),
            schedule=self.run.schedule,
            batch_size=self.batch,
            devices=jax.devices(),
            steps_per_call=steps_per_call,
        )
        create = partial(
            state.create,
            lambda key: self.run.params,
            self.optimizer(),
            ema_decays=tuple(self.config.train.ema_decays)[:1],
        )
        batches = put_batches([{"image": self.images}] * steps_per_call, jax.devices())
        return step, replicate(jax.jit(create)(jax.random.key(0)), jax.devices()), batches


def load(name: str, batch: int | None, dtype: str) -> Subject:
    """Returns the network of `configs/{name}.py` at a batch size (None: the config's; 8 for cifar10 on a CPU)."""
    changes: dict[str, Any] = {"model.dtype": dtype}
    if batch or (name == "cifar10" and jax.default_backend() == "cpu"):
        changes["train.batch_size"] = batch or 8
    config = resolve.override(config_files.load(name), changes)
    task = build.task(config)
    run = Run(config=config, task=task, params=_weights(build.params_shape(task)))
    return Subject(config, run, config.train.batch_size)


def _weights(shapes: Any) -> Any:
    """Returns kernels ~ N(0, 1/fan-in), scales 1, biases 0; the output of initial parameters would be almost 0."""

    def draw(path, leaf):
        kind = path[-1].key
        if kind != "kernel":
            return jnp.full(leaf.shape, float(kind == "scale"), leaf.dtype)
        key = jax.random.key(hash_of(path))
        return jax.random.normal(key, leaf.shape, leaf.dtype) / math.sqrt(math.prod(leaf.shape[:-1]))

    def hash_of(path):
        return sum(n * ord(letter) for n, letter in enumerate(jax.tree_util.keystr(path), 1))

    return jax.tree_util.tree_map_with_path(draw, shapes)
