"""Super-resolution by iterative refinement (SR3; Saharia et al. 2021): x_0 is the image, the condition a blurry one.

The condition is the low-resolution image, enlarged bicubically, beside x_t as further channels.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import viz
from diffjax.data import degradations
from diffjax.models import UNet
from diffjax.schedules import NoiseSchedule
from diffjax.tasks import conditional
from diffjax.tasks.conditional import Level, Restore, Sampling
from diffjax.tasks.generation import CLIP, normalize


@dataclasses.dataclass(frozen=True)
class SuperResolution:
    """Conditional diffusion of whole images; the network is told the noise level."""

    model: UNet
    level: Level

    def init(self, image_shape: tuple[int, int, int], key: jax.Array) -> Any:
        """Fresh parameters."""
        return conditional.init(self.model, image_shape, key, beside=True)

    def loss(self, schedule: NoiseSchedule, *, train: bool = True, **objective: Any):
        """`conditional.denoising` of `batch["image"]`, for `training.step`."""

        def per_example(params, batch, t, keys, dropout_key):
            x0, y = normalize(batch["image"]), normalize(batch["condition"])

            def ask(x, told):
                rngs = {"dropout": dropout_key}
                return self.model.apply({"params": params}, x, told, image=y, train=train, rngs=rngs)

            return conditional.denoising(schedule, ask, x0, t, keys, self.level, **objective)

        return per_example

    def restore(self, params: Any, how: Sampling, condition: jax.Array, keys: jax.Array) -> jax.Array:
        """A sample for each condition, `[B, H, W, C]`."""
        predict = conditional.predictor(self.model, params, condition, how, self.level)
        return conditional.draw(predict, how, condition, keys, clip=CLIP)


def cascade(stages: Sequence[tuple[Restore, tuple[int, int]]], low: np.ndarray, keys: jax.Array) -> list[np.ndarray]:
    """What each stage makes of the one before: uint8 `[B, H, W, C]` each (SR3, §4.4).

    Args:
      stages: (restore, (height, width) of what it makes), smallest first.
      low: uint8 `[B, h, w, C]`, what the first stage is given; each stage's is enlarged bicubically.
      keys: `[B]`; stage n draws from their n-th children.
    """
    made = []
    for n, (restore, size) in enumerate(stages):
        enlarged = np.stack([degradations.upsample(image, size) for image in low])
        x = restore(normalize(jnp.asarray(enlarged)), jax.vmap(jax.random.fold_in, (0, None))(keys, n))
        low = viz.to_uint8(x)
        made.append(low)
    return made
