"""Embeddings of a timestep or noise level, and of positions."""

import math

import jax
import jax.numpy as jnp
import numpy as np

ORDERS = ("sin_cos", "cos_sin")


def sinusoidal(t: jax.Array, dim: int, dtype=jnp.float32, *, order: str = "sin_cos", freq_shift: int = 1) -> jax.Array:
    """Returns sin and cos of t·exp(-ln(10⁴)·i/(dim/2 - freq_shift)), i = 0 … dim/2 - 1.

    DDPM's code has the sines first and a shift of 1, OpenAI's has the cosines first and no shift, SR3's (Janspiry) has
    the sines first and no shift.

    Args:
      t: `[B]`, int or float.
      dim: the width of the embedding, even and greater than twice the shift.
      dtype: the type of the result.
      order: "sin_cos" (sines first) or "cos_sin".
      freq_shift: 1: the frequencies fall from 1 to 10⁻⁴; 0: they end one step before it.

    Returns:
      `[B, dim]`.

    Raises:
      ValueError: an unknown order, or an invalid `dim`.
    """
    if order not in ORDERS:
        raise ValueError(f"order={order!r} must be one of {', '.join(map(repr, ORDERS))}")
    half = dim // 2
    if dim % 2 or half <= max(freq_shift, 0):
        raise ValueError(f"dim={dim} must be even and > {2 * max(freq_shift, 0)} (freq_shift={freq_shift})")
    frequencies = jnp.exp(-math.log(10_000.0) / (half - freq_shift) * jnp.arange(half, dtype=dtype))
    angles = t.astype(dtype)[:, None] * frequencies
    waves = (jnp.sin(angles), jnp.cos(angles))
    return jnp.concatenate(waves if order == "sin_cos" else waves[::-1], axis=-1)


def positions_2d(height: int, width: int, dim: int) -> np.ndarray:
    """Returns the fixed embedding of the positions of a grid (MAE's and DiT's `get_2d_sincos_pos_embed`).

    The first half of the channels encodes the column, the second half the row; each half holds the sines and then the
    cosines of position·10^(-4i/(dim/4)), i = 0 … dim/4 - 1.

    Args:
      height: rows of the grid.
      width: columns of the grid.
      dim: the width of the embedding, a multiple of 4.

    Returns:
      float64 `[height, width, dim]`.
    """
    frequencies = 10_000.0 ** -(np.arange(dim // 4) / (dim / 4))
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    angles = [axis[..., None] * frequencies for axis in (columns, rows)]
    return np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=-1)
