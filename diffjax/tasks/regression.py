"""Restoration by one call of a UNet: what diffusion is compared with, and the predictor that it refines."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from diffjax import losses
from diffjax.models import UNet
from diffjax.schedules import NoiseSchedule
from diffjax.tasks import conditional
from diffjax.tasks.generation import normalize


@dataclasses.dataclass(frozen=True)
class Regression:
    """x̂ = y + UNet(y): the network of the other tasks, which has no noise to look at; t is always 0."""

    model: UNet

    def init(self, image_shape: tuple[int, int, int], key: jax.Array) -> Any:
        """Fresh parameters; at first x̂ = y."""
        return conditional.init(self.model, image_shape, key, beside=False)

    def loss(self, schedule: NoiseSchedule | None = None, *, train: bool = True, norm: str = "l2", delta: float = 1.0):
        """The distance of x̂ from `batch["image"]`, for `training.step`; t and the keys mean nothing to it."""

        def per_example(params, batch, t, keys, dropout_key):
            truth, y = normalize(batch["image"]), normalize(batch["condition"])
            restored = predict(self.model, params, y, train=train, rngs={"dropout": dropout_key})
            return losses.distance(restored, truth, norm=norm, delta=delta)

        return per_example

    def restore(self, params: Any, how: conditional.Sampling | None, condition: jax.Array, keys=None) -> jax.Array:
        """x̂ `[B, H, W, C]` of any size, without chance: `how` and `keys` mean nothing to it."""
        return evaluate(self.model, params, condition)


def predict(model: UNet, params: Any, y: jax.Array, **options: Any) -> jax.Array:
    """y + UNet(y), `[B, H, W, C]`."""
    return y + model.apply({"params": params}, y, jnp.zeros(len(y), jnp.int32), **options)


@partial(jax.jit, static_argnums=0)
def evaluate(model: UNet, params: Any, y: jax.Array) -> jax.Array:
    """`predict`, compiled."""
    return predict(model, params, y)
