"""Counts the FLOPs and bytes of a network call, layer by layer."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax.models import UNet, layers


class Cost(NamedTuple):
    """The cost of one network call."""

    flops: float
    """Multiplications and additions of convolutions, linear maps and attention, without those of padded zeros."""
    bytes: float
    """Parameters, each read once, and the inputs and outputs of each of those layers."""


def of_call(model: UNet, image_shape: tuple[int, int, int], batch: int) -> Cost:
    """Returns the sum over layers: a kernel's entries at each output position, 4·N²·C for attention of N positions."""
    flops, moved = 0.0, 0.0
    x = jax.ShapeDtypeStruct((batch, *image_shape), jnp.float32)
    t = jax.ShapeDtypeStruct((batch,), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), x, t)["params"]

    def count(function, args, kwargs, context):
        nonlocal flops, moved
        out = function(*args, **kwargs)
        layer, x = context.module, args[0] if args else None
        if context.method_name == "__call__" and isinstance(layer, (nn.Conv, nn.Dense)):
            kernel = layer.get_variable("params", "kernel")
            inputs, outputs = kernel.shape[-2:]
            taps = (
                _taps(layer, x.shape[1:-1], out.shape[1:-1])
                if isinstance(layer, nn.Conv)
                else out.size / (batch * outputs)
            )
            flops += 2.0 * batch * taps * inputs * outputs
            moved += x.size * x.dtype.itemsize + out.size * out.dtype.itemsize
        elif context.method_name == "__call__" and isinstance(layer, layers.Attention):
            places, channels = math.prod(x.shape[1:-1]), x.shape[-1]
            flops += 4.0 * batch * places**2 * channels
            moved += 4 * x.size * jnp.dtype(layer.dtype).itemsize
        return out

    with nn.intercept_methods(count):
        jax.eval_shape(lambda p, x, t: model.apply({"params": p}, x, t), params, x, t)
    return Cost(flops, moved + sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params)))


def all_reduce_bytes(num_params: int, num_devices: int) -> float:
    """Returns the bytes that each device sends in a ring all-reduce of a float32 gradient: 4·P·2(n-1)/n."""
    return 4.0 * num_params * 2 * (num_devices - 1) / num_devices


def _taps(conv: nn.Conv, size_in: tuple[int, ...], size_out: tuple[int, ...]) -> int:
    """Returns the number of pairs of an output position and an unpadded input position under the kernel there."""
    strides = np.broadcast_to(conv.strides, len(size_in))
    pairs = [
        sum(0 <= stride * i + k - low < n for i in range(n_out) for k in range(width))
        for n, n_out, width, stride, (low, _) in zip(
            size_in, size_out, conv.kernel_size, strides, conv.padding, strict=True
        )
    ]
    return math.prod(pairs)
