"""Images to latents and back along the probability-flow ODE, and ways between latents.

A latent is x_{T-1}, the level from which sampling starts. `encode` and `decode` are runs of `sample`.
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
    """The latents of clean data: the probability-flow ODE (DDIM Eq. 13) from ᾱ = 1 up to T-1, never clipped.

    Args:
      predict: as `sample` takes it.
      x0: `[B, …]`.
      num_steps: S, the number of network calls, along `timesteps.trailing(T, S)` reversed.
      progress: as in `sample`.

    Returns:
      `[B, …]`, like `x0`.

    Raises:
      ValueError: S outside 1 … T, and as `sample`.
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
    """The data of latents `[B, …]`: the ODE of `encode` from T-1 down to clean data, that is `ddim(eta=0)`.

    Args:
      clip: as in `sample`; any clipping makes decoding no inverse of `encode`.

    Raises:
      ValueError: as `encode`.
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
    """decode(encode(x0)), `[B, …]`, S steps each way (DDIM §5.4): it nears x0 as S grows.

    Raises:
      ValueError: as `encode`.
    """
    z = encode(schedule, predict, x0, num_steps=num_steps, progress=progress)
    return decode(schedule, predict, z, num_steps=num_steps, progress=progress)


def slerp(a: jax.Array, b: jax.Array, fraction: jax.Array) -> jax.Array:
    """Spherical interpolation, sample by sample (DDIM App. D.5): a at fraction 0, b at 1.

        sin((1-f)θ)/sin θ·a + sin(fθ)/sin θ·b,     θ = arccos(⟨a, b⟩/(‖a‖·‖b‖)), over the flattened sample

    Where a and b are parallel to rounding, or one is zero, this is linear interpolation, the formula's own limit.
    Antiparallel samples have no one arc between them: there too it is linear, and passes through zero. Values and
    gradients are finite everywhere.

    Args:
      a, b: `[B, …]`.
      fraction: f, one for all or `[B]`; `interpolate` has many for one pair.

    Returns:
      `[B, …]`.

    Raises:
      ValueError: a and b of different shapes, or a fraction of another shape than [] and [B].
    """
    a, b, fraction = (jnp.asarray(given) for given in (a, b, fraction))
    if a.shape != b.shape or a.ndim < 1:
        raise ValueError(f"a of shape {a.shape} and b of shape {b.shape} must have one shape [B, …]")
    if fraction.shape not in ((), a.shape[:1]):
        raise ValueError(f"fraction of shape {fraction.shape}: one for all, or one for each of the {len(a)} samples")
    dtype = jnp.promote_types(jnp.result_type(a, b), jnp.float32)
    a, b, fraction = (given.astype(dtype) for given in (a, b, fraction))
    fraction = fraction.reshape(fraction.shape + (1,) * (a.ndim - fraction.ndim))

    def inner(u, v):
        return jnp.sum(u * v, axis=tuple(range(1, a.ndim)), keepdims=True)

    # Every division and root is of a stand-in where the true one is singular, so that gradients are finite too.
    aa, bb = inner(a, a), inner(b, b)
    nonzero = (aa > 0) & (bb > 0)
    cosine = inner(a, b) / (jnp.sqrt(jnp.where(nonzero, aa, 1)) * jnp.sqrt(jnp.where(nonzero, bb, 1)))
    arc = nonzero & (jnp.abs(cosine) < 1 - 8 * jnp.finfo(dtype).eps)
    theta = jnp.arccos(jnp.where(arc, cosine, 0))
    weight_a = jnp.where(arc, jnp.sin((1 - fraction) * theta) / jnp.sin(theta), 1 - fraction)
    weight_b = jnp.where(arc, jnp.sin(fraction * theta) / jnp.sin(theta), fraction)
    return weight_a * a + weight_b * b


def interpolate(a: jax.Array, b: jax.Array, count: int) -> jax.Array:
    """`count` samples from `a` to `b`, both included, in equal steps of angle: `[count, …]` for two samples `[…]`.

    Raises:
      ValueError: `count` < 2, or a and b of different shapes.
    """
    if count < 2:
        raise ValueError(f"count={count} must be ≥ 2: both ends are included")
    a, b = jnp.asarray(a), jnp.asarray(b)
    ends = (jnp.broadcast_to(end, (count, *end.shape)) for end in (a, b))
    return slerp(*ends, jnp.linspace(0, 1, count))


def slerp_grid(corners: jax.Array, size: int) -> jax.Array:
    """`[size, size, …]` samples between four (DDIM App. D.5): slerps between two slerped rows.

    Row 0 leads from `corners[0]` to `corners[1]`, the last row from `corners[2]` to `corners[3]`.

    Args:
      corners: `[4, …]`: top left, top right, bottom left, bottom right.

    Raises:
      ValueError: another number of corners, or `size` < 2.
    """
    corners = jnp.asarray(corners)
    if corners.shape[:1] != (4,):
        raise ValueError(f"corners of shape {corners.shape}: four samples [4, …] are needed")
    if size < 2:
        raise ValueError(f"size={size} must be ≥ 2: the corners are included")
    top, bottom = interpolate(*corners[:2], size), interpolate(*corners[2:], size)
    return jax.vmap(lambda a, b: interpolate(a, b, size), out_axes=1)(top, bottom)
