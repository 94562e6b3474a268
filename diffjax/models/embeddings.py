"""Embeddings of the timestep, or of a noise level."""

import math

import jax
import jax.numpy as jnp

ORDERS = ("sin_cos", "cos_sin")


def sinusoidal(t: jax.Array, dim: int, dtype=jnp.float32, *, order: str = "sin_cos", freq_shift: int = 1) -> jax.Array:
    """`[B]` → `[B, dim]`: sin and cos of t·exp(-ln(10⁴)·i/(dim/2 - freq_shift)), i = 0 … dim/2 - 1.

    DDPM's code has sines first and a shift of 1, OpenAI's has cosines first and no shift, SR3's (Janspiry) sines first
    and no shift.

    Raises:
      ValueError: an order that there is not; a `dim` that is odd, or not over twice the shift.
    """
    if order not in ORDERS:
        raise ValueError(f"order={order!r} is not one of {', '.join(map(repr, ORDERS))} (config.model.time_embedding)")
    half = dim // 2
    if dim % 2 or half <= max(freq_shift, 0):
        raise ValueError(
            f"dim={dim} must be even and over {2 * max(freq_shift, 0)} (config.model.channels, or the first of "
            f"time_channels; freq_shift={freq_shift})"
        )
    frequencies = jnp.exp(-math.log(10_000.0) / (half - freq_shift) * jnp.arange(half, dtype=dtype))
    angles = t.astype(dtype)[:, None] * frequencies
    waves = (jnp.sin(angles), jnp.cos(angles))
    return jnp.concatenate(waves if order == "sin_cos" else waves[::-1], axis=-1)
