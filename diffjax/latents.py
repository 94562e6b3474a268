"""Latents of images along the probability-flow ODE, and interpolation between latents.

A latent is x_{T-1}, where sampling starts. `encode` and `decode` call `sample`.
"""

import jax
import jax.numpy as jnp

from diffjax import samplers, timesteps
from diffjax.sampling import Clip, Predict, sample
from diffjax.schedules import NoiseSchedule


def encode(
    schedule: NoiseSchedule,
    predict: Predict,
    x0: jax.Array,
    *,
    num_steps: int = 100,
    progress: bool | str = False,
) -> jax.Array:
    """Encodes clean data as latents by the probability-flow ODE (DDIM Eq. 13) from ᾱ = 1 to T-1, without clipping.

    Args:
      schedule: the noise schedule.
      predict: as in `sample`.
      x0: `[B, …]`.
      num_steps: the number S of network calls, on `timesteps.trailing(T, S)` reversed.
      progress: as in `sample`.

    Returns:
      `[B, …]`, like `x0`.

    Raises:
      ValueError: S outside 1 … T, and as in `sample`.
    """
    grid = timesteps.trailing(schedule.num_timesteps, num_steps)[::-1]
    return sample(samplers.probability_flow(schedule, grid), predict, x0, progress=progress)


def decode(
    schedule: NoiseSchedule,
    predict: Predict,
    z: jax.Array,
    *,
    num_steps: int = 100,
    clip: Clip = None,
    progress: bool | str = False,
) -> jax.Array:
    """Decodes latents `[B, …]` by the ODE of `encode` from T-1 down to clean data, which is `ddim(eta=0)`.

    Args:
      schedule, predict, num_steps, progress: as in `encode`.
      z: the latents.
      clip: as in `sample`; with clipping, decoding is no longer the inverse of `encode`.

    Raises:
      ValueError: as in `encode`.
    """
    grid = timesteps.trailing(schedule.num_timesteps, num_steps)
    return sample(samplers.probability_flow(schedule, grid), predict, z, clip=clip, progress=progress)


def reconstruct(
    schedule: NoiseSchedule,
    predict: Predict,
    x0: jax.Array,
    *,
    num_steps: int = 100,
    progress: bool | str = False,
) -> jax.Array:
    """Returns decode(encode(x0)), `[B, …]`, with S steps in each direction (DDIM §5.4): it converges to x0 as S grows.

    Raises:
      ValueError: as in `encode`.
    """
    z = encode(schedule, predict, x0, num_steps=num_steps, progress=progress)
    return decode(schedule, predict, z, num_steps=num_steps, progress=progress)


def slerp(a: jax.Array, b: jax.Array, fraction: jax.Array) -> jax.Array:
    """Interpolates spherically between samples (DDIM App. D.5): a at fraction 0, b at 1.

        sin((1-f)θ)/sin θ·a + sin(fθ)/sin θ·b,     θ = arccos(⟨a, b⟩/(‖a‖·‖b‖)), over the flattened sample

    Where a and b are parallel up to rounding, or one is zero, the interpolation is linear, the limit of the formula.
    Antiparallel samples have no unique arc between them: there it is linear too, and passes through zero. Values and
    gradients are finite everywhere.

    Args:
      a, b: `[B, …]`.
      fraction: f, one number or `[B]`; for several fractions of one pair, use `interpolate`.

    Returns:
      `[B, …]`.

    Raises:
      ValueError: a and b of different shapes, or a fraction whose shape is neither [] nor [B].

    Examples:
      >>> slerp(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]]), 0.5).round(4)
      Array([[0.7071, 0.7071]], dtype=float32)
    """
    a, b, fraction = (jnp.asarray(given) for given in (a, b, fraction))
    if a.shape != b.shape or a.ndim < 1:
        raise ValueError(f"a of shape {a.shape} and b of shape {b.shape} must have the same shape [B, …]")
    if fraction.shape not in ((), a.shape[:1]):
        raise ValueError(
            f"fraction of shape {fraction.shape} must be one number, or one for each of the {len(a)} samples"
        )
    dtype = jnp.promote_types(jnp.result_type(a, b), jnp.float32)
    a, b, fraction = (given.astype(dtype) for given in (a, b, fraction))
    fraction = fraction.reshape(fraction.shape + (1,) * (a.ndim - fraction.ndim))

    def inner(u, v):
        return jnp.sum(u * v, axis=tuple(range(1, a.ndim)), keepdims=True)

    # Divisors and roots are replaced where they are singular, so that gradients are finite too.
    aa, bb = inner(a, a), inner(b, b)
    nonzero = (aa > 0) & (bb > 0)
    cosine = inner(a, b) / (jnp.sqrt(jnp.where(nonzero, aa, 1)) * jnp.sqrt(jnp.where(nonzero, bb, 1)))
    arc = nonzero & (jnp.abs(cosine) < 1 - 8 * jnp.finfo(dtype).eps)
    theta = jnp.arccos(jnp.where(arc, cosine, 0))
    weight_a = jnp.where(arc, jnp.sin((1 - fraction) * theta) / jnp.sin(theta), 1 - fraction)
    weight_b = jnp.where(arc, jnp.sin(fraction * theta) / jnp.sin(theta), fraction)
    return weight_a * a + weight_b * b


def interpolate(a: jax.Array, b: jax.Array, count: int) -> jax.Array:
    """Returns `count` samples from `a` to `b`, both included, in equal angles: `[count, …]` for two samples `[…]`.

    Raises:
      ValueError: `count` < 2, or a and b of different shapes.
    """
    if count < 2:
        raise ValueError(f"count={count} must be ≥ 2, because both ends are included")
    a, b = jnp.asarray(a), jnp.asarray(b)
    ends = (jnp.broadcast_to(end, (count, *end.shape)) for end in (a, b))
    return slerp(*ends, jnp.linspace(0, 1, count))


def slerp_grid(corners: jax.Array, size: int) -> jax.Array:
    """Returns a grid of samples `[size, size, …]` between four corners: slerps of two slerped rows (DDIM App. D.5).

    Row 0 goes from `corners[0]` to `corners[1]`, the last row from `corners[2]` to `corners[3]`.

    Args:
      corners: `[4, …]`: top left, top right, bottom left, bottom right.
      size: the number of rows and of columns.

    Raises:
      ValueError: another number of corners, or `size` < 2.
    """
    corners = jnp.asarray(corners)
    if corners.shape[:1] != (4,):
        raise ValueError(f"corners of shape {corners.shape} must be four samples [4, …]")
    if size < 2:
        raise ValueError(f"size={size} must be ≥ 2, because the corners are included")
    top, bottom = interpolate(*corners[:2], size), interpolate(*corners[2:], size)
    return jax.vmap(lambda a, b: interpolate(a, b, size), out_axes=1)(top, bottom)
