"""The loss and sampling of networks conditioned on a noise level √γ or γ, not on t (SR3; Saharia et al. 2021, §2.4)."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from diffjax import losses, models, parameterization, process, sampling
from diffjax.fields import Field
from diffjax.noise import initial_noise
from diffjax.sampling import Clip, Predict
from diffjax.schedules import NoiseSchedule
from diffjax.tasks.base import Objective, Sampling, refuse

CONDITIONINGS = ("t", "sqrt_alpha_bar", "alpha_bar")
SAMPLINGS = ("sqrt_alpha_bar", "alpha_bar")

OPTIONS = {
    "noise_conditioning": Field(
        str,
        "sqrt_alpha_bar",
        "The network's second input: the noise level √γ (sqrt_alpha_bar) or γ (alpha_bar), which allow sampling on any "
        "schedule, or the timestep (t).",
        choices=CONDITIONINGS,
    ),
    "noise_level_sampling": Field(
        str,
        "sqrt_alpha_bar",
        "The quantity that is sampled uniformly between the levels of t and t-1 in training: √γ (Janspiry's code) or γ "
        "(SR3, §2.4).",
        choices=SAMPLINGS,
    ),
    "noise_level_scale": Field(
        float,
        1000.0,
        "The factor of a noise level before it is embedded, so that the embedding resolves it (1 in Janspiry's code).",
        above=0.0,
        high=1e6,
    ),
}
"""The fields of `config.task` that describe a `NoiseLevel`."""


class NoiseLevel(NamedTuple):
    """How a network is conditioned on the noise; the fields are those of `OPTIONS`."""

    conditioning: str = "sqrt_alpha_bar"
    sampling: str = "sqrt_alpha_bar"
    scale: float = 1000.0

    @classmethod
    def from_config(cls, config: ml_collections.ConfigDict) -> "NoiseLevel":
        """Returns the conditioning that `config.task` describes, and checks that its loss supports `config.train`.

        Raises:
          UserError: a value in `config.train` that needs a network conditioned on t.
        """
        options = config.task
        refuse(config, options.name, {"train.vlb_weight": 0.0, "train.offset_noise": 0.0, "train.label_dropout": 0.0})
        if options.noise_conditioning != "t":
            name = f"{options.name}, unless config.task.noise_conditioning is 't'"
            refuse(config, name, {"train.loss_weighting": "simple", "train.target": "eps"})
        return cls(options.noise_conditioning, options.noise_level_sampling, options.noise_level_scale)

    @property
    def is_timestep(self) -> bool:
        """Whether the network is conditioned on t, and so on the schedule it was trained with."""
        return self.conditioning == "t"


def noise_level(
    schedule: NoiseSchedule, t: jax.Array, u: jax.Array, like: jax.Array, *, uniform_in: str = "sqrt_alpha_bar"
) -> tuple[jax.Array, jax.Array]:
    """Returns √γ and √(1-γ) between the levels of t and t-1, at fraction u ~ U[0, 1), to broadcast against `like`.

        sqrt_alpha_bar: √γ = √ᾱ_t + u·(√ᾱ_{t-1} - √ᾱ_t);     alpha_bar: γ = ᾱ_t + u·(ᾱ_{t-1} - ᾱ_t);     ᾱ_{-1} = 1

    (SR3, §2.4: p(γ) = Σ_t 1/T·U(γ_{t-1}, γ_t).) The distance from 1 is interpolated, so that 1-γ is exact.

    Raises:
      ValueError: an unknown `uniform_in`.
    """
    distances = {"sqrt_alpha_bar": 1.0 - schedule.sqrt_alpha_bars, "alpha_bar": 1.0 - schedule.alpha_bars}
    if uniform_in not in distances:
        raise ValueError(f"uniform_in={uniform_in!r} is not one of {', '.join(map(repr, SAMPLINGS))}")
    here, before = (process.lookup(distances[uniform_in], n, like, clean=0.0) for n in (t, t - 1))
    distance = here + u.reshape(here.shape) * (before - here)
    if uniform_in == "alpha_bar":
        return jnp.sqrt(1.0 - distance), jnp.sqrt(distance)
    return 1.0 - distance, jnp.sqrt(distance * (2.0 - distance))


def denoising(
    schedule: NoiseSchedule,
    network: Callable[[jax.Array, jax.Array], jax.Array],
    x0: jax.Array,
    t: jax.Array,
    keys: jax.Array,
    level: NoiseLevel,
    objective: Objective,
) -> jax.Array:
    """Returns the loss of each example, `[B]`, with its noise and noise level sampled from its own key.

    Args:
      schedule: the noise schedule.
      network: (x, t or the noise level) → the prediction.
      x0: `[B, …]`.
      t: `int[B]`.
      keys: `[B]`.
      level: how the network is conditioned on the noise.
      objective: the training objective; for a network conditioned on the noise level, the target is ε, unweighted.
    """
    noise = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:], x0.dtype))(keys)
    if level.is_timestep:
        return losses.denoising(
            schedule,
            network,
            x0,
            t,
            noise,
            target=objective.target,
            weights=objective.weights,
            sigma_data=objective.sigma_data,
            **objective.distance,
        )
    # The noise uses the key itself; in `generation`, offset noise uses its child 0.
    u = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 1), (), x0.dtype))(keys)
    root, rest = noise_level(schedule, t, u, x0, uniform_in=level.sampling)
    shown = (root if level.conditioning == "sqrt_alpha_bar" else root**2).reshape(t.shape)
    return losses.distance(network(root * x0 + rest * noise, shown * level.scale), noise, **objective.distance)


def predictor(
    network: models.Network,
    params: Any,
    condition: jax.Array,
    schedule: NoiseSchedule,
    level: NoiseLevel,
    objective: Objective,
) -> Predict:
    """Returns `predict(x, t)` for samplers on `schedule`, conditioned on `condition` `[B, H, W, C]`."""
    predict = models.predictor(network, params, image=condition)
    if not level.is_timestep:
        predict = parameterization.scale_timesteps(predict, level.scale)
        predict = parameterization.with_noise_level(predict, schedule, level.conditioning)
    return parameterization.from_target(predict, schedule, objective.target, sigma_data=objective.sigma_data)


def sample(predict: Predict, how: Sampling, condition: jax.Array, keys: jax.Array, *, clip: Clip) -> jax.Array:
    """Samples x_0 `[B, H, W, C]`, of the condition's shape, from noise."""
    table, x = how.sampler, initial_noise(keys, condition.shape[1:])
    if how.noise_scale != 1.0:
        table, x = dataclasses.replace(table, d=np.asarray(table.d) * how.noise_scale), x * how.noise_scale
    return sampling.sample(
        table, predict, x, keys if table.is_stochastic else None, clip=clip, progress=how.progress
    )  # fmt: skip
