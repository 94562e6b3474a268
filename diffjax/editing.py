"""Images made from parts of others by an unconditional network: inpainting, and image to image.

Nothing but `sample`: what is known goes in by the transform of x̂0 (`clip`), by where x starts, or by a table whose
rows go back up.
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
from diffjax.steps import Steps


def inpaint(
    schedule: NoiseSchedule,
    steps: Steps,
    predict: Predict,
    image: jax.Array,
    known: jax.Array,
    key: jax.Array,
    *,
    clip: Clip = None,
    progress: bool | str = False,
) -> jax.Array:
    """A sample that is `image` where `known`; the rest is the network's, `[B, …]`.

    At known places x̂0 is the image, from which every row's x follows: it is the image noised to the row's level, drawn
    by the sampler's own posterior, so that its law at every level is q(x_t | x_0). `resampled` tables let the
    network's part agree with it better.

    Args:
      schedule: that the table is on.
      steps: a table that derives ε̂ from x̂0 (all do unless told not to), and ends at clean data.
      predict: as `sample` takes it, for images without a condition.
      image: `[B, …]`; what it is where not known does not matter.
      known: bool, broadcasts against `image`.
      key: one, or `[B]`.
      clip: of x̂0 elsewhere, as in `sample`.
      progress: as in `sample`.

    Raises:
      ValueError: a mask that does not fit, a table that keeps the network's ε̂ or ends above clean data, and as
        `sample`.
    """
    image, known = jnp.asarray(image), jnp.asarray(known, bool)
    fits = zip(known.shape[::-1], image.shape[::-1], strict=False)
    if known.ndim > image.ndim or any(size not in (1, whole) for size, whole in fits):
        raise ValueError(f"known of shape {known.shape} does not fit images of shape {image.shape}")
    if not steps.rederive_eps:
        raise ValueError("this table keeps the network's eps (rederive_eps=False), which knows nothing of the image")
    if steps.grid[-1] != -1:
        raise ValueError(f"this table ends at level {steps.grid[-1]}; inpainting needs one that ends at clean data, -1")
    replace = jax.tree_util.Partial(_replace, image, known, sampling.as_clip(clip))
    keys = keys_of(key, len(image))
    x = noised(schedule, image, int(steps.grid[0]), keys)
    # Where nothing is known, x starts from pure noise.
    x = jnp.where(known, x, initial_noise(keys, image.shape[1:], x.dtype))
    return sampling.sample(steps, predict, x, keys if steps.is_stochastic else None, clip=replace, progress=progress)


def resampled(schedule: NoiseSchedule, steps: Steps, *, jump: int = 10, times: int = 10) -> Steps:
    """A table that goes down each stretch of `jump` steps `times` times (RePaint; Lugmayr et al. 2022, §4.2, Fig. 3).

    Between two passes x is noised again to the stretch's first level t, x_t = √(ᾱ_t/ᾱ_s)·x_s + √(1-ᾱ_t/ᾱ_s)·z. That
    asks the network nothing, so it is no row but a part of the row before, which leads from the last level but one
    straight back to t: with a, b, c, d that row's and k = √(ᾱ_t/ᾱ_s), the new one's are k·a, k·b, k·c and
    √(k²d² + 1 - k²).

    Args:
      schedule: that the table is on.
      steps: descending, one call a step, with no history and no learned variance: `ddpm` or `ddim`.
      jump: RePaint's jump length, 10 in the paper; a last stretch may be shorter.
      times: how often each stretch is walked; 1 is the table itself.

    Returns:
      A table of times·S rows.

    Raises:
      ValueError: jump or times under 1, or a table of another kind.
    """
    if jump < 1 or times < 1:
        raise ValueError(f"jump={jump} and times={times} must be ≥ 1")
    if np.shape(steps.x0_history)[-1] or np.shape(steps.eps_history)[-1] or steps.log_var is not None:
        raise ValueError("a table with history or with a learned variance cannot go back up: use ddpm or ddim")
    rows = steps.num_rows
    order, back_to = [], []
    for start in range(0, rows, jump):
        stretch = list(range(start, min(start + jump, rows)))
        for n in range(times):
            order += stretch
            back_to += [-1] * (len(stretch) - 1) + [start if n < times - 1 else -1]
    order, back_to = np.array(order), np.array(back_to)
    walked = jax.tree.map(lambda column: np.asarray(column)[order], steps)
    up = back_to >= 0
    level = np.where(up, np.asarray(steps.t_from)[back_to], walked.t_to)
    alpha_bar = schedule.alpha_bar_at(level)
    k = np.where(up, np.sqrt(alpha_bar / schedule.alpha_bar_at(walked.t_to)), 1.0)
    return dataclasses.replace(
        walked,
        t_to=level.astype(np.int32),
        signal_to=np.where(up, np.sqrt(alpha_bar), walked.signal_to),
        noise_to=np.where(up, np.sqrt(1.0 - alpha_bar), walked.noise_to),
        a=k * walked.a,
        b=k * walked.b,
        c=k * walked.c,
        d=np.where(up, np.sqrt(k**2 * walked.d**2 + 1.0 - k**2), walked.d),
    )


def image_to_image(
    schedule: NoiseSchedule,
    steps: Steps,
    predict: Predict,
    image: jax.Array,
    key: jax.Array,
    *,
    clip: Clip = None,
    progress: bool | str = False,
) -> jax.Array:
    """`image` `[B, …]` noised to the level that the table starts from, and denoised (SDEdit; Meng et al. 2022).

    How far it goes from the image is that level: `steps` on `timesteps.starting_at(grid, index)`.

    Args:
      schedule: that the table is on.
      steps, predict, clip, progress: as in `sample`.
      image: clean data, drawn or painted.
      key: one, or `[B]`.

    Raises:
      ValueError: as `sample`.
    """
    image = jnp.asarray(image)
    keys = keys_of(key, len(image))
    x = noised(schedule, image, int(steps.grid[0]), keys)
    return sampling.sample(steps, predict, x, keys if steps.is_stochastic else None, clip=clip, progress=progress)


def noised(schedule: NoiseSchedule, image: jax.Array, t: int, keys: ArrayLike) -> jax.Array:
    """A draw of q(x_t | x_0) for each image `[B, …]`, with the noise that a sample of that key starts from."""
    image = jnp.asarray(image)
    return process.q_sample(schedule, image, t, initial_noise(keys, image.shape[1:], image.dtype))


def _replace(image, known, clip, x0):
    if clip is not None:
        x0 = clip(x0) if callable(clip) else jnp.clip(x0, -clip, clip)
    return jnp.where(known, image.astype(x0.dtype), x0)
