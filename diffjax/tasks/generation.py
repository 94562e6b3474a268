"""Generation of images from noise, optionally conditioned on a class; x_0 is the image in [-1, 1]."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from diffjax import devices, guidance, losses, models, parameterization, sampling, viz
from diffjax.data.pixels import to_float, to_uint8
from diffjax.errors import UserError
from diffjax.fields import Field
from diffjax.models import NO_LABEL
from diffjax.noise import initial_noise, sample_keys
from diffjax.sampling import Predict
from diffjax.schedules import NoiseSchedule
from diffjax.tasks.base import TASKS, Guidance, Loss, MakeNetwork, Objective, Sampling, Task
from diffjax.tasks.previews import grid, grid_size

NOISE_CONDITIONINGS = ("t", "flow", "edm")

_FRAMES = 12
"""The approximate number of frames of the denoising strip."""


@TASKS.register(name="generation")
@dataclasses.dataclass(frozen=True)
class Generation(Task):
    """Unconditional or class-conditional generation (DDPM; Ho et al. 2020)."""

    network: models.Network
    schedule: NoiseSchedule
    image_shape: tuple[int, int, int]
    objective: Objective = Objective()
    timestep_scale: float = 1.0
    noise_conditioning: str = "t"
    variance: str | None = None
    """The variance that the network also predicts: "learned_range", "learned" or None."""
    condition_channels: int = 0
    """The channels of the condition image that `predictor` takes, as imported upsamplers do; 0: none."""
    label_size: int = 0
    """The size of the vectors that `predictor` takes as labels, as some imported networks do; 0: none."""
    converts_in_loop: bool = False
    """Whether `predictor` leaves the conversion of v̂ and x̂0 to the sampling loop (`at_level`)."""

    OPTIONS: ClassVar[Mapping[str, Field]] = {
        "timestep_scale": Field(
            float,
            1.0,
            "The factor of t before it is embedded; OpenAI's code uses 1000/T.",
            above=0.0,
            high=1e6,
        ),
        "noise_conditioning": Field(
            str,
            "t",
            "The network's second input: the timestep (t), or, as imported networks take them, the time σ̄/(1+σ̄) of the "
            "linear path (flow) or ¼·log σ̄ (edm).",
            choices=NOISE_CONDITIONINGS,
        ),
    }

    @classmethod
    def from_config(
        cls, config: ml_collections.ConfigDict, schedule: NoiseSchedule, network: MakeNetwork
    ) -> "Generation":
        objective, shape = Objective.from_config(config.train, schedule), config.data.image_shape
        learned = objective.vlb_weight > 0.0
        made = network(shape[-1] * (2 if learned else 1))
        if objective.label_dropout and models.num_classes(made) is None:
            raise UserError(
                f"config.train.label_dropout: {objective.label_dropout} needs a network with classes "
                "(config.model.num_classes is None)"
            )
        return cls(
            network=made,
            schedule=schedule,
            image_shape=shape,
            objective=objective,
            timestep_scale=config.task.timestep_scale,
            noise_conditioning=config.task.noise_conditioning,
            variance="learned_range" if learned else None,
        )

    def init(self, key: jax.Array) -> Any:
        """Returns fresh parameters."""
        return models.init_params(
            self.network,
            self.image_shape,
            key,
            image_channels=self.condition_channels,
            label_size=self.label_size,
        )

    def loss(self, *, train: bool = True) -> Loss:
        """Returns the denoising loss of `batch["image"]`, uint8 `[B, H, W, C]`, with ε ~ N(0, I) by each example's key.

        A class-conditional network is conditioned on `batch["label"]`, int `[B]`, which becomes `NO_LABEL` with the
        probability `label_dropout` (Ho & Salimans 2022, Alg. 1). `train=False` turns label dropout off too.
        """
        objective = self.objective

        def per_example(params, batch, t, keys, dropout_key):
            x0, noise, condition = self._example(batch, keys, train=train)
            return losses.denoising(
                self.schedule,
                self._network(params, condition, dropout_key, train=train),
                x0,
                t,
                noise,
                target=objective.target,
                weights=objective.weights,
                vlb_weight=objective.vlb_weight,
                sigma_data=objective.sigma_data,
                **objective.distance,
            )

        return per_example

    def _example(
        self, batch: Mapping[str, jax.Array], keys: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """Returns (x_0 `[B, H, W, C]`, ε, the condition) of a batch; ε and dropped labels are by each example's key."""
        objective, x0 = self.objective, to_float(batch["image"])
        noise = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:]))(keys)
        if objective.offset_noise:
            offset_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, 0)
            noise += losses.offset_noise(offset_keys, x0.shape[1:], objective.offset_noise)
        condition = {} if self.num_classes is None else {"label": batch["label"]}
        if condition and objective.label_dropout and train:
            drop = partial(jax.random.bernoulli, p=objective.label_dropout)
            dropped = jax.vmap(lambda key: drop(jax.random.fold_in(key, 1)))(keys)
            condition["label"] = jnp.where(dropped, NO_LABEL, condition["label"])
        return x0, noise, condition

    def _network(
        self, params: Any, condition: Mapping[str, jax.Array], dropout_key: jax.Array, *, train: bool
    ) -> Callable[[jax.Array, jax.Array], jax.Array]:
        """Returns the network as a function of (x, t), with dropout if `train`."""

        def call(x, t):
            rngs = {"dropout": dropout_key}
            return self.network.apply({"params": params}, x, t, **condition, train=train, rngs=rngs)

        return self._wrapped(call)

    def predictor(
        self, params: Any, *, schedule: NoiseSchedule | None = None, guidance: Guidance | None = None, **condition: Any
    ) -> Predict:
        """Returns `predict(x, t)`, which gives ε̂ or a `Prediction`; with `guidance`, it combines two network calls.

        Raises:
          UserError: a schedule other than that of training; guidance of a network that was not trained for it; no
            condition image, or no vector, for a network that takes one.
        """
        if self.label_size and "label" not in condition:
            raise UserError(
                f"this network takes a vector of {self.label_size} numbers for each image: sample it with "
                "dj.sample(run.sampler, run.predictor(label=…), …)"
            )
        if self.condition_channels and "image" not in condition:
            raise UserError(
                f"this network takes a condition image of {self.condition_channels} channels: sample it with "
                "dj.sample(run.sampler, run.predictor(image=…), …)"
            )
        if schedule not in (None, self.schedule):
            raise UserError(
                "config.sample.schedule: a network conditioned on t must be sampled on its training schedule"
            )
        if guidance is None:
            predict = self._wrapped(models.predictor(self.network, params, **condition))
        else:
            self._check_guidance(guidance)
            predict = self._guided(params, guidance, condition["label"])
        target = self.objective.target
        if self.converts_in_loop and self.variance is None and target in ("v", "x0"):
            return parameterization.from_v(predict) if target == "v" else parameterization.from_x0(predict)
        return parameterization.from_target(
            predict,
            self.schedule,
            target,
            variance=self.variance,
            sigma_data=self.objective.sigma_data,
        )

    def at_level(self) -> "Generation":
        """Returns the task whose v̂ and x̂0 are converted at the level of x, not at the time of the network call."""
        return dataclasses.replace(self, converts_in_loop=True)

    def preview(self, params: Any, how: Sampling, examples: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns a grid of the samples 0, 1, … of seed 0."""
        return grid(to_uint8(self._trajectory(params, how, every=how.sampler.num_steps).x[-1]), self.num_classes)

    @property
    def picture_names(self) -> tuple[str, ...]:
        """The names of `pictures`."""
        return ("samples", "denoising")

    def pictures(self, params: Any, how: Sampling, examples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the same grid, and a strip of x_t and x̂0 along three of its trajectories."""
        frames = self._trajectory(params, how, every=-(-how.sampler.num_steps // _FRAMES))
        strip = viz.denoising_strip(frames.t, np.asarray(frames.x[:, :3]), np.asarray(frames.x0[:, :3]))
        return {"samples": grid(to_uint8(frames.x[-1]), self.num_classes), "denoising": strip}

    def _trajectory(self, params: Any, how: Sampling, *, every: int) -> sampling.Trajectory:
        count = grid_size(self.num_classes)
        condition = self.labels(np.arange(count))
        predict = self.predictor(params, guidance=how.guidance, **condition)
        predict = devices.replicate(sampling.as_pytree(predict), count)
        keys = devices.split(sample_keys(seed=0, start=0, count=count), count)
        noise = initial_noise(keys, self.image_shape)
        keys = keys if how.sampler.is_stochastic else None
        return sampling.sample_trajectory(
            how.sampler, predict, noise, keys, every=every, clip=how.clip, progress=how.progress
        )

    def _wrapped(self, predict: Predict) -> Predict:
        """Returns `predict(x, t)` of a network whose second input is made from t."""
        if self.timestep_scale != 1.0:
            predict = parameterization.scale_timesteps(predict, self.timestep_scale)
        if self.noise_conditioning != "t":
            predict = parameterization.with_noise_level(predict, self.schedule, self.noise_conditioning)
        return predict

    def _guided(self, params: Any, how: Guidance, label: jax.Array) -> Predict:
        pairs = guidance.both(label, NO_LABEL)
        predict = self._wrapped(models.predictor(self.network, params, label=pairs))
        return guidance.classifier_free(
            predict, self.schedule, how.scale, interval=how.interval, rescale=how.rescale
        )  # fmt: skip

    def _check_guidance(self, how: Guidance) -> None:
        if self.num_classes is None:
            raise UserError(
                f"config.sample.guidance_scale: {how.scale} needs a network with classes (config.model.num_classes is "
                "None)"
            )
        if not self.objective.label_dropout:
            raise UserError(
                f"config.sample.guidance_scale: {how.scale} needs a network that was trained with label dropout "
                "(config.train.label_dropout is 0)"
            )
