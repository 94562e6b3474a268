"""Batches over the devices of this process."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def whole(batch_size: int) -> int:
    """The smallest multiple of the number of devices that is no less than `batch_size`."""
    count = jax.local_device_count()
    return -(-batch_size // count) * count


def everywhere(tree: Any, batch_size: int) -> Any:
    """`tree` on every device, where these divide `batch_size`; else as it is."""
    return _put(tree, PartitionSpec(), batch_size)


def split(tree: Any, batch_size: int) -> Any:
    """Arrays `[batch_size, …]` cut along their first axis, a part a device, where these divide it; else as they are."""
    return _put(tree, PartitionSpec("batch"), batch_size)


def _put(tree: Any, spec: PartitionSpec, batch_size: int) -> Any:
    devices = jax.local_devices()
    if len(devices) == 1 or batch_size % len(devices):
        return tree
    return jax.device_put(tree, NamedSharding(Mesh(np.array(devices), "batch"), spec))
