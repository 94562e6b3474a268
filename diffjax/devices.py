"""Spreads batches over the devices of this process."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def round_up(batch_size: int) -> int:
    """Returns the smallest multiple of the number of devices that is at least `batch_size`."""
    count = jax.local_device_count()
    return -(-batch_size // count) * count


def replicate(tree: Any, batch_size: int) -> Any:
    """Copies `tree` to every device if the number of devices divides `batch_size`; otherwise returns it unchanged."""
    return _put(tree, PartitionSpec(), batch_size)


def split(tree: Any, batch_size: int) -> Any:
    """Splits arrays `[batch_size, …]` over the devices if their number divides `batch_size`, else returns `tree`."""
    return _put(tree, PartitionSpec("batch"), batch_size)


def _put(tree: Any, spec: PartitionSpec, batch_size: int) -> Any:
    devices = jax.local_devices()
    if len(devices) == 1 or batch_size % len(devices):
        return tree
    return jax.device_put(tree, NamedSharding(Mesh(np.array(devices), "batch"), spec))
