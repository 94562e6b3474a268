"""Noise, drawn sample by sample: that of sample n is a function of its key and a number, whatever the batch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

# Rows of a table count up from 0, so the last uint32 is free for the noise that a trajectory starts from.
_INITIAL = np.uint32(2**32 - 1)


def sample_keys(seed: int, start: int, count: int) -> jax.Array:
    """Typed keys `[count]` of samples `start … start + count - 1` of a seed: the same whoever draws them, and how many.

    Raises:
      ValueError: a negative start or count.
    """
    if start < 0 or count < 0:
        raise ValueError(f"start={start} and count={count} must be ≥ 0")
    return _children(jax.random.key(seed), np.arange(start, start + count, dtype=np.uint32))


def initial_noise(keys: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """x_T ~ N(0, I), `[B, *shape]`, drawn sample by sample from `keys` `[B]`; `sample` never draws the same noise."""
    return sample_noise(keys, _INITIAL, tuple(shape), dtype)


def keys_of(key: jax.Array, count: int) -> jax.Array:
    """The keys `[count]` of samples: as given, or the children of one key.

    Raises:
      ValueError: a key that is not typed, or keys of another count.
    """
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise ValueError(f"key must be typed, as jax.random.key makes them; this one is {key!r}")
    if key.shape not in ((), (count,)):
        raise ValueError(f"key of shape {key.shape}: one key, or one for each of the {count} samples")
    return _children(key, np.arange(count, dtype=np.uint32)) if key.ndim == 0 else key


@jax.jit
def _children(key: jax.Array, numbers: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


@partial(jax.jit, static_argnums=(2, 3))
def sample_noise(keys: jax.Array, number: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
    """z ~ N(0, I), `[B, *shape]`: sample n draws from `fold_in(keys[n], number)`."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), shape, dtype))(keys)
