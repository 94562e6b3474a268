"""Noise per sample: a function of the sample's key and a number, so it does not depend on the rest of the batch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

_INITIAL = np.uint32(2**32 - 1)
"""The number of the initial noise; the rows of a sampler are numbered from 0."""


def sample_keys(seed: int, start: int, count: int) -> jax.Array:
    """Returns the typed keys `[count]` of samples `start … start + count - 1` of a seed; a sample's key never changes.

    Args:
      seed: the seed, a whole number within 0 … 2³² - 1: JAX's keys take no more.
      start: the number of the first sample.
      count: the number of samples.

    Raises:
      ValueError: a seed outside 0 … 2³² - 1, or a negative start or count.

    Examples:
      Sample 2 has the same key, and so the same noise, in any batch.

      >>> bool((initial_noise(sample_keys(0, 2, 1), (4,))[0] == initial_noise(sample_keys(0, 0, 3), (4,))[2]).all())
      True
    """
    if not isinstance(seed, jax.Array) and not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed} must be within 0 … {2**32 - 1}")
    if start < 0 or count < 0:
        raise ValueError(f"start={start} and count={count} must be ≥ 0")
    return _children(jax.random.key(seed), np.arange(start, start + count, dtype=np.uint32))


def initial_noise(keys: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Returns x_T ~ N(0, I), `[B, *shape]`, for `keys` `[B]`; `sample` never uses the same noise again.

    Args:
      keys: typed keys `[B]`.
      shape: the shape of one sample.
      dtype: the dtype of the noise.
    """
    return sample_noise(keys, _INITIAL, tuple(shape), dtype)


def keys_of(key: jax.Array, count: int) -> jax.Array:
    """Returns a key for each sample, `[count]`: the given ones, or keys derived from a single key.

    Raises:
      ValueError: a key that is not typed, or a number of keys other than 1 and `count`.
    """
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise ValueError(f"key={key!r} must be a typed key, as made by jax.random.key")
    if key.shape not in ((), (count,)):
        raise ValueError(f"key of shape {key.shape} must be one key, or one for each of the {count} samples")
    return _children(key, jax.device_put(np.arange(count, dtype=np.uint32))) if key.ndim == 0 else key


@jax.jit
def _children(key: jax.Array, numbers: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


@partial(jax.jit, static_argnums=(2, 3))
def sample_noise(keys: jax.Array, number: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
    """Returns z ~ N(0, I), `[B, *shape]`; sample n uses `fold_in(keys[n], number)`."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), shape, dtype))(keys)
