"""Learned tables: the columns of a sampler are fitted by gradient descent through the sampling loop.

table = samplers.ddim(schedule, timesteps.trailing(1000, 5))
pairs = learn.teacher(schedule, predict, keys, shape)              # (x_T, where a many-step solver takes it)
fitted = learn.fit(table, learn.distance(predict), pairs, held_out=other_pairs)
x_0 = dj.sample(fitted.table, predict, x_T)
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from diffjax import samplers, sampling, timesteps
from diffjax.learn import moving
from diffjax.learn.losses import Loss
from diffjax.learn.moving import COLUMNS
from diffjax.loop import Clip
from diffjax.noise import initial_noise
from diffjax.prediction import Predict
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler


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


def trajectories(
    schedule: NoiseSchedule,
    predict: Predict,
    keys: jax.Array,
    shape: tuple[int, ...],
    grid: ArrayLike,
    *,
    substeps: int = 20,
    batch_size: int = 250,
    clip: Clip = None,
) -> jax.Array:
    """Returns the states of DPM-Solver++ of order 2 at the points of a grid, for `step_distance`.

    Args:
      schedule: the noise schedule.
      predict: as in `sample`; it must take times between the timesteps.
      keys: typed keys `[N]` of the initial noise.
      shape: the shape of one sample.
      grid: `[S+1]`, descending.
      substeps: the solver's steps in a step of the grid, equal in t.
      batch_size: samples at a time.
      clip: as in `sample`.

    Returns:
      `[N, S+1, …]`, the initial noise first.

    Raises:
      ValueError: substeps < 1, an invalid grid, or as in `sample`.
    """
    if substeps < 1:
        raise ValueError(f"substeps={substeps} must be ≥ 1")
    grid = timesteps.check(grid, schedule.num_timesteps).astype(np.float64)
    fine = np.interp(np.arange(substeps * (len(grid) - 1) + 1) / substeps, np.arange(len(grid)), grid)
    table, x = samplers.dpm_solver_pp(schedule, fine), initial_noise(keys, shape)
    parts = [
        sampling.sample_trajectory(table, predict, x[start : start + batch_size], every=substeps, clip=clip).x
        for start in range(0, len(x), batch_size)
    ]
    return jnp.swapaxes(jnp.concatenate(parts, axis=1), 0, 1)


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
    schedule: NoiseSchedule | None = None,
    num_history: int | None = None,
    evaluate_every: int = 20,
    seed: int = 0,
) -> Fitted:
    """Fits a table by Adam, as offsets from the solver that it starts as.

    The result is a table like any other; its noise stays. The table of the least held-out loss is returned, so the
    result is never worse there than the start.

    Args:
      table: the table to start from, for one sample loop (not stacked).
      loss: (table, batch) → scalar, differentiable; `distance`, `step_distance`, `kernel_distance`, or the user's own.
      data: a pytree of arrays `[N, …]` from which batches are drawn.
      held_out: the same for the selection, `[M, …]`; all of it is one batch.
      num_steps: the number of updates.
      batch_size: examples of an update.
      learning_rate: the highest learning rate; it falls to 0 along a cosine.
      free: the parts that change: some of `COLUMNS`, and "grid", the times between the first and the last.
      schedule: the noise schedule of the table, for "grid".
      num_history: widens both histories to so many rows, with zeros, so that a one-step solver can become a multistep
        one; None: as in `table`.
      evaluate_every: updates between two evaluations of the held-out loss.
      seed: the seed of the batches.

    Raises:
      ValueError: an unknown part, a grid that cannot change, or a number out of range.
      FloatingPointError: a held-out loss of the start that is not finite.
    """
    moving.check(table, free, schedule)
    count = len(jax.tree.leaves(data)[0])
    for name, value in (("num_steps", num_steps), ("batch_size", batch_size), ("evaluate_every", evaluate_every)):
        if value < 1:
            raise ValueError(f"{name}={value} must be ≥ 1")
    if not 0.0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate={learning_rate} must be > 0 and finite")
    if num_history is not None:
        table = moving.widened(table, num_history)
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))

    def loss_at(offsets, loss, batch):
        return loss(moving.moved(table, schedule, offsets), batch)

    @jax.jit
    def update(offsets, state, data, loss, chosen):
        batch = jax.tree.map(lambda leaf: leaf[chosen], data)
        value, gradient = jax.value_and_grad(loss_at)(offsets, loss, batch)
        change, state = optimizer.update(gradient, state)
        return optax.apply_updates(offsets, change), state, value

    evaluate = jax.jit(loss_at)
    offsets = moving.zeros(table, free)
    state, rng, loss = optimizer.init(offsets), np.random.default_rng(seed), jax.tree_util.Partial(loss)
    best, best_loss = offsets, float(evaluate(offsets, loss, held_out))
    start = best_loss
    if not np.isfinite(start):
        raise FloatingPointError(f"the loss of the table to start from is {start}")
    history, recent = [(0, np.nan, start)], []
    for step in range(1, num_steps + 1):
        chosen = rng.choice(count, size=min(batch_size, count), replace=False)
        offsets, state, value = update(offsets, state, data, loss, chosen)
        recent.append(value)
        if step % evaluate_every == 0 or step == num_steps:
            held = float(evaluate(offsets, loss, held_out))
            history.append((step, float(np.mean(recent)), held))
            recent = []
            if held < best_loss:
                best, best_loss = offsets, held
    return Fitted(moving.on_host(table, schedule, best), best_loss, start, np.array(history))
