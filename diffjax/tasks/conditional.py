"""What tasks with a condition image share: the network beside it, and what is told of the noise."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import guidance, losses, models, process, sampling
from diffjax.noise import initial_noise
from diffjax.sampling import Clip, Predict
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Steps

TOLD = ("t", "sqrt_alpha_bar", "alpha_bar")
DRAWN = ("sqrt_alpha_bar", "alpha_bar")

Restore = Callable[[jax.Array, jax.Array], jax.Array]
"""(condition `[B, H, W, C]` in [-1, 1], keys `[B]`) → image `[B, H, W, C]`."""


class Level(NamedTuple):
    """What a network is told of the noise, and how that is drawn in training."""

    told: str = "sqrt_alpha_bar"
    """√γ ("sqrt_alpha_bar") or γ ("alpha_bar"), for which any schedule may be sampled on; or the schedule's "t"."""
    drawn: str = "sqrt_alpha_bar"
    """What is uniform between the levels of t and t-1: √γ (Janspiry's code), or γ ("alpha_bar", SR3 §2.4)."""
    scale: float = 1000.0
    """What a noise level is multiplied by, so that the embedding's waves tell levels apart (1 in Janspiry's code)."""


class Sampling(NamedTuple):
    """How a diffusion model of such a task is sampled from."""

    schedule: NoiseSchedule
    """Any, for a network that is told the noise level; else the one it was trained on."""
    steps: Steps
    """On that schedule."""
    target: str = "eps"
    """What the network predicts."""
    noise_scale: float = 1.0
    """What x_T and the noise of each row are multiplied by: under 1, nearer to the mean of what could be, where the
    network does as it should; one with group norms may take what is missing for noise, and leave grain.
    """
    progress: bool | str = False


class Restoration(Protocol):
    """A task that makes an image of a condition."""

    def init(self, image_shape: tuple[int, int, int], key: jax.Array) -> Any:
        """Fresh parameters."""

    def loss(self, schedule: NoiseSchedule, *, train: bool = True, **objective: Any) -> Callable[..., jax.Array]:
        """The loss of `batch["image"]` given `batch["condition"]` (uint8 `[B, H, W, C]`), for `training.step`.

        With `train=False` without dropout.
        """

    def restore(self, params: Any, how: Sampling, condition: jax.Array, keys: jax.Array) -> jax.Array:
        """An image for each condition, both `[B, H, W, C]`; H and W may be any.

        What becomes of a place depends a little on all the image, through the norms, and on its size where the network
        attends by height (`attention_resolutions`).
        """


def init(model: models.UNet, shape: tuple[int, int, int], key: jax.Array, *, beside: bool) -> Any:
    """Fresh parameters for x of `shape` `(H, W, C)`, with a condition of the same shape beside it, or without."""
    x = jnp.zeros((1, *shape))
    return model.init(key, x, jnp.zeros(1, jnp.int32), **({"image": x} if beside else {}))["params"]


def noise_level(
    schedule: NoiseSchedule, t: jax.Array, u: jax.Array, like: jax.Array, *, drawn: str = "sqrt_alpha_bar"
) -> tuple[jax.Array, jax.Array]:
    """√γ and √(1-γ) between the levels of t and t-1, at fraction u ~ U[0, 1), shaped to broadcast against `like`.

        sqrt_alpha_bar: √γ = √ᾱ_t + u·(√ᾱ_{t-1} - √ᾱ_t);     alpha_bar: γ = ᾱ_t + u·(ᾱ_{t-1} - ᾱ_t);     ᾱ_{-1} = 1

    (SR3, §2.4: p(γ) = Σ_t 1/T·U(γ_{t-1}, γ_t).) What is interpolated is the distance from 1, so that 1-γ is exact.

    Raises:
      ValueError: another law.
    """
    distances = {"sqrt_alpha_bar": 1.0 - schedule.sqrt_alpha_bars, "alpha_bar": 1.0 - schedule.alpha_bars}
    if drawn not in distances:
        raise ValueError(f"drawn={drawn!r} is not one of {', '.join(map(repr, DRAWN))}")
    here, before = (process.lookup(distances[drawn], n, like, clean=0.0) for n in (t, t - 1))
    distance = here + u.reshape(here.shape) * (before - here)
    if drawn == "alpha_bar":
        return jnp.sqrt(1.0 - distance), jnp.sqrt(distance)
    return 1.0 - distance, jnp.sqrt(distance * (2.0 - distance))


def denoising(
    schedule: NoiseSchedule,
    network: Callable[[jax.Array, jax.Array], jax.Array],
    x0: jax.Array,
    t: jax.Array,
    keys: jax.Array,
    level: Level,
    **objective: Any,
) -> jax.Array:
    """The loss of each example, `[B]`, its noise and noise level drawn from its own key.

    Args:
      network: (x, what it is told) → its answer.
      x0: `[B, …]`; t: `int[B]`; keys: `[B]`.
      objective: of `losses.denoising`; a network that is told a level predicts ε, and knows `norm` and `delta` alone.
    """
    noise = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:], x0.dtype))(keys)
    if level.told == "t":
        return losses.denoising(schedule, network, x0, t, noise, **objective)
    # The key itself has drawn the noise; its child 0 is offset noise in `generation`.
    u = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 1), (), x0.dtype))(keys)
    root, rest = noise_level(schedule, t, u, x0, drawn=level.drawn)
    told = (root if level.told == "sqrt_alpha_bar" else root**2).reshape(t.shape)
    return losses.distance(network(root * x0 + rest * noise, told * level.scale), noise, **objective)


def predictor(model: models.UNet, params: Any, condition: jax.Array, how: Sampling, level: Level) -> Predict:
    """The network beside `condition` `[B, H, W, C]` as samplers on `how.schedule` ask it."""
    predict = models.predictor(model, params, image=condition)
    if level.told != "t":
        predict = guidance.scale_timesteps(predict, level.scale)
        predict = guidance.with_noise_level(predict, how.schedule, level.told)
    return guidance.from_target(predict, how.schedule, how.target)


def draw(predict: Predict, how: Sampling, condition: jax.Array, keys: jax.Array, *, clip: Clip) -> jax.Array:
    """x_0 `[B, H, W, C]`, of the condition's shape, from noise."""
    steps, x = how.steps, initial_noise(keys, condition.shape[1:])
    if how.noise_scale != 1.0:
        steps, x = dataclasses.replace(steps, d=np.asarray(steps.d) * how.noise_scale), x * how.noise_scale
    keys = keys if steps.is_stochastic else None
    return sampling.sample(steps, predict, x, keys, clip=clip, progress=how.progress)


def average(restore: Restore, condition: jax.Array, keys: jax.Array, num: int) -> jax.Array:
    """The mean of `num` restorations, `[B, H, W, C]`: draw n has the n-th children of `keys` (Whang et al. 2022, §4).

    Of independent draws the variance falls as 1/num, and what is left is the mean of what could be.

    Raises:
      ValueError: num < 1.
    """
    if num < 1:
        raise ValueError(f"num={num} must be ≥ 1")
    total = 0.0
    for n in range(num):
        total += restore(condition, jax.vmap(jax.random.fold_in, (0, None))(keys, n))
    return total / num
