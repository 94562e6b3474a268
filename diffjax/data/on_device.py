"""Data sets that stay on the devices: batches are sampled inside the compiled step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.data.pipeline import Prepare, prepared
from diffjax.data.sources import Source

_DOMAIN = 2**32 - 1
"""Separates these random numbers from those that the training step derives from the same key."""


def load(source: Source, prepare: Prepare | None = None, degrade: Prepare | None = None) -> dict[str, np.ndarray]:
    """Returns all examples of a source, prepared without randomness: the columns of `pipeline.batches`, `[N, …]`.

    Args:
      source: The source.
      prepare: The function applied to each image; None keeps images as they are.
      degrade: The function that makes an image's "condition"; None for no condition.

    Raises:
      ValueError: `degrade` needs random numbers.
    """
    examples = [prepared(source[index], None, prepare, degrade) for index in range(len(source))]
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


class OnDevice:
    """An iterator that always returns the same data on the devices, for a training step that samples from it.

    It has the methods of `pipeline.Prefetch`. The step's number determines the batch, so it has no state.

    Args:
      data: The data, laid out as the step expects it.
    """

    def __init__(self, data: Any):
        self._data = data

    def __iter__(self) -> "OnDevice":
        return self

    def __next__(self) -> Any:
        return self._data

    def get_state(self) -> dict[str, Any]:
        """Returns an empty dict."""
        return {}

    def close(self) -> None:
        """Does nothing."""


def sample_batch(
    data: dict[str, jax.Array], key: jax.Array, step: jax.Array, numbers: jax.Array, *, random_flip: bool = False
) -> dict[str, jax.Array]:
    """Samples examples of a step's global batch: the columns of `data`, `[B, …]`.

    Example n of step s is a function of (key, s, n) alone: uniform over the data, with replacement, independent of all
    others. So each device samples its own share of the batch, whatever the number of devices, and training resumes
    from the step's number alone. Over many epochs an image is seen a Poisson-distributed number of times;
    `pipeline.batches` returns it exactly once per epoch.

    The function is pure, for use within `jit`, `pmap` or a `lax.scan` over steps. Its random numbers are independent of
    those that the training step derives from the same key.

    Args:
      data: The columns that `load` returns, on the device.
      key: The key of the whole training run.
      step: The number of the step, int `[]`.
      numbers: The examples of the global batch to sample, int `[B]`; on device d of D, `d * B + arange(B)`.
      random_flip: Whether half of the images are mirrored, left to right, each with its condition.
    """
    index_keys, flip_keys = _keys(key, step, numbers)
    indices = _indices(index_keys, len(data["label"]))
    batch = {name: jnp.asarray(column)[indices] for name, column in data.items()}
    if random_flip:
        flipped = jax.vmap(lambda key: jax.random.bernoulli(key))(flip_keys)
        for name in batch.keys() & {"image", "condition"}:
            batch[name] = jnp.where(flipped[:, None, None, None], batch[name][:, :, ::-1], batch[name])
    return batch


def sampled_index(size: int, key: jax.Array, step: int, number: int) -> int:
    """Returns the index in the data of example `number` of the batch of `step`, as `sample_batch` samples it.

    Args:
      size: The number of images.
      key: The key of the whole training run.
      step: The number of the step.
      number: The number of the example in the global batch.
    """
    index_keys, _ = _keys(key, jnp.int32(step), jnp.array([number]))
    return int(_indices(index_keys, size)[0])


def _keys(key: jax.Array, step: jax.Array, numbers: jax.Array) -> jax.Array:
    """Returns the keys `[2, B]` of examples of a step: those of their indices, and those of their flips."""
    step_key = jax.random.fold_in(jax.random.fold_in(key, np.uint32(_DOMAIN)), step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, numbers)
    return jax.vmap(jax.random.split, out_axes=1)(keys)


def _indices(keys: jax.Array, size: int) -> jax.Array:
    return jax.vmap(lambda key: jax.random.randint(key, (), 0, size))(keys)
