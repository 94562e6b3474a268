"""One loop over all timesteps of the forward process, for what is measured of a network on data."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.loop import Clip, network_call
from diffjax.noise import sample_noise
from diffjax.prediction import Predict, Prediction
from diffjax.process import Scales


class Noised(NamedTuple):
    """Examples at one timestep, x_t = √ᾱ_t·x_0 + √(1-ᾱ_t)·ε."""

    t: jax.Array
    """int32, the timestep."""
    x0: jax.Array
    """`[B, …]`."""
    noise: jax.Array
    """ε `[B, …]`; sample n at t has that of `fold_in(key_n, t)`."""
    x_t: jax.Array
    """`[B, …]`."""


Statistic = Callable[[Noised, Prediction, Any], Any]
"""(the examples, the network's output, one row of the tables) → a pytree of arrays `[B]`; a module-level function."""


@partial(jax.jit, static_argnums=0)
def at_every_timestep(
    statistic: Statistic, scales: Scales, tables: Any, predict: Predict, x0: jax.Array, keys: jax.Array, clip: Clip
) -> Any:
    """Calls the network once at each timestep of the schedule and returns the statistic of each, `[T, B]`.

    Args:
      statistic: see `Statistic`.
      scales: √ᾱ and √(1-ᾱ), `[T]`.
      tables: further tables that `statistic` needs, a pytree of float arrays `[T]`; rows are cast to the dtype of x0.
      predict: as in `sample`, a pytree.
      x0: `[B, …]`, data.
      keys: typed keys `[B]`.
      clip: the transform of x̂0, as `loop.as_clip` returns it.
    """

    def body(carry, columns):
        t, row = columns
        scales, own = jax.tree.map(lambda column: jnp.asarray(column, x0.dtype), row)
        signal, noise_scale = scales
        noise = sample_noise(keys, t, x0.shape[1:], x0.dtype)
        x_t = signal * x0 + noise_scale * noise
        output = network_call(predict, x_t, jnp.full(len(x0), t), signal, noise_scale, clip)
        return carry, statistic(Noised(t, x0, noise, x_t), output, own)

    count = len(scales.sqrt_alpha_bars)
    return jax.lax.scan(body, None, (np.arange(count, dtype=np.int32), (scales, tables)))[1]
