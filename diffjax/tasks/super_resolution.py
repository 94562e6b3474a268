"""Super-resolution by iterative refinement (SR3; Saharia et al. 2021).

x_0 is the image; the condition is the low-resolution image, enlarged bicubically, concatenated to x_t.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import jax
import ml_collections
import numpy as np

from diffjax import models
from diffjax.data.pixels import to_float
from diffjax.errors import UserError
from diffjax.fields import Field
from diffjax.sampling import Predict
from diffjax.schedules import NoiseSchedule
from diffjax.tasks import noise_level
from diffjax.tasks.base import TASKS, Guidance, Loss, MakeNetwork, Objective, Sampling, Task, refuse
from diffjax.tasks.noise_level import NoiseLevel
from diffjax.tasks.previews import restored


@TASKS.register(name="super_resolution")
@dataclasses.dataclass(frozen=True)
class SuperResolution(Task):
    """Super-resolution by conditional diffusion of whole images, with a network conditioned on the noise level."""

    network: models.Network
    schedule: NoiseSchedule
    image_shape: tuple[int, int, int]
    level: NoiseLevel = NoiseLevel()
    objective: Objective = Objective()

    OPTIONS: ClassVar[Mapping[str, Field]] = noise_level.OPTIONS
    is_conditional: ClassVar[bool] = True
    enlarges: ClassVar[bool] = True

    @classmethod
    def from_config(
        cls, config: ml_collections.ConfigDict, schedule: NoiseSchedule, network: MakeNetwork
    ) -> "SuperResolution":
        refuse(config, "super_resolution", {"model.num_classes": None})
        level, shape = NoiseLevel.from_config(config), config.data.image_shape
        return cls(network(shape[-1]), schedule, shape, level, Objective.from_config(config.train, schedule))

    @property
    def takes_any_schedule(self) -> bool:
        return not self.level.is_timestep

    def init(self, key: jax.Array) -> Any:
        """Returns fresh parameters."""
        return models.init_params(self.network, self.image_shape, key, image_channels=self.image_shape[-1])

    def loss(self, *, train: bool = True) -> Loss:
        """Returns the loss `noise_level.denoising` of `batch["image"]` given `batch["condition"]`, uint8."""

        def per_example(params, batch, t, keys, dropout_key):
            x0, y = to_float(batch["image"]), to_float(batch["condition"])

            def predict(x, shown):
                rngs = {"dropout": dropout_key}
                return self.network.apply({"params": params}, x, shown, image=y, train=train, rngs=rngs)

            return noise_level.denoising(self.schedule, predict, x0, t, keys, self.level, self.objective)

        return per_example

    def predictor(
        self, params: Any, *, schedule: NoiseSchedule | None = None, guidance: Guidance | None = None, **condition: Any
    ) -> Predict:
        if condition.keys() != {"image"} or guidance is not None:
            raise UserError("config.task.name: super-resolution needs image=, the condition, and has no guidance")
        return noise_level.predictor(
            self.network, params, condition["image"], schedule or self.schedule, self.level, self.objective
        )

    def restore(self, params: Any, how: Sampling, condition: jax.Array, keys: jax.Array) -> jax.Array:
        """Samples an image for each condition, `[B, H, W, C]`."""
        predict = self.predictor(params, schedule=how.schedule, image=condition)
        return noise_level.sample(predict, how, condition, keys, clip=how.clip)

    def preview(self, params: Any, how: Sampling, examples: Mapping[str, np.ndarray]) -> np.ndarray:
        return restored(partial(self.restore, params, how), examples)
