"""Small data sets that stay on the devices: batches are drawn inside the compiled step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.data.pipeline import Prepare, prepared
from diffjax.data.sources import Source

_DOMAIN = 2**32 - 1
"""Keeps these draws apart from those that the step makes from the same key."""


def load(source: Source, prepare: Prepare | None = None, degrade: Prepare | None = None) -> dict[str, np.ndarray]:
    """A whole source, prepared without chance: the columns of `pipeline.batches`, `[N, …]`, for `draw`.

    Raises:
      ValueError: a degradation that leaves something to chance.
    """
    examples = [prepared(source[index], None, prepare, degrade) for index in range(len(source))]
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


class Resident:
    """What a step that draws its own batches is given, again and again; its position is the step's number."""

    def __init__(self, on_devices: Any):
        self._on_devices = on_devices

    def __next__(self) -> Any:
        return self._on_devices

    def get_state(self) -> dict[str, Any]:
        """Nothing to remember."""
        return {}

    def close(self) -> None:
        """Nothing to close."""


def draw(
    data: dict[str, jax.Array], key: jax.Array, step: jax.Array, numbers: jax.Array, *, flip: bool = False
) -> dict[str, jax.Array]:
    """Examples of a step's global batch: the columns of `data`, `[B, …]`.

    Example n of step s is a function of (key, s, n) alone: uniform over the data, with replacement, independent of all
    others. So a device draws its own share of the batch, whatever the number of devices, and a run goes on from its
    step number: there is no other position. Over many epochs an image is seen a Poisson number of times, where
    `pipeline.batches` shows it exactly once an epoch.

    Pure, for use within `jit`, `pmap` or a `lax.scan` over steps; it may be given the key that the step itself draws
    from.

    Args:
      data: as `load` gives it, on the device.
      key: of the whole run.
      step: int `[]`.
      numbers: int `[B]`, which examples of the global batch: on device d of D, `d * B + arange(B)`.
      flip: whether one in two is mirrored, left to right, its condition with it.
    """
    step_key = jax.random.fold_in(jax.random.fold_in(key, np.uint32(_DOMAIN)), step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, numbers)
    index_keys, flip_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    indices = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(data["label"])))(index_keys)
    batch = {name: jnp.asarray(column)[indices] for name, column in data.items()}
    if flip:
        flipped = jax.vmap(lambda key: jax.random.bernoulli(key))(flip_keys)
        for name in batch.keys() & {"image", "condition"}:
            batch[name] = jnp.where(flipped[:, None, None, None], batch[name][:, :, ::-1], batch[name])
    return batch
