"""Image editing with an unconditional network: inpainting and image-to-image.

`inpaint` and `image_to_image` call `sample`; the given image enters through the initial x and the transform of x̂0
(`clip`). `resampled` builds a sampler whose rows also return to noisier levels, for `inpaint`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffjax import process, sampling
from diffjax.noise import initial_noise, keys_of
from diffjax.sampling import Clip, Predict
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler


def inpaint(
    schedule: NoiseSchedule,
    sampler: Sampler,
    predict: Predict,
    image: jax.Array,
    known: jax.Array,
    key: jax.Array,
    *,
    clip: Clip = None,
    progress: bool | str = False,
) -> jax.Array:
    """Samples images `[B, …]` that equal `image` where `known` is True; the network fills in the rest.

    Where `known` is True, x̂0 is replaced by the image, which the sampler's own posterior then noises to the level of
    each row: the known part of x is distributed as q(x_t | x_0) at every level. With a `resampled` sampler, the
    generated part agrees better with the known part.

    Args:
      schedule: the schedule of the sampler.
      sampler: a sampler that derives ε̂ from x̂0 (the default of all samplers) and ends at clean data.
      predict: as in `sample`; an unconditional network.
      image: `[B, …]`; its values where `known` is False have no effect.
      known: bool, True where the image is kept; broadcasts against `image`.
      key: one key, or `[B]`.
      clip: the transform of x̂0 where `known` is False, as in `sample`.
      progress: as in `sample`.

    Raises:
      ValueError: an image of whole numbers, a mask that does not broadcast against `image`, a sampler that keeps the
        network's ε̂ or does not end at clean data; and as in `sample`.
    """
    process.check_float("image", image)
    image, known = jnp.asarray(image), jnp.asarray(known, bool)
    fits = zip(known.shape[::-1], image.shape[::-1], strict=False)
    if known.ndim > image.ndim or any(size not in (1, whole) for size, whole in fits):
        raise ValueError(f"known of shape {known.shape} does not fit images of shape {image.shape}")
    if not sampler.rederive_eps:
        raise ValueError(
            "rederive_eps=False keeps the network's eps, which does not depend on the image: inpainting needs True"
        )
    if sampler.grid[-1] != -1:
        raise ValueError(
            f"this sampler ends at level {sampler.grid[-1]}; inpainting needs one that ends at clean data, -1"
        )
    replace = jax.tree_util.Partial(_replace, image, known, sampling.as_clip(clip))
    keys = keys_of(key, len(image))
    x = noised(schedule, image, sampler.grid[0], keys)
    # Where the image is unknown, x starts from pure noise.
    x = jnp.where(known, x, initial_noise(keys, image.shape[1:], x.dtype))
    return sampling.sample(
        sampler, predict, x, keys if sampler.is_stochastic else None, clip=replace, progress=progress
    )


def resampled(schedule: NoiseSchedule, sampler: Sampler, *, jump: int = 10, times: int = 10) -> Sampler:
    """Repeats each stretch of `jump` steps `times` times (RePaint; Lugmayr et al. 2022, §4.2, Fig. 3).

    Between two passes, x is noised again to the stretch's first level t: x_t = √(ᾱ_t/ᾱ_s)·x_s + √(1-ᾱ_t/ᾱ_s)·z. This
    needs no network call, so it is merged into the last row of the pass, which then leads back to t instead of to s:
    with k = √(ᾱ_t/ᾱ_s), its coefficients a, b, c, d become k·a, k·b, k·c and √(k²d² + 1 - k²).

    Args:
      schedule: the schedule of the sampler.
      sampler: a descending sampler with one network call per step, no history and no learned variance: `ddpm`, `ddim`.
      jump: RePaint's jump length, 10 in the paper; the last stretch may be shorter.
      times: the number of passes over each stretch; 1 leaves the sampler unchanged.

    Returns:
      A sampler of times·S rows.

    Raises:
      ValueError: jump or times < 1, or a sampler with history or learned variance.
    """
    if jump < 1 or times < 1:
        raise ValueError(f"jump={jump} and times={times} must be ≥ 1")
    if np.shape(sampler.x0_history)[-1] or np.shape(sampler.eps_history)[-1] or sampler.log_var is not None:
        raise ValueError("a sampler with history or learned variance cannot be resampled: use ddpm or ddim")
    rows = sampler.num_rows
    order, back_to = [], []
    for start in range(0, rows, jump):
        stretch = list(range(start, min(start + jump, rows)))
        for n in range(times):
            order += stretch
            back_to += [-1] * (len(stretch) - 1) + [start if n < times - 1 else -1]
    order, back_to = np.array(order), np.array(back_to)
    repeated = jax.tree.map(lambda column: np.asarray(column)[order], sampler)
    up = back_to >= 0
    level = np.where(up, np.asarray(sampler.t_from)[back_to], repeated.t_to)
    alpha_bar = schedule.alpha_bar_at(level)
    k = np.where(up, np.sqrt(alpha_bar / schedule.alpha_bar_at(repeated.t_to)), 1.0)
    return dataclasses.replace(
        repeated,
        t_to=level,
        signal_to=np.where(up, np.sqrt(alpha_bar), repeated.signal_to),
        noise_to=np.where(up, np.sqrt(1.0 - alpha_bar), repeated.noise_to),
        a=k * repeated.a,
        b=k * repeated.b,
        c=k * repeated.c,
        d=np.where(up, np.sqrt(k**2 * repeated.d**2 + 1.0 - k**2), repeated.d),
    )


def image_to_image(
    schedule: NoiseSchedule,
    sampler: Sampler,
    predict: Predict,
    image: jax.Array,
    key: jax.Array,
    *,
    clip: Clip = None,
    progress: bool | str = False,
) -> jax.Array:
    """Noises `image` `[B, …]` to the level at which the sampler starts, and denoises it (SDEdit; Meng et al. 2022).

    A noisier first level allows larger changes to the image; build the sampler on `timesteps.starting_at(grid, index)`.

    Args:
      schedule: the schedule of the sampler.
      sampler, predict, clip, progress: as in `sample`.
      image: clean data, such as a photograph or a painting.
      key: one key, or `[B]`.

    Raises:
      ValueError: an image of whole numbers, and as in `sample`.
    """
    process.check_float("image", image)
    image = jnp.asarray(image)
    keys = keys_of(key, len(image))
    x = noised(schedule, image, sampler.grid[0], keys)
    return sampling.sample(sampler, predict, x, keys if sampler.is_stochastic else None, clip=clip, progress=progress)


def noised(schedule: NoiseSchedule, image: jax.Array, t: ArrayLike, keys: ArrayLike) -> jax.Array:
    """Samples q(x_t | x_0) for each image `[B, …]`, with the initial noise of its key."""
    image = jnp.asarray(image)
    return process.q_sample(schedule, image, t, initial_noise(keys, image.shape[1:], image.dtype))


def _replace(image, known, clip, x0):
    if clip is not None:
        x0 = clip(x0) if callable(clip) else jnp.clip(x0, -clip, clip)
    return jnp.where(known, image.astype(x0.dtype), x0)
