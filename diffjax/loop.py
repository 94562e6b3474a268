"""The loop of `sampling`: one jitted `lax.scan` over a table's rows, each a network call and a linear combination."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from diffjax.noise import sample_noise
from diffjax.prediction import Predict, Prediction, Target, as_pytree, same_shape
from diffjax.steps import Column, Sampler

Clip = float | Callable[[jax.Array], jax.Array] | None
"""The transform of x̂0: a limit, a function (`thresholds`), or None."""

_CHUNKS = range(20, 41)
"""A run with a progress bar is cut into about this many equal chunks, between which the host regains control."""


class Frames(NamedTuple):
    """Kept frames `[K + 1, B, …]`; frames that are not kept are written to the last slot."""

    x: jax.Array
    x0: jax.Array


class Carry(NamedTuple):
    """The state of the loop."""

    x: jax.Array
    row: jax.Array  # int32: this row's number in the whole table
    x0_history: jax.Array  # [H, B, …], newest first
    eps_history: jax.Array
    frames: Frames | None

    @classmethod
    def start(
        cls, sampler: Sampler, x: jax.Array, num_frames: int | None = None, first_row: int | jax.Array = 0
    ) -> "Carry":
        """Returns the state before the first row: empty histories, and slots for `num_frames` frames if it is given."""

        def zeros(count):
            # Unlike jnp.zeros, this transfers explicitly, which jax.transfer_guard("disallow") allows.
            return jnp.broadcast_to(jax.device_put(np.zeros((), x.dtype)), (count, *x.shape))

        return cls(
            x=x,
            row=first_row if isinstance(first_row, jax.Array) else jax.device_put(np.int32(first_row)),
            x0_history=zeros(np.shape(sampler.x0_history)[-1]),
            eps_history=zeros(np.shape(sampler.eps_history)[-1]),
            frames=None if num_frames is None else Frames(zeros(num_frames + 1), zeros(num_frames + 1)),
        )


def run(
    sampler: Sampler,
    predict: Predict,
    carry: Carry,
    keys: jax.Array | None,
    clip: Clip,
    slots: np.ndarray | None = None,
    *,
    progress: bool | str = False,
    debug: bool = False,
    **options: bool,
) -> Carry:
    """Runs the table in one dispatch, or in equal chunks if the host reports or checks in between.

    `options` are those of `scan`. What a program takes is put on the device explicitly, so that it runs under
    `jax.transfer_guard("disallow")`.
    """
    if not progress and not debug:
        sampler, slots, clip = jax.device_put((sampler, slots, clip))
        return scan(sampler, slots, predict, carry, keys, clip, **options)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((sampler, carry))):
        raise ValueError("progress and debug need the host between chunks of rows: use neither inside jit or vmap")
    rows = sampler.num_rows
    length = _chunk_length(rows)
    padding = -rows % length
    sampler = jax.tree.map(lambda *parts: np.concatenate(parts), sampler, idle(sampler, padding))
    if slots is not None:
        slots = np.append(slots, np.full(padding, len(carry.frames.x) - 1, np.int32))
    carry, clip = _beside(carry, (predict, keys)), jax.device_put(clip)
    description = progress if isinstance(progress, str) else "sampling"
    with tqdm(total=rows, desc=description, unit="row", disable=not progress) as bar:
        for start in range(0, rows, length):
            chunk = slice(start, start + length)
            before = carry
            columns = jax.device_put((sampler[chunk], slots if slots is None else slots[chunk]))
            carry = jax.block_until_ready(scan(*columns, predict, before, keys, clip))
            if debug and not np.all(np.isfinite(carry.x)):
                _raise_at_first_bad_row(sampler, chunk, predict, before, keys, clip)
            bar.update(min(length, rows - start))
    return carry


@partial(jax.jit, keep_unused=True)
def _beside(carry: Carry, others) -> Carry:
    """Places the carry like `others`, as `scan` returns it; otherwise the second chunk would compile again."""
    return carry


@partial(jax.jit, static_argnames="remat")
def scan(sampler: Sampler, slots, predict, carry: Carry, keys, clip, *, remat: bool = False) -> Carry:
    """Loops over the rows."""

    def body(carry, columns):
        row, slot = columns
        x, x0, eps, scale = carry.x, *predict_row(predict, row, carry.x, clip)
        row = cast_row(row, x.dtype)
        new_x = row.a * x + row.b * x0 + row.c * eps
        for coefficients, history in ((row.x0_history, carry.x0_history), (row.eps_history, carry.eps_history)):
            for k in range(len(history)):
                new_x += coefficients[k] * history[k]
        if keys is not None:
            new_x += row.d * scale * sample_noise(keys, carry.row, x.shape[1:], x.dtype)
        frames = carry.frames
        if frames is not None:
            frames = Frames(frames.x.at[slot].set(x), frames.x0.at[slot].set(x0))
        return Carry(new_x, carry.row + 1, _push(carry.x0_history, x0), _push(carry.eps_history, eps), frames), None

    return jax.lax.scan(jax.checkpoint(body) if remat else body, carry, (sampler, slots))[0]


def predict_row(predict: Predict, row: Sampler, x: jax.Array, clip: Clip):
    """Returns (x̂0, ε̂, factor of the noise) of one row: one network call, clipping, re-derivation of ε̂."""
    row = cast_row(row, x.dtype)
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
    predict: Predict, x: jax.Array, t: jax.Array, signal: Column, noise: Column, clip: Clip = None
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


def cast_row(row: Sampler, dtype) -> Sampler:
    """Casts the row's floats to the dtype of x, so that no column promotes it."""
    return jax.tree.map(lambda c: c.astype(dtype) if jnp.issubdtype(c.dtype, jnp.floating) else c, row)


def _push(history: jax.Array, newest: jax.Array) -> jax.Array:
    return jnp.concatenate([newest[None], history])[: len(history)]


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


def idle(sampler: Sampler, count: int, signal: ArrayLike = 1.0, noise: ArrayLike = 0.0) -> Sampler:
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
        carry = scan(jax.device_put(sampler[row : row + 1]), None, predict, carry, keys, clip)
        if not np.all(np.isfinite(carry.x)):
            raise FloatingPointError(
                f"x is not finite after row {row} (chunk of rows {chunk.start} … {chunk.stop - 1}): step "
                f"{sampler.t_from[row]} → {sampler.t_to[row]}, network called at t={sampler.t_net[row]}"
            )
