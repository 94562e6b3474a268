"""Deblurring by stochastic refinement (Whang et al. 2022): a predictor g(y), and diffusion of what it leaves, x - g(y).

Both are trained together by the denoiser's loss alone: x_0 = x - g(y) is noised and denoised, and the gradient goes on
through it into g. The denoiser is conditioned on y itself. Trained on patches, used on whole images: the networks must
know no place, so neither may attend by height.
"""

import dataclasses
from typing import Any

import jax

from diffjax.models import UNet
from diffjax.schedules import NoiseSchedule
from diffjax.tasks import conditional, regression
from diffjax.tasks.conditional import Level, Sampling
from diffjax.tasks.generation import normalize

CLIP = 2.0
"""The range of a residual, which x̂_0 is clipped to."""


@dataclasses.dataclass(frozen=True)
class Deblurring:
    """Parameters `{"predictor", "denoiser"}`; x̂ = g(y) + z with z a sample of the residual."""

    predictor: UNet
    """g(y) = y + UNet(y), as `regression` has it; before any training g(y) = y."""
    denoiser: UNet
    level: Level
    frozen: bool = False
    """Whether the predictor stays as it is."""

    def init(self, image_shape: tuple[int, int, int], key: jax.Array, *, predictor: Any = None) -> Any:
        """Fresh parameters of both, or of the denoiser beside those of a `predictor` that has been trained."""
        predictor_key, denoiser_key = jax.random.split(key)
        if predictor is None:
            predictor = conditional.init(self.predictor, image_shape, predictor_key, beside=False)
        return {
            "predictor": predictor,
            "denoiser": conditional.init(self.denoiser, image_shape, denoiser_key, beside=True),
        }

    def loss(self, schedule: NoiseSchedule, *, train: bool = True, **objective: Any):
        """`conditional.denoising` of the residual, for `training.step`."""

        def per_example(params, batch, t, keys, dropout_key):
            x, y = normalize(batch["image"]), normalize(batch["condition"])
            predictor_key, denoiser_key = jax.random.split(dropout_key)
            guess = regression.predict(
                self.predictor, params["predictor"], y, train=train and not self.frozen, rngs={"dropout": predictor_key}
            )
            residual = x - (jax.lax.stop_gradient(guess) if self.frozen else guess)

            def ask(x, told):
                rngs = {"dropout": denoiser_key}
                return self.denoiser.apply({"params": params["denoiser"]}, x, told, image=y, train=train, rngs=rngs)

            return conditional.denoising(schedule, ask, residual, t, keys, self.level, **objective)

        return per_example

    def predict(self, params: Any, condition: jax.Array) -> jax.Array:
        """g(y) alone, `[B, H, W, C]`."""
        return regression.evaluate(self.predictor, params["predictor"], condition)

    def restore(self, params: Any, how: Sampling, condition: jax.Array, keys: jax.Array) -> jax.Array:
        """g(y) and a sample of the residual, `[B, H, W, C]`."""
        predict = conditional.predictor(self.denoiser, params["denoiser"], condition, how, self.level)
        return self.predict(params, condition) + conditional.draw(predict, how, condition, keys, clip=CLIP)
