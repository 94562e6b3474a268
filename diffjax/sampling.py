"""The one loop: `sample` runs a `Steps` table against a `predict` function as one jitted `lax.scan`.

`predict(x: [B, …], t: int32[B])` returns ε̂ `[B, …]`, or a `Prediction`. It is a pytree: write
`jax.tree_util.Partial(apply, params)` and the parameters are leaves, so new parameters compile nothing.
"""

import dataclasses
from collections.abc import Callable, Container, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffjax import devices
from diffjax.noise import initial_noise, keys_of, sample_keys, sample_noise
from diffjax.steps import Steps

Predict = Callable[[jax.Array, jax.Array], Any]
Clip = float | Callable[[jax.Array], jax.Array] | None

# A long run is cut into about this many equal chunks, between which the host may speak.
_CHUNKS = range(20, 41)


class Prediction(NamedTuple):
    """What a network says of x_t, where ε̂ alone is not enough (v- and x0-networks at ᾱ = 0, learned variance)."""

    x0: jax.Array
    """x̂0 `[B, …]`."""
    eps: jax.Array
    """ε̂ `[B, …]`."""
    log_var_frac: jax.Array | None = None
    """`[B, …]`: where log σ² lies between the bounds in `Steps.log_var` (0 the low one, 1 the high one)."""


class Trajectory(NamedTuple):
    """Frames of a run: `x[k]` is at level `t[k]` (-1 is clean data), and `x0[k]` was predicted from it."""

    t: np.ndarray
    """int32 `[K]`."""
    x: jax.Array
    """`[K, B, …]`."""
    x0: jax.Array
    """`[K, B, …]`, clipped as the run was."""


def sample(
    steps: Steps,
    predict: Predict,
    x: jax.Array,
    key: jax.Array | None = None,
    *,
    clip: Clip = None,
    progress: bool | str = False,
    debug: bool = False,
) -> jax.Array:
    """Runs a table: from `x` at level `steps.grid[0]` to the result at `steps.grid[-1]`.

    May itself be jitted, vmapped over a stack of tables, or given a sharded `x`.

    Args:
      steps: the sampler.
      predict: `predict(x, t) → ε̂ or Prediction`; a pytree (see above), or a plain function.
      x: `[B, …]` float32 or float64; narrower floats are widened to float32.
      key: typed keys `[B]`, or one key (then sample n uses `fold_in(key, n)`), or None if the table adds no noise.
        Row i of sample n draws from `fold_in(key_n, i)`: noise does not depend on the batch.
      clip: x̂0 is clipped to [-clip, clip], or put through a function (`thresholds`); None: left as it is.
      progress: a progress bar (a string names it), drawn between equal chunks of rows.
      debug: stop at the first row whose result is not finite.

    Returns:
      `[B, …]`, like `x`.

    Raises:
      ValueError: no key for a table that adds noise, keys of another count than the batch, a network output of another
        shape than `x`, a learned-variance table with a network that predicts none.
      FloatingPointError: with `debug`, naming chunk, row and timestep.
    """
    steps, predict, x, keys = _checked(steps, predict, x, key)
    return _run(steps, predict, _Carry.start(steps, x), keys, as_clip(clip), progress=progress, debug=debug).x


def sample_trajectory(
    steps: Steps,
    predict: Predict,
    x: jax.Array,
    key: jax.Array | None = None,
    *,
    every: int = 1,
    clip: Clip = None,
    progress: bool | str = False,
) -> Trajectory:
    """`sample`, keeping every `every`-th grid point and what was predicted there; the first and the last always.

    Memory holds the kept frames alone. Clean data predicts itself; a last level other than -1 costs one more call.

    Raises:
      ValueError: `every` < 1, and as `sample`.
    """
    if every < 1:
        raise ValueError(f"every={every} must be ≥ 1")
    steps, predict, x, keys = _checked(steps, predict, x, key)
    grid = steps.grid
    kept = np.arange(0, len(grid) - 1, every)
    # The network's first look at a grid point is in the row after the one that landed there.
    looks = np.flatnonzero(np.append(True, steps.lands[:-1]))[kept]
    slots = np.full(steps.num_rows, len(kept), np.int32)
    slots[looks] = np.arange(len(kept))

    clip = as_clip(clip)
    carry = _run(steps, predict, _Carry.start(steps, x, len(kept)), keys, clip, slots, progress=progress)
    x_last = x0_last = carry.x
    if grid[-1] != -1:
        look = _idle(steps, 1, steps.signal_to[-1], steps.noise_to[-1])
        x0_last, _, _ = jax.jit(_predict)(predict, jax.tree.map(lambda column: column[0], look), x_last, clip)
    return Trajectory(
        t=grid[np.append(kept, len(grid) - 1)],
        x=jnp.concatenate([carry.frames.x[:-1], x_last[None]]),
        x0=jnp.concatenate([carry.frames.x0[:-1], x0_last[None]]),
    )


def sample_many(
    steps: Steps,
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
    """Samples 0 … num-1 of a seed, in batches: yields (number of the first, x `[≤ batch_size, *shape]`).

    Sample n is the same whatever `num`, and to float rounding whatever `batch_size`. Batches are spread over this
    process's devices if these divide them, and over processes in turn: each yields its own. A table that adds no noise
    draws none, and so is another program than one that does.

    Args:
      steps, predict, clip: as for `sample`.
      shape: of one sample.
      seed: of the keys (`sample_keys`).
      num, batch_size: how many in all, and at once.
      skip: first numbers of batches that are there already: a run that was cut goes on.
      per_batch: `predict` is a function of the samples' numbers, `int[batch_size]`, that gives their predict: each
        sample has a condition of its own.
      progress: a progress bar over the rows of each batch.

    Raises:
      ValueError: num or batch_size under 1, and as `sample`.
    """
    if num < 1 or batch_size < 1:
        raise ValueError(f"num={num} and batch_size={batch_size} must be ≥ 1")
    shared = None if per_batch else devices.everywhere(as_pytree(predict), batch_size)
    for start in range(jax.process_index() * batch_size, num, jax.process_count() * batch_size):
        if start in skip:
            continue
        # The last batch is filled up, so that one compilation serves all.
        keys = devices.split(sample_keys(seed, start, batch_size), batch_size)
        description = f"samples {start} … {min(start + batch_size, num) - 1}" if progress else False
        asked = shared
        if per_batch:
            asked = devices.everywhere(as_pytree(predict(np.arange(start, start + batch_size))), batch_size)
        x = initial_noise(keys, shape)
        x = sample(steps, asked, x, keys if steps.is_stochastic else None, clip=clip, progress=description)
        yield start, x[: num - start]


class _Frames(NamedTuple):
    """Kept frames `[K + 1, B, …]`; the last slot takes whatever is not kept."""

    x: jax.Array
    x0: jax.Array


class _Carry(NamedTuple):
    """What goes from row to row."""

    x: jax.Array
    row: jax.Array  # int32: this row's number, whatever chunk it is in
    x0_history: jax.Array  # [H, B, …], newest first
    eps_history: jax.Array
    frames: _Frames | None

    @classmethod
    def start(cls, steps: Steps, x: jax.Array, num_frames: int | None = None) -> "_Carry":
        def zeros(count):
            return jnp.zeros((count, *x.shape), x.dtype)

        return cls(
            x=x,
            row=jnp.int32(0),
            x0_history=zeros(np.shape(steps.x0_history)[-1]),
            eps_history=zeros(np.shape(steps.eps_history)[-1]),
            frames=None if num_frames is None else _Frames(zeros(num_frames + 1), zeros(num_frames + 1)),
        )


def _run(steps, predict, carry, keys, clip, slots=None, *, progress=False, debug=False) -> _Carry:
    """The whole table in one dispatch, or in equal chunks where the host has something to say in between."""
    if not progress and not debug:
        return _scan(steps, slots, predict, carry, keys, clip)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((steps, carry))):
        raise ValueError("progress and debug speak between dispatches: they cannot be had inside jit or vmap")
    rows = steps.num_rows
    length = _chunk_length(rows)
    padding = -rows % length
    steps = jax.tree.map(lambda *parts: np.concatenate(parts), steps, _idle(steps, padding))
    if slots is not None:
        slots = np.append(slots, np.full(padding, len(carry.frames.x) - 1, np.int32))
    carry = _beside(carry, (predict, keys))
    description = progress if isinstance(progress, str) else "sampling"
    with tqdm(total=rows, desc=description, unit="row", disable=not progress) as bar:
        for start in range(0, rows, length):
            chunk = slice(start, start + length)
            before = carry
            columns, chunk_slots = jax.tree.map(lambda column: column[chunk], (steps, slots))  # noqa: B023
            carry = jax.block_until_ready(_scan(columns, chunk_slots, predict, before, keys, clip))
            if debug and not np.all(np.isfinite(carry.x)):
                _raise_at_first_bad_row(steps, chunk, predict, before, keys, clip)
            bar.update(min(length, rows - start))
    return carry


@partial(jax.jit, keep_unused=True)
def _beside(carry: _Carry, others) -> _Carry:
    """The carry where `others` are, as `_scan` will return it: else its second chunk would be compiled anew."""
    return carry


@jax.jit
def _scan(steps: Steps, slots, predict, carry: _Carry, keys, clip) -> _Carry:
    """The one loop over rows."""

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

    return jax.lax.scan(body, carry, (steps, slots))[0]


def _predict(predict: Predict, row: Steps, x: jax.Array, clip: Clip):
    """(x̂0, ε̂, factor of the row's noise) at one row: one network call, clipping, re-derivation."""
    row = _cast(row, x.dtype)
    t = jnp.full(x.shape[:1], row.t_net, jnp.int32)
    x0, eps, frac = ask(predict, x, t, row.signal, row.noise, clip)
    if clip is not None and row.rederive_eps:
        noisy = row.noise > 0
        eps = jnp.where(noisy, (x - row.signal * x0) / jnp.where(noisy, row.noise, 1), eps)
    if row.log_var is None:
        return x0, eps, jnp.ones((), x.dtype)
    if frac is None:
        raise ValueError(
            "this sampler takes the variance from the network: predict must return a Prediction with log_var_frac"
        )
    low, high = row.log_var
    return x0, eps, jnp.exp(0.5 * (low + frac * (high - low)))


def ask(
    predict: Predict, x: jax.Array, t: jax.Array, signal: jax.Array, noise: jax.Array, clip: Clip = None
) -> Prediction:
    """One network call at x = `signal`·x_0 + `noise`·ε, `[B, …]`: x̂0 clipped, ε̂ as the network has it."""
    answer = predict(x, t)
    if isinstance(answer, Prediction):
        x0, eps, frac = (part if part is None else _like(x, part) for part in answer)
        # Where ᾱ = 1, x is its own x̂0, and holds no noise to derive ε̂ from: the network's stays.
        x0 = jnp.where(noise > 0, x0, x)
    else:
        eps, frac = _like(x, answer), None
        x0 = (x - noise * eps) / signal
    if clip is not None:
        x0 = clip(x0) if callable(clip) else jnp.clip(x0, -clip, clip)
    return Prediction(x0, eps, frac)


def _like(x: jax.Array, answer: jax.Array) -> jax.Array:
    if jnp.shape(answer) != x.shape:
        raise ValueError(f"predict returned shape {jnp.shape(answer)} for x of shape {x.shape}: they must be equal")
    return jnp.asarray(answer, x.dtype)


def _cast(row: Steps, dtype) -> Steps:
    """The row's floats in the sampler's dtype, so that no column promotes x."""
    return jax.tree.map(lambda c: c.astype(dtype) if jnp.issubdtype(c.dtype, jnp.floating) else c, row)


def _push(history: jax.Array, newest: jax.Array) -> jax.Array:
    return jnp.concatenate([newest[None], history])[: len(history)]


def as_pytree(function: Callable) -> Callable:
    """A function as jit can take it: itself if it is a pytree, or as `Partial`, compared by identity."""
    return jax.tree_util.Partial(function) if jax.tree_util.all_leaves([function]) else function


def _checked(steps: Steps, predict: Predict, x: jax.Array, key: jax.Array | None):
    """(steps, predict as a pytree, x, keys [B] or None), after every check that needs no device."""
    x = jnp.asarray(x)
    if x.ndim < 1 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x must be a float array [B, …]; it has shape {x.shape} and dtype {x.dtype}")
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    traced = any(isinstance(column, jax.core.Tracer) for column in jax.tree.leaves(steps))
    if not traced:
        # On the host, so that cutting out a chunk is no device program.
        steps = jax.tree.map(np.asarray, steps)
        if key is None and steps.is_stochastic:
            raise ValueError("this sampler adds noise: pass key, one typed key or one for each sample")
        if np.any(steps.signal == 0):
            t = jax.ShapeDtypeStruct(x.shape[:1], jnp.int32)
            if not isinstance(jax.eval_shape(predict, x, t), Prediction):
                raise ValueError(
                    "this table asks the network where alpha_bar = 0, from where eps says nothing of x0: predict must "
                    "return a Prediction (guidance.from_v, from_x0), or the grid start lower"
                )
    elif key is None:
        raise ValueError("a traced table may add noise: pass key (one that adds none leaves it unused)")
    if key is not None:
        key = keys_of(key, len(x))
    if not callable(predict):
        raise ValueError(f"predict must be callable as predict(x, t); it is a {type(predict).__name__}")
    return steps, as_pytree(predict), x, key


def as_clip(clip: Clip) -> Clip:
    """`clip` as jit can take it.

    Raises:
      ValueError: a number that is not above 0.
    """
    if callable(clip):
        return as_pytree(clip)
    if clip is not None and not isinstance(clip, jax.core.Tracer) and not clip > 0:
        raise ValueError(f"clip={clip} must be above 0, a function, or None for no clipping")
    return clip


def _chunk_length(rows: int) -> int:
    """The length that cuts `rows` into 20 to 40 equal chunks (fewer if there are fewer rows) with the least padding."""
    lengths = [-(-rows // chunks) for chunks in _CHUNKS if chunks <= rows] or [1]
    return min(lengths, key=lambda length: -rows % length)


def _idle(steps: Steps, count: int, signal=1.0, noise=0.0) -> Steps:
    """`count` rows that leave x as it is, at the table's last level."""

    def rows(value, like):
        return np.full((count, *np.shape(like)[1:]), value, np.asarray(like).dtype)

    idle = jax.tree.map(lambda column: rows(0, column), steps)
    return dataclasses.replace(
        idle,
        t_net=rows(max(steps.t_to[-1], 0), steps.t_net),
        t_from=rows(steps.t_to[-1], steps.t_from),
        t_to=rows(steps.t_to[-1], steps.t_to),
        signal=rows(signal, steps.signal),
        noise=rows(noise, steps.noise),
        a=rows(1, steps.a),
    )


def _raise_at_first_bad_row(steps, chunk, predict, carry, keys, clip):
    """Walks a chunk again, row by row, to name the first whose result is not finite."""
    for row in range(chunk.start, chunk.stop):
        columns = jax.tree.map(lambda column: column[row : row + 1], steps)  # noqa: B023
        carry = _scan(columns, None, predict, carry, keys, clip)
        if not np.all(np.isfinite(carry.x)):
            raise FloatingPointError(
                f"x is not finite after row {row} (chunk of rows {chunk.start} … {chunk.stop - 1}): step "
                f"{steps.t_from[row]} → {steps.t_to[row]}, network asked at t={steps.t_net[row]}"
            )
