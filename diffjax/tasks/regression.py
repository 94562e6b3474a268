"""Restoration by one network call: the baseline of diffusion models, and the predictor that deblurring refines."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from diffjax import losses, models
from diffjax.data.pixels import to_float
from diffjax.errors import UserError
from diffjax.schedules import NoiseSchedule
from diffjax.tasks.base import TASKS, Guidance, Loss, MakeNetwork, Objective, Sampling, Task, refuse
from diffjax.tasks.previews import restored


@TASKS.register(name="regression")
@dataclasses.dataclass(frozen=True)
class Regression(Task):
    """Regression by x̂ = y + network(y, t = 0): the network of the other tasks, without noise."""

    network: models.Network
    schedule: NoiseSchedule
    image_shape: tuple[int, int, int]
    objective: Objective = Objective()

    is_conditional: ClassVar[bool] = True
    samples: ClassVar[bool] = False

    @classmethod
    def from_config(
        cls, config: ml_collections.ConfigDict, schedule: NoiseSchedule, network: MakeNetwork
    ) -> "Regression":
        refuse(
            config,
            "regression",
            {
                "model.num_classes": None,
                "train.vlb_weight": 0.0,
                "train.offset_noise": 0.0,
                "train.label_dropout": 0.0,
                "train.loss_weighting": "simple",
                "train.target": "eps",
            },
        )
        shape = config.data.image_shape
        return cls(network(shape[-1]), schedule, shape, Objective.from_config(config.train, schedule))

    @property
    def takes_any_schedule(self) -> bool:
        return True

    def init(self, key: jax.Array) -> Any:
        """Returns fresh parameters, with which x̂ = y."""
        return models.init_params(self.network, self.image_shape, key)

    def loss(self, *, train: bool = True) -> Loss:
        """Returns the loss, the distance of x̂ from `batch["image"]`; it uses neither t nor noise."""

        def per_example(params, batch, t, keys, dropout_key):
            truth, y = to_float(batch["image"]), to_float(batch["condition"])
            guess = predict(self.network, params, y, train=train, rngs={"dropout": dropout_key})
            return losses.distance(guess, truth, **self.objective.distance)

        return per_example

    def predictor(
        self, params: Any, *, schedule: NoiseSchedule | None = None, guidance: Guidance | None = None, **condition: Any
    ):
        raise UserError("config.task.name: a regression has no noise level to denoise at: it restores in one call")

    def restore(self, params: Any, how: Sampling | None, condition: jax.Array, keys: jax.Array | None = None):
        """Returns x̂ `[B, H, W, C]`, of any size; deterministic, so `how` and `keys` are not used."""
        return evaluate(self.network, params, condition)

    def preview(self, params: Any, how: Sampling, examples: Mapping[str, np.ndarray]) -> np.ndarray:
        return restored(partial(self.restore, params, how), examples)


def predict(network: models.Network, params: Any, y: jax.Array, **options: Any) -> jax.Array:
    """Returns y + network(y), `[B, H, W, C]`."""
    return y + network.apply({"params": params}, y, jnp.zeros(len(y), jnp.int32), **options)


@partial(jax.jit, static_argnums=0)
def evaluate(network: models.Network, params: Any, y: jax.Array) -> jax.Array:
    """Returns y + network(y), `[B, H, W, C]`, by a compiled call."""
    return predict(network, params, y)
