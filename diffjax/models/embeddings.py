"""Embeddings of the timestep."""

import math

import jax
import jax.numpy as jnp


def sinusoidal(t: jax.Array, dim: int, dtype=jnp.float32) -> jax.Array:
    """`[B]` → `[B, dim]`: sin, then cos, of t·exp(-ln(10⁴)·i/(dim/2 - 1)), i = 0 … dim/2 - 1 (DDPM's code).

    Raises:
      ValueError: an odd `dim`, or one under 4.
    """
    if dim % 2 or dim < 4:
        raise ValueError(f"dim={dim} must be even and at least 4")
    half = dim // 2
    frequencies = jnp.exp(-math.log(10_000.0) / (half - 1) * jnp.arange(half, dtype=dtype))
    angles = t.astype(dtype)[:, None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
