"""The sampling loop: `sample` runs a `Sampler` table with a `predict` function as one jitted `lax.scan`.

`predict(x: [B, …], t: [B])` returns ε̂ `[B, …]`, a `Prediction` or a `Target`; t is int32, or in the dtype of x if the
grid lies between the timesteps. It is a pytree: with `jax.tree_util.Partial(apply, params)` the parameters are leaves,
so new parameters cause no recompilation.
"""

import dataclasses
from collections.abc import Callable, Container, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffjax import devices
from diffjax.noise import initial_noise, keys_of, sample_keys, sample_noise
from diffjax.prediction import Predict, Prediction, Target, as_predict, as_pytree, same_shape
from diffjax.steps import Sampler

Clip = float | Callable[[jax.Array], jax.Array] | None
"""The transform of x̂0: a limit, a function (`thresholds`), or None."""

_CHUNKS = range(20, 41)
"""A run with a progress bar is cut into about this many equal chunks, between which the host regains control."""


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
    unroll: bool = False,
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
      unroll: whether all rows are compiled, in place of one and a loop: the compilation takes longer, but on the CPU
        the gradient of few rows is several times as fast.

    Returns:
      `[B, …]`, like `x`.

    Raises:
      ValueError: no key for a sampler that adds noise, another number of keys than samples, a network output of another
        shape than `x`, a sampler of learned variance with a network that predicts none, a negative `first_row`, or a
        part of a multistep table that needs the x̂0 or ε̂ of rows before it.
      FloatingPointError: with `debug`, a result that is not finite; the message names chunk, row and timestep.
    """
    sampler, predict, x, keys = _checked(sampler, predict, x, key)
    carry = _Carry.start(sampler, x, first_row=_checked_row(first_row))
    options = {"remat": remat, "unroll": unroll}
    return _run(sampler, predict, carry, keys, as_clip(clip), progress=progress, debug=debug, **options).x


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
    carry = _run(sampler, predict, _Carry.start(sampler, x, len(kept)), keys, clip, slots, progress=progress)
    x_last = x0_last = carry.x
    if grid[-1] != -1:
        row = _idle(sampler, 1, sampler.signal_to[-1], sampler.noise_to[-1])
        x0_last, _, _ = jax.jit(_predict)(predict, jax.tree.map(lambda column: column[0], row), x_last, clip)
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


class _Frames(NamedTuple):
    """Kept frames `[K + 1, B, …]`; frames that are not kept are written to the last slot."""

    x: jax.Array
    x0: jax.Array


class _Carry(NamedTuple):
    """The state of the loop."""

    x: jax.Array
    row: jax.Array  # int32: this row's number in the whole table
    x0_history: jax.Array  # [H, B, …], newest first
    eps_history: jax.Array
    frames: _Frames | None

    @classmethod
    def start(
        cls, sampler: Sampler, x: jax.Array, num_frames: int | None = None, first_row: int | jax.Array = 0
    ) -> "_Carry":
        def zeros(count):
            # Unlike jnp.zeros, this transfers explicitly, which jax.transfer_guard("disallow") allows.
            return jnp.broadcast_to(jax.device_put(np.zeros((), x.dtype)), (count, *x.shape))

        return cls(
            x=x,
            row=first_row if isinstance(first_row, jax.Array) else jax.device_put(np.int32(first_row)),
            x0_history=zeros(np.shape(sampler.x0_history)[-1]),
            eps_history=zeros(np.shape(sampler.eps_history)[-1]),
            frames=None if num_frames is None else _Frames(zeros(num_frames + 1), zeros(num_frames + 1)),
        )


def _run(sampler, predict, carry, keys, clip, slots=None, *, progress=False, debug=False, **options) -> _Carry:
    """Runs the table in one dispatch, or in equal chunks if the host reports or checks in between.

    What a program takes is put on the device explicitly, so that it runs under `jax.transfer_guard("disallow")`.
    """
    if not progress and not debug:
        sampler, slots, clip = jax.device_put((sampler, slots, clip))
        return _scan(sampler, slots, predict, carry, keys, clip, **options)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((sampler, carry))):
        raise ValueError("progress and debug need the host between chunks of rows: use neither inside jit or vmap")
    rows = sampler.num_rows
    length = _chunk_length(rows)
    padding = -rows % length
    sampler = jax.tree.map(lambda *parts: np.concatenate(parts), sampler, _idle(sampler, padding))
    if slots is not None:
        slots = np.append(slots, np.full(padding, len(carry.frames.x) - 1, np.int32))
    carry, clip = _beside(carry, (predict, keys)), jax.device_put(clip)
    description = progress if isinstance(progress, str) else "sampling"
    with tqdm(total=rows, desc=description, unit="row", disable=not progress) as bar:
        for start in range(0, rows, length):
            chunk = slice(start, start + length)
            before = carry
            columns = jax.device_put((sampler[chunk], slots if slots is None else slots[chunk]))
            carry = jax.block_until_ready(_scan(*columns, predict, before, keys, clip))
            if debug and not np.all(np.isfinite(carry.x)):
                _raise_at_first_bad_row(sampler, chunk, predict, before, keys, clip)
            bar.update(min(length, rows - start))
    return carry


@partial(jax.jit, keep_unused=True)
def _beside(carry: _Carry, others) -> _Carry:
    """Places the carry like `others`, as `_scan` returns it; otherwise the second chunk would compile again."""
    return carry


@partial(jax.jit, static_argnames=("remat", "unroll"))
def _scan(
    sampler: Sampler, slots, predict, carry: _Carry, keys, clip, *, remat: bool = False, unroll: bool = False
) -> _Carry:
    """Loops over the rows."""

    def body(carry, columns):
        row, slot = columns
        x, x0, eps, scale = carry.x, *_predict(predict, row, carry.x, clip)
        row = _cast(row, x.dtype)
        new_x = row.a * x + row.b * x0 + row.c * eps
        for coefficients, history in ((row.x0_history, carry.x0_history), (row.eps_history, carry.eps_history)):
            for k in range(len(history)):
                new_x += coefficients[k] * history[k]
        if keys is not None:
            new_x += row.d * scale * sample_noise(keys, carry.row, x.shape[1:], x.dtype)
        frames = carry.frames
        if frames is not None:
            frames = _Frames(frames.x.at[slot].set(x), frames.x0.at[slot].set(x0))
        return _Carry(new_x, carry.row + 1, _push(carry.x0_history, x0), _push(carry.eps_history, eps), frames), None

    return jax.lax.scan(jax.checkpoint(body) if remat else body, carry, (sampler, slots), unroll=unroll)[0]


def _predict(predict: Predict, row: Sampler, x: jax.Array, clip: Clip):
    """Returns (x̂0, ε̂, factor of the noise) of one row: one network call, clipping, re-derivation of ε̂."""
    row = _cast(row, x.dtype)
    t = jnp.broadcast_to(row.t_net, x.shape[:1])
    x0, eps, frac = network_call(predict, x, t, row.signal, row.noise, clip)
    if clip is not None and row.rederive_eps:
        noisy = row.noise > 0
        eps = jnp.where(noisy, (x - row.signal * x0) / jnp.where(noisy, row.noise, 1), eps)
    if row.log_var is None:
        return x0, eps, jnp.ones((), x.dtype)
    if frac is None:
        raise ValueError("this sampler uses the network's variance: predict must return a Prediction with log_var_frac")
    low, high = row.log_var
    return x0, eps, jnp.exp(0.5 * (low + frac * (high - low)))


def network_call(
    predict: Predict, x: jax.Array, t: jax.Array, signal: jax.Array, noise: jax.Array, clip: Clip = None
) -> Prediction:
    """Calls the network at x = `signal`·x_0 + `noise`·ε, `[B, …]`, and clips x̂0; ε̂ is not derived again."""
    output = predict(x, t)
    if isinstance(output, Target):
        output = output.at(x, signal, noise)
    if isinstance(output, Prediction):
        x0, eps, frac = (part if part is None else _like(x, part) for part in output)
        # At ᾱ = 1, x̂0 is x and does not determine ε̂: the network's ε̂ is kept.
        x0 = jnp.where(noise > 0, x0, x)
    else:
        eps, frac = _like(x, output), None
        x0 = (x - noise * eps) / signal
    if clip is not None:
        x0 = clip(x0) if callable(clip) else jnp.clip(x0, -clip, clip)
    return Prediction(x0, eps, frac)


def _like(x: jax.Array, output: jax.Array) -> jax.Array:
    return jnp.asarray(same_shape(output, x), x.dtype)


def _cast(row: Sampler, dtype) -> Sampler:
    """Casts the row's floats to the dtype of x, so that no column promotes it."""
    return jax.tree.map(lambda c: c.astype(dtype) if jnp.issubdtype(c.dtype, jnp.floating) else c, row)


def _push(history: jax.Array, newest: jax.Array) -> jax.Array:
    return jnp.concatenate([newest[None], history])[: len(history)]


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


def as_clip(clip: Clip) -> Clip:
    """Returns `clip` in a form that jit accepts.

    Raises:
      ValueError: a number that is not > 0 and finite.
    """
    if callable(clip):
        return as_pytree(clip)
    if clip is not None and not isinstance(clip, jax.core.Tracer) and not 0 < clip < np.inf:
        raise ValueError(f"clip={clip} must be > 0 and finite, a function, or None for no clipping")
    return clip


def _chunk_length(rows: int) -> int:
    """Returns the length that cuts `rows` into 20 to 40 equal chunks (or fewer, for few rows) with least padding."""
    lengths = [-(-rows // chunks) for chunks in _CHUNKS if chunks <= rows] or [1]
    return min(lengths, key=lambda length: -rows % length)


def _idle(sampler: Sampler, count: int, signal=1.0, noise=0.0) -> Sampler:
    """Returns `count` rows at the table's last level that leave x unchanged."""

    def rows(value, like):
        return np.full((count, *np.shape(like)[1:]), value, np.asarray(like).dtype)

    idle = jax.tree.map(lambda column: rows(0, column), sampler)
    return dataclasses.replace(
        idle,
        t_net=rows(max(sampler.t_to[-1], 0), sampler.t_net),
        t_from=rows(sampler.t_to[-1], sampler.t_from),
        t_to=rows(sampler.t_to[-1], sampler.t_to),
        signal=rows(signal, sampler.signal),
        noise=rows(noise, sampler.noise),
        a=rows(1, sampler.a),
    )


def _raise_at_first_bad_row(sampler, chunk, predict, carry, keys, clip):
    """Runs a chunk again, row by row, to name the first row whose result is not finite."""
    for row in range(chunk.start, chunk.stop):
        carry = _scan(jax.device_put(sampler[row : row + 1]), None, predict, carry, keys, clip)
        if not np.all(np.isfinite(carry.x)):
            raise FloatingPointError(
                f"x is not finite after row {row} (chunk of rows {chunk.start} … {chunk.stop - 1}): step "
                f"{sampler.t_from[row]} → {sampler.t_to[row]}, network called at t={sampler.t_net[row]}"
            )
