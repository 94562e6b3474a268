"""Learned tables: the columns of a sampler are fitted by gradient descent through the sampling loop.

table = samplers.ddim(schedule, timesteps.trailing(1000, 5))
pairs = learn.teacher(schedule, predict, keys, shape)              # (x_T, where a many-step solver takes it)
fitted = learn.fit(table, learn.distance(predict), pairs, held_out=other_pairs)
x_0 = dj.sample(fitted.table, predict, x_T)
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffjax import samplers, sampling, timesteps
from diffjax.loop import Clip
from diffjax.noise import initial_noise
from diffjax.prediction import Predict, as_predict
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler

COLUMNS = ("a", "b", "c", "x0_history", "eps_history")
"""The columns that `fit` can change; those of the levels, the times and the noise stay."""

Loss = Callable[[Sampler, Any], jax.Array]
"""(table, batch of examples) → the mean loss, a scalar."""


class Pairs(NamedTuple):
    """Starting noises and the results of a teacher."""

    x: jax.Array
    """x_T `[N, …]`."""
    target: jax.Array
    """`[N, …]`: where the teacher takes x_T."""


class Fitted(NamedTuple):
    """A fitted table."""

    table: Sampler
    loss: float
    """The least held-out loss, which is that of `table`."""
    start: float
    """The held-out loss of the table before."""
    history: np.ndarray
    """`[K, 3]`: (step, mean training loss since the row before, held-out loss)."""


def teacher(
    schedule: NoiseSchedule,
    predict: Predict,
    keys: jax.Array,
    shape: tuple[int, ...],
    *,
    table: Sampler | None = None,
    batch_size: int = 250,
    clip: Clip = None,
) -> Pairs:
    """Runs a deterministic many-step solver from the initial noise of each key.

    Args:
      schedule: the noise schedule.
      predict: as in `sample`.
      keys: typed keys `[N]`.
      shape: the shape of one sample.
      table: the teacher; None: DPM-Solver++ of order 2 in 100 steps, at indices about uniform in
        log-SNR.
      batch_size: samples at a time.
      clip: as in `sample`.

    Raises:
      ValueError: a table that adds noise, or as in `sample`.
    """
    if table is None:
        table = samplers.dpm_solver_pp(schedule, timesteps.log_snr(schedule, 100, rounded=True))
    x = initial_noise(keys, shape)
    parts = [x[start : start + batch_size] for start in range(0, len(x), batch_size)]
    return Pairs(x, jnp.concatenate([sampling.sample(table, predict, part, clip=clip) for part in parts]))


def distance(predict: Predict, *, clip: Clip = None, remat: bool = True) -> Loss:
    """Returns the loss of `fit` that is the mean squared distance to the targets of `Pairs`.

    Args:
      predict: as in `sample`.
      clip: as in `sample`.
      remat: as in `sample`.
    """
    predict = as_predict(predict)
    return jax.tree_util.Partial(_distance, predict, clip, remat)


def _distance(predict, clip, remat, table: Sampler, pairs: Pairs) -> jax.Array:
    result = sampling.sample(table, predict, pairs.x, clip=clip, remat=bool(remat))
    return jnp.mean((result - pairs.target) ** 2)


def fit(
    table: Sampler,
    loss: Loss,
    data: Any,
    *,
    held_out: Any,
    num_steps: int = 400,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    free: Sequence[str] = COLUMNS,
    num_history: int | None = None,
    evaluate_every: int = 20,
    seed: int = 0,
) -> Fitted:
    """Fits columns of a table by Adam, as offsets from the solver that it starts as.

    The levels and the times of the rows stay, so the result is a table like any other. The table of the least held-out
    loss is returned, so the result is never worse there than the start.

    Args:
      table: the table to start from, for one sample loop (not stacked).
      loss: (table, batch) → scalar, differentiable; a `distance`, or the user's own.
      data: a pytree of arrays `[N, …]` from which batches are drawn.
      held_out: the same for the selection, `[M, …]`; all of it is one batch.
      num_steps: the number of updates.
      batch_size: examples of an update.
      learning_rate: the highest learning rate; it falls to 0 along a cosine.
      free: the columns that change, some of `COLUMNS`.
      num_history: widens both histories to so many rows, with zeros, so that a one-step solver can become a multistep
        one; None: as in `table`.
      evaluate_every: updates between two evaluations of the held-out loss.
      seed: the seed of the batches.

    Raises:
      ValueError: an unknown column, or a number out of range.
      FloatingPointError: a held-out loss of the start that is not finite.
    """
    if not free or set(free) - set(COLUMNS):
        raise ValueError(f"free={tuple(free)} must be some of {COLUMNS}")
    count = len(jax.tree.leaves(data)[0])
    for name, value in (("num_steps", num_steps), ("batch_size", batch_size), ("evaluate_every", evaluate_every)):
        if value < 1:
            raise ValueError(f"{name}={value} must be ≥ 1")
    if not 0.0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate={learning_rate} must be > 0 and finite")
    if num_history is not None:
        table = _widened(table, num_history)
    usable = {name: _usable(table, name) for name in free}
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))

    def moved(offsets):
        return dataclasses.replace(
            table, **{name: jnp.asarray(getattr(table, name)) + usable[name] * offsets[name] for name in free}
        )

    @jax.jit
    def update(offsets, state, data, loss, chosen):
        batch = jax.tree.map(lambda leaf: leaf[chosen], data)
        value, gradient = jax.value_and_grad(lambda offsets: loss(moved(offsets), batch))(offsets)
        change, state = optimizer.update(gradient, state)
        return optax.apply_updates(offsets, change), state, value

    @jax.jit
    def evaluate(offsets, held_out, loss):
        return loss(moved(offsets), held_out)

    offsets = {name: jnp.zeros(np.shape(getattr(table, name))) for name in free}
    state, rng, loss = optimizer.init(offsets), np.random.default_rng(seed), jax.tree_util.Partial(loss)
    best, best_loss = offsets, float(evaluate(offsets, held_out, loss))
    start = best_loss
    if not np.isfinite(start):
        raise FloatingPointError(f"the loss of the table to start from is {start}")
    history, recent = [(0, np.nan, start)], []
    for step in range(1, num_steps + 1):
        chosen = rng.choice(count, size=min(batch_size, count), replace=False)
        offsets, state, value = update(offsets, state, data, loss, chosen)
        recent.append(value)
        if step % evaluate_every == 0 or step == num_steps:
            held = float(evaluate(offsets, held_out, loss))
            history.append((step, float(np.mean(recent)), held))
            recent = []
            if held < best_loss:
                best, best_loss = offsets, held
    fitted = jax.tree.map(np.asarray, moved(best))
    return Fitted(fitted, best_loss, start, np.array(history))


def _widened(table: Sampler, count: int) -> Sampler:
    """Returns the table with histories of at least `count` rows."""

    def wide(history):
        missing = max(count - np.shape(history)[1], 0)
        return np.pad(history, ((0, 0), (0, missing)))

    return dataclasses.replace(table, x0_history=wide(table.x0_history), eps_history=wide(table.eps_history))


def _usable(table: Sampler, name: str) -> np.ndarray:
    """Returns 1 where an entry of a column multiplies something that exists, and 0 elsewhere."""
    column = np.asarray(getattr(table, name))
    if column.ndim == 1:
        return np.ones_like(column)
    rows, lags = np.arange(len(column))[:, None], np.arange(column.shape[1])[None, :]
    return (lags < rows).astype(float)
