"""Deblurring by stochastic refinement (Whang et al. 2022): a predictor g(y), and diffusion of the residual x - g(y).

Both are trained together by the denoiser's loss alone: x_0 = x - g(y) is noised and denoised, and the gradient flows
through x_0 into g. The denoiser is conditioned on y itself. Networks are trained on patches and used on whole images,
so neither may depend on the image's size: attention is set by level.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import jax
import ml_collections
import numpy as np
import optax

from diffjax import models
from diffjax.data.pixels import to_float
from diffjax.errors import UserError
from diffjax.fields import Field
from diffjax.sampling import Predict
from diffjax.schedules import NoiseSchedule
from diffjax.tasks import noise_level, regression
from diffjax.tasks.base import (
    TASKS,
    Guidance,
    InitialPart,
    Loss,
    MakeNetwork,
    Objective,
    Restore,
    Sampling,
    Task,
    refuse,
)
from diffjax.tasks.noise_level import NoiseLevel
from diffjax.tasks.previews import restored


@TASKS.register(name="deblurring")
@dataclasses.dataclass(frozen=True)
class Deblurring(Task):
    """Deblurring by x̂ = g(y) + z, with z a sample of the residual; the parameters are `{"predictor", "denoiser"}`."""

    network: models.Network
    """The denoiser."""
    schedule: NoiseSchedule
    image_shape: tuple[int, int, int]
    predictor_network: models.Network
    """g(y) = y + network(y), as in `regression`; untrained, g(y) = y."""
    level: NoiseLevel = NoiseLevel()
    objective: Objective = Objective()
    frozen: bool = False
    predictor_workdir: str | None = None

    OPTIONS: ClassVar[Mapping[str, Field]] = noise_level.OPTIONS | {
        "predictor_channels": Field(
            int | None, None, "The predictor's base_channels; None: those of the denoiser.", low=1, high=65536
        ),
        "predictor_workdir": Field(
            str | None, None, "The workdir of a regression run whose first EMA initialises the predictor, or None."
        ),
        "frozen": Field(bool, False, "Whether the predictor keeps its initial parameters."),
    }
    is_conditional: ClassVar[bool] = True
    clip: ClassVar[float] = 2.0

    @classmethod
    def from_config(
        cls, config: ml_collections.ConfigDict, schedule: NoiseSchedule, network: MakeNetwork
    ) -> "Deblurring":
        refuse(config, "deblurring", {"model.num_classes": None})
        level, shape, options = NoiseLevel.from_config(config), config.data.image_shape, config.task
        denoiser = network(shape[-1])
        if attended := getattr(denoiser, "attention_resolutions", ()):
            raise UserError(
                f"config.model.attention_resolutions: {attended} must be () for the task deblurring, whose images may "
                "be of any size (use attention_levels)"
            )
        if options.frozen and not options.predictor_workdir:
            raise UserError(
                "config.task.frozen: True needs config.task.predictor_workdir: an untrained predictor returns its input"
            )
        change = {"base_channels": options.predictor_channels} if options.predictor_channels else {}
        return cls(
            network=denoiser,
            schedule=schedule,
            image_shape=shape,
            predictor_network=network(shape[-1], **change),
            level=level,
            objective=Objective.from_config(config.train, schedule),
            frozen=options.frozen,
            predictor_workdir=options.predictor_workdir,
        )

    @property
    def takes_any_schedule(self) -> bool:
        return not self.level.is_timestep

    @property
    def initial_parts(self) -> dict[str, InitialPart]:
        if not self.predictor_workdir:
            return {}
        field = "config.task.predictor_workdir"
        part = InitialPart(field, self.predictor_workdir, regression.Regression, self.predictor_network)
        return {"predictor": part}

    def init(self, key: jax.Array, *, predictor: Any = None) -> Any:
        """Returns fresh parameters of both networks, or of the denoiser only, beside those of a trained `predictor`."""
        predictor_key, denoiser_key = jax.random.split(key)
        if predictor is None:
            predictor = models.init_params(self.predictor_network, self.image_shape, predictor_key)
        channels = self.image_shape[-1]
        denoiser = models.init_params(self.network, self.image_shape, denoiser_key, image_channels=channels)
        return {"predictor": predictor, "denoiser": denoiser}

    def loss(self, *, train: bool = True) -> Loss:
        """Returns the loss `noise_level.denoising` of the residual."""

        def per_example(params, batch, t, keys, dropout_key):
            x, y = to_float(batch["image"]), to_float(batch["condition"])
            predictor_key, denoiser_key = jax.random.split(dropout_key)
            guess = regression.predict(
                self.predictor_network,
                params["predictor"],
                y,
                train=train and not self.frozen,
                rngs={"dropout": predictor_key},
            )
            residual = x - (jax.lax.stop_gradient(guess) if self.frozen else guess)

            def predict(x, shown):
                rngs = {"dropout": denoiser_key}
                return self.network.apply({"params": params["denoiser"]}, x, shown, image=y, train=train, rngs=rngs)

            return noise_level.denoising(self.schedule, predict, residual, t, keys, self.level, self.objective)

        return per_example

    def wrap_optimizer(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
        """Returns `optimizer`, with no effect on a frozen predictor, not even by weight decay."""
        if not self.frozen:
            return optimizer
        parts = {"denoiser": optimizer, "predictor": optax.set_to_zero()}
        return optax.partition(parts, {name: name for name in parts})

    def predictor(
        self, params: Any, *, schedule: NoiseSchedule | None = None, guidance: Guidance | None = None, **condition: Any
    ) -> Predict:
        """Returns `predict(x, t)` of the denoiser, for the residual."""
        if condition.keys() != {"image"} or guidance is not None:
            raise UserError("config.task.name: deblurring needs image=, the condition, and has no guidance")
        return noise_level.predictor(
            self.network,
            params["denoiser"],
            condition["image"],
            schedule or self.schedule,
            self.level,
            self.objective,
        )

    def predict(self, params: Any, condition: jax.Array) -> jax.Array:
        """Returns g(y) alone, `[B, H, W, C]`."""
        return regression.evaluate(self.predictor_network, params["predictor"], condition)

    def restore(self, params: Any, how: Sampling, condition: jax.Array, keys: jax.Array) -> jax.Array:
        """Returns g(y) plus a sample of the residual, `[B, H, W, C]`."""
        predict = self.predictor(params, schedule=how.schedule, image=condition)
        residual = noise_level.sample(predict, how, condition, keys, clip=how.clip)
        return self.predict(params, condition) + residual

    def baselines(self, params: Any) -> dict[str, Restore]:
        """Returns the predictor g alone, without the residual."""
        return {"predictor": lambda condition, keys: self.predict(params, condition)}

    def preview(self, params: Any, how: Sampling, examples: Mapping[str, np.ndarray]) -> np.ndarray:
        return restored(partial(self.restore, params, how), examples)
