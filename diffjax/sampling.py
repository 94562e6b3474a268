"""The sampling loop: `sample` runs a `Sampler` table with a `predict` function as one jitted `lax.scan`.

`predict(x: [B, …], t: [B])` returns ε̂ `[B, …]`, a `Prediction` or a `Target`; t is int32, or in the dtype of x if the
grid lies between the timesteps. It is a pytree: with `jax.tree_util.Partial(apply, params)` the parameters are leaves,
so new parameters cause no recompilation.
"""

from collections.abc import Container, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import devices, loop
from diffjax.loop import Clip, as_clip, network_call
from diffjax.noise import initial_noise, keys_of, sample_keys
from diffjax.prediction import Predict, Prediction, Target, as_predict, as_pytree
from diffjax.steps import Sampler

__all__ = [
    "Clip",
    "Predict",
    "Prediction",
    "Target",
    "Trajectory",
    "as_clip",
    "network_call",
    "sample",
    "sample_many",
    "sample_trajectory",
]


class Trajectory(NamedTuple):
    """The kept frames of a run: `x[k]` is at level `t[k]` (-1 is clean data), and `x0[k]` is predicted from it."""

    t: np.ndarray
    """`[K]`, like the sampler's grid."""
    x: jax.Array
    """`[K, B, …]`."""
    x0: jax.Array
    """`[K, B, …]`, clipped as in the run."""


def sample(
    sampler: Sampler,
    predict: Predict,
    x: jax.Array,
    key: jax.Array | None = None,
    *,
    clip: Clip = None,
    first_row: int | jax.Array = 0,
    progress: bool | str = False,
    debug: bool = False,
    remat: bool = False,
) -> jax.Array:
    """Runs a sampler: from `x` at level `sampler.grid[0]` to the result at `sampler.grid[-1]`.

    May itself be jitted, vmapped over a stack of samplers, or called with a sharded `x`, and can be differentiated with
    respect to `x`, what `predict` holds (parameters, a guidance scale) and the columns of the table.

    Args:
      sampler: the table to run.
      predict: `predict(x, t) → ε̂ or Prediction`; a pytree (see above), or a plain function.
      x: `[B, …]` float32 or float64; narrower floats are widened to float32.
      key: typed keys `[B]`, or one key (then sample n uses `fold_in(key, n)`), or None if the sampler adds no noise.
        Row i of sample n uses `fold_in(key_n, first_row + i)`, so that noise does not depend on the batch.
      clip: x̂0 is clipped to [-clip, clip], or transformed by a function (`thresholds`); None leaves it unchanged.
      first_row: for a table that is a part of a longer one, the number of its first row there. With the same keys in
        each call, a run in parts is bit-equal to the whole; without it, each part would draw the noise of row 0 again.
      progress: shows a progress bar, updated between equal chunks of rows; a string is its label.
      debug: stops at the first row whose result is not finite.
      remat: whether a gradient computes each row's network call again instead of keeping its activations: memory for x
        and the histories of each row remains, and the time grows by about a third.

    Returns:
      `[B, …]`, like `x`.

    Raises:
      ValueError: no key for a sampler that adds noise, another number of keys than samples, a network output of another
        shape than `x`, a sampler of learned variance with a network that predicts none, a negative `first_row`, or a
        part of a multistep table that needs the x̂0 or ε̂ of rows before it.
      FloatingPointError: with `debug`, a result that is not finite; the message names chunk, row and timestep.

    Examples:
      The exact ε̂ of data N(0, 1) is √(1-ᾱ_t)·x: 50 steps of DDIM keep the standard deviation near 1.

      >>> import diffjax as dj
      >>> schedule = dj.schedules.linear(1000)
      >>> predict = lambda x, t: jnp.sqrt(1 - jnp.asarray(schedule.alpha_bars)[t])[:, None].astype(x.dtype) * x
      >>> sampler = dj.samplers.ddim(schedule, dj.timesteps.trailing(1000, 50))
      >>> x_T = initial_noise(sample_keys(0, 0, 10_000), (1,))
      >>> round(float(jnp.std(sample(sampler, predict, x_T))), 1)
      1.0
    """
    sampler, predict, x, keys = _checked(sampler, predict, x, key)
    carry = loop.Carry.start(sampler, x, first_row=_checked_row(first_row))
    return loop.run(sampler, predict, carry, keys, as_clip(clip), progress=progress, debug=debug, remat=remat).x


def sample_trajectory(
    sampler: Sampler,
    predict: Predict,
    x: jax.Array,
    key: jax.Array | None = None,
    *,
    every: int = 1,
    clip: Clip = None,
    progress: bool | str = False,
) -> Trajectory:
    """Runs `sample` and keeps every `every`-th grid point with its prediction, always including the first and the last.

    Only the kept frames are held in memory. At clean data x0 is x itself; a last level other than -1 costs one more
    network call.

    Args:
      sampler, predict, x, key, clip, progress: as in `sample`.
      every: the number of grid steps between kept frames.

    Raises:
      ValueError: `every` < 1, and as in `sample`.
    """
    if every < 1:
        raise ValueError(f"every={every} must be ≥ 1")
    sampler, predict, x, keys = _checked(sampler, predict, x, key)
    grid = sampler.grid
    kept = np.arange(0, len(grid) - 1, every)
    # The network is first called at a grid point in the row after the one that lands there.
    calls = np.flatnonzero(np.append(True, sampler.lands[:-1]))[kept]
    slots = np.full(sampler.num_rows, len(kept), np.int32)
    slots[calls] = np.arange(len(kept))

    clip = as_clip(clip)
    carry = loop.run(sampler, predict, loop.Carry.start(sampler, x, len(kept)), keys, clip, slots, progress=progress)
    x_last = x0_last = carry.x
    if grid[-1] != -1:
        row = loop.idle(sampler, 1, sampler.signal_to[-1], sampler.noise_to[-1])
        x0_last, _, _ = jax.jit(loop.predict_row)(predict, jax.tree.map(lambda column: column[0], row), x_last, clip)
    return Trajectory(
        t=grid[np.append(kept, len(grid) - 1)],
        x=_append(carry.frames.x, x_last),
        x0=_append(carry.frames.x0, x0_last),
    )


def sample_many(
    sampler: Sampler,
    predict: Predict,
    shape: tuple[int, ...],
    *,
    seed: int,
    num: int,
    batch_size: int,
    clip: Clip = None,
    skip: Container[int] = (),
    per_batch: bool = False,
    progress: bool = False,
) -> Iterator[tuple[int, jax.Array]]:
    """Generates samples 0 … num-1 of a seed in batches: yields (number of the first, x `[≤ batch_size, *shape]`).

    Sample n is the same for any `num` and, up to float rounding, for any `batch_size`. Each batch is split over this
    process's devices if their number divides it. Several processes take batches in turn, and each yields its own. A
    deterministic sampler gets no keys, so its compiled program differs from that of a stochastic one.

    Args:
      sampler, predict, clip: as in `sample`.
      shape: the shape of one sample.
      seed: the seed of the keys (`sample_keys`).
      num, batch_size: the total number of samples, and the number in a batch.
      skip: the batches to leave out, by the numbers of their first samples; lets an interrupted run continue.
      per_batch: whether `predict` is a function from sample numbers, `int[batch_size]`, to the `predict` of that batch,
        which lets each sample have its own condition.
      progress: shows a progress bar over the rows of each batch.

    Raises:
      ValueError: num or batch_size < 1, and as in `sample`.
    """
    if num < 1 or batch_size < 1:
        raise ValueError(f"num={num} and batch_size={batch_size} must be ≥ 1")
    shared = None if per_batch else devices.replicate(as_pytree(predict), batch_size)
    for start in range(jax.process_index() * batch_size, num, jax.process_count() * batch_size):
        if start in skip:
            continue
        # The last batch is padded to the full size, so that all batches share one compilation.
        keys = devices.split(sample_keys(seed, start, batch_size), batch_size)
        description = f"samples {start} … {min(start + batch_size, num) - 1}" if progress else False
        network = shared
        if per_batch:
            network = devices.replicate(as_pytree(predict(np.arange(start, start + batch_size))), batch_size)
        x = initial_noise(keys, shape)
        x = sample(sampler, network, x, keys if sampler.is_stochastic else None, clip=clip, progress=description)
        yield start, x[: num - start]


def _append(frames: jax.Array, last: jax.Array) -> jax.Array:
    """Returns kept frames, without the last slot, and one more."""
    return jnp.concatenate([jax.lax.slice_in_dim(frames, 0, -1), last[None]])


def _checked(sampler: Sampler, predict: Predict, x: jax.Array, key: jax.Array | None):
    """Returns (sampler, predict as a pytree, x, keys [B] or None), after every check that needs no device."""
    predict = as_predict(predict)
    x = jnp.asarray(x)
    if x.ndim < 1 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x must be a float array [B, …]; it has shape {x.shape} and dtype {x.dtype}")
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    traced = any(isinstance(column, jax.core.Tracer) for column in jax.tree.leaves(sampler))
    if not traced:
        # On the host, so that slicing a chunk runs no device program.
        sampler = jax.tree.map(np.asarray, sampler)
        if key is None and sampler.is_stochastic:
            raise ValueError("this sampler adds noise: pass key, one typed key or one for each sample")
        if row := _first_row_without_history(sampler):
            raise ValueError(
                f"row {row - 1} of this table uses the network's output of rows before the first: a part of a "
                "multistep table cannot be run by itself"
            )
        if np.any(sampler.signal == 0):
            t = jax.ShapeDtypeStruct(x.shape[:1], sampler.t_net.dtype)
            if not isinstance(jax.eval_shape(predict, x, t), Prediction | Target):
                raise ValueError(
                    "this sampler calls the network at alpha_bar = 0, where eps does not determine x0: predict must "
                    "return a Prediction (parameterization.from_v, from_x0), or the grid must start lower"
                )
    elif key is None and (isinstance(sampler.d, jax.core.Tracer) or sampler.is_stochastic):
        raise ValueError("this traced sampler may add noise (its column d is traced, or not 0): pass key")
    if key is not None:
        key = keys_of(key, len(x))
    return sampler, predict, x, key


def _first_row_without_history(sampler: Sampler) -> int:
    """Returns 1 + the number of the first row that uses outputs of rows before the table's first; 0 if none does."""
    for history in (sampler.x0_history, sampler.eps_history):
        for row in range(min(history.shape[-1], sampler.num_rows)):
            if np.any(history[..., row, row:]):
                return row + 1
    return 0


def _checked_row(first_row: int | jax.Array) -> int | jax.Array:
    if isinstance(first_row, jax.Array):
        return first_row
    if isinstance(first_row, bool) or not isinstance(first_row, int | np.integer) or first_row < 0:
        raise ValueError(f"first_row={first_row!r} must be a whole number ≥ 0")
    return first_row
