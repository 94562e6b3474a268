"""Public peak figures of accelerators, and the least time that they leave to a program."""

from typing import NamedTuple


class Chip(NamedTuple):
    """The peak figures of one JAX device, from the makers' data sheets."""

    name: str
    flops: float
    """bfloat16 operations a second."""
    memory_bandwidth: float
    """Bytes a second."""
    memory: float
    """Bytes."""
    link_bandwidth: float
    """Bytes a second to the other devices, over all links, each way."""


CHIPS = {
    "TPU v2": Chip("TPU v2 core", 22.5e12, 350e9, 8 * 2**30, 31e9),
    "TPU v3": Chip("TPU v3 core", 61.5e12, 450e9, 16 * 2**30, 41e9),
    "TPU v4": Chip("TPU v4", 275e12, 1228e9, 32 * 2**30, 150e9),
    "TPU v5 lite": Chip("TPU v5e", 197e12, 819e9, 16 * 2**30, 100e9),
    "TPU v5": Chip("TPU v5p", 459e12, 2765e9, 95 * 2**30, 300e9),
    "TPU v6 lite": Chip("TPU v6e", 918e12, 1640e9, 32 * 2**30, 224e9),
    "NVIDIA A100-SXM4-40GB": Chip("A100 40GB", 312e12, 1555e9, 40 * 2**30, 300e9),
    "NVIDIA A100-SXM4-80GB": Chip("A100 80GB", 312e12, 2039e9, 80 * 2**30, 300e9),
    "NVIDIA H100 80GB HBM3": Chip("H100", 989e12, 3350e9, 80 * 2**30, 450e9),
    "NVIDIA H200": Chip("H200", 989e12, 4800e9, 141 * 2**30, 450e9),
}
"""Chips by JAX's `device_kind`."""


class Bound(NamedTuple):
    """The seconds that each resource of a device needs at its peak; the largest is a lower bound of the time."""

    arithmetic: float
    memory: float
    exchange: float

    @property
    def seconds(self) -> float:
        """The least time: the resources work side by side."""
        return max(self)

    @property
    def limit(self) -> str:
        """The resource that takes longest."""
        return max(self._fields, key=lambda name: getattr(self, name))


def bound(chip: Chip, *, flops: float, num_bytes: float, exchanged: float) -> Bound:
    """Returns the bound of a program (the roofline model, Williams et al. 2009).

    Args:
      chip: the device.
      flops: its operations.
      num_bytes: the bytes that it reads and writes in its memory.
      exchanged: the bytes that it sends to other devices.
    """
    return Bound(flops / chip.flops, num_bytes / chip.memory_bandwidth, exchanged / chip.link_bandwidth)
