"""Samples the timesteps of a training batch, given the step's key and the examples' numbers in the global batch."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.registry import Registry, call
from diffjax.schedules import NoiseSchedule

TIMESTEP_SAMPLINGS = Registry("timestep sampling")
"""Functions (options) → t `[B]` or a `TimestepSample`, with any of these parameters, which are passed by name:

    key: the step's key
    n: int `[B]`, the numbers of the examples in the global batch
    batch_size: the size of the global batch
    num_timesteps: T
    history: a `LossHistory`; the training state keeps one if the function has this parameter
    schedule: the noise schedule; a function with this parameter may return real times
"""

GIVEN = ("key", "n", "batch_size", "num_timesteps", "history", "schedule")
"""The parameters of a timestep sampling that are no options of it."""

_KEPT = 10
_UNIFORM_SHARE = 1e-3


class LossHistory(NamedTuple):
    """The last 10 losses at each t, from which "importance" computes its probabilities."""

    losses: jax.Array
    """float32 `[T, 10]`."""
    count: jax.Array
    """int32 `[T]`: the number of losses so far."""


class TimestepSample(NamedTuple):
    """The timesteps of a batch."""

    t: jax.Array
    """int32, or float32 between the timesteps, `[B]`, in 0 … T-1."""
    weight: jax.Array
    """float32 `[B]`, 1/(T·p(t)): the mean of weight·loss estimates the mean over uniform t."""


def empty_history(num_timesteps: int) -> LossHistory:
    """Returns a history without losses."""
    return LossHistory(jnp.zeros((num_timesteps, _KEPT)), jnp.zeros(num_timesteps, jnp.int32))


def initial_history(kind: str, num_timesteps: int) -> LossHistory | None:
    """Returns an empty history if the timestep sampling `kind` needs one, else None."""
    needed = "history" in inspect.signature(TIMESTEP_SAMPLINGS[kind]).parameters
    return empty_history(num_timesteps) if needed else None


def has_real_times(kind: str, schedule: NoiseSchedule, options: Mapping[str, Any]) -> bool:
    """Returns whether a timestep sampling has times between the timesteps, after checking its options.

    Raises:
      ValueError: as in `sample_timesteps`.
    """

    def sampled():
        key, history = jax.random.key(0), initial_history(kind, schedule.num_timesteps)
        return sample_timesteps(
            kind, key, jnp.arange(2), batch_size=2, schedule=schedule, history=history, options=options
        )

    return jnp.issubdtype(jax.eval_shape(sampled).t.dtype, jnp.floating)


@TIMESTEP_SAMPLINGS.register
def uniform(key: jax.Array, n: jax.Array, num_timesteps: int) -> jax.Array:
    """Samples t of each example independently from U{0 … T-1}: int32 `[B]`."""
    return jax.vmap(lambda key: jax.random.randint(key, (), 0, num_timesteps))(_children(key, n)[0])


@TIMESTEP_SAMPLINGS.register
def antithetic(key: jax.Array, n: jax.Array, num_timesteps: int) -> jax.Array:
    """Samples t and T-1-t for examples 2k and 2k + 1 (DDIM's code pairs the two halves of a batch): int32 `[B]`."""
    t = uniform(key, n - n % 2, num_timesteps)
    return jnp.where(n % 2, num_timesteps - 1 - t, t)


@TIMESTEP_SAMPLINGS.register
def low_discrepancy(key: jax.Array, n: jax.Array, batch_size: int, num_timesteps: int) -> jax.Array:
    """Spreads t evenly over the batch: t = ⌊T·((u + n/B) mod 1)⌋, u ~ U(0, 1) (Kingma et al. 2021, App. I.1)."""
    # Computed in integers, hence exact. The key is the child after that of the last example.
    offset = jax.random.randint(jax.random.fold_in(key, batch_size), (), 0, num_timesteps * batch_size)
    return (offset + n * num_timesteps) // batch_size % num_timesteps


@TIMESTEP_SAMPLINGS.register
def importance(key: jax.Array, n: jax.Array, num_timesteps: int, history: LossHistory) -> TimestepSample:
    """Samples t of each example independently with the probabilities `probabilities(history)`."""
    p = probabilities(history)
    cumulative = jnp.cumsum(p)
    u = jax.vmap(jax.random.uniform)(_children(key, n)[0])
    t = jnp.searchsorted(cumulative, u * cumulative[-1], side="right").astype(jnp.int32)
    t = jnp.minimum(t, num_timesteps - 1)
    return TimestepSample(t, 1.0 / (num_timesteps * p[t]))


@TIMESTEP_SAMPLINGS.register
def log_normal(
    key: jax.Array, n: jax.Array, schedule: NoiseSchedule, *, level_mean: float = -1.2, level_std: float = 1.2
) -> jax.Array:
    """Samples log σ̄ of each example from N(`level_mean`, `level_std`²), as EDM does: real t, float32 `[B]`.

    (Karras et al. 2022, Table 1: P_mean, P_std.) The time u = σ̄/(1+σ̄) of the linear path is then logit-normal with the
    same mean and standard deviation, since logit(u) = log σ̄; 0 and 1 are rf/lognorm(0, 1) of SD3 (Esser et al. 2024,
    §3.1). Levels outside the schedule become its nearest timestep.

    Args:
      level_mean: the mean of log σ̄; -1.2 in EDM, 0 in SD3.
      level_std: the standard deviation of log σ̄; 1.2 in EDM, 1 in SD3.

    Raises:
      ValueError: numbers that are not finite, or a standard deviation ≤ 0.
    """
    if not -np.inf < level_mean < np.inf:
        raise ValueError(f"level_mean={level_mean} must be finite")
    if not 0.0 < level_std < np.inf:
        raise ValueError(f"level_std={level_std} must be > 0 and finite")
    log_sigma = level_mean + level_std * jax.vmap(jax.random.normal)(_children(key, n)[0])
    levels = schedule.sigma_bars[np.isfinite(schedule.sigma_bars)]
    t = jnp.interp(log_sigma, np.log(levels), np.arange(len(levels), dtype=np.float32))
    if len(levels) == schedule.num_timesteps:
        return t
    # As in continuous_time.timestep_at: 1/σ̄ is linear in t to a last timestep of ᾱ = 0.
    beyond = len(levels) - jnp.exp(np.log(levels[-1]) - log_sigma)
    return jnp.where(log_sigma > np.log(levels[-1]), beyond, t)


def sample_timesteps(
    kind: str,
    key: jax.Array,
    n: jax.Array,
    *,
    batch_size: int,
    schedule: NoiseSchedule,
    history: LossHistory | None = None,
    options: Mapping[str, Any] | None = None,
) -> TimestepSample:
    """Samples the timesteps of examples `n` `[B]` of a global batch.

    Args:
      kind: a name in `TIMESTEP_SAMPLINGS`, or an import path.
      key: the step's key.
      n: int `[B]`, the numbers of the examples in the global batch.
      batch_size: the size of the global batch.
      schedule: the noise schedule.
      history: the losses so far, if the timestep sampling needs them (`initial_history`).
      options: the options of the timestep sampling.

    Raises:
      ValueError: an unknown name, or an invalid option.
    """
    given = {
        "key": key,
        "n": n,
        "batch_size": batch_size,
        "num_timesteps": schedule.num_timesteps,
        "history": history,
        "schedule": schedule,
    }
    sampled = call(TIMESTEP_SAMPLINGS[kind], given, options or {})
    if isinstance(sampled, TimestepSample):
        return sampled
    return TimestepSample(sampled, jnp.ones(len(n), jnp.float32))


def noise_keys(key: jax.Array, n: jax.Array) -> jax.Array:
    """Returns keys `[B]` for all other random numbers of examples `n`."""
    return _children(key, n)[1]


def probabilities(history: LossHistory) -> jax.Array:
    """Returns p(t) ∝ √E[L_t²], `[T]`, uniform until each t has 10 losses (Nichol & Dhariwal 2021, Eq. 18).

    As in their code, a share of 0.001 is spread evenly, so that every t keeps a positive probability.
    """
    total = len(history.count)
    rms = jnp.sqrt(jnp.mean(history.losses**2, axis=1))
    p = (1.0 - _UNIFORM_SHARE) * rms / jnp.sum(rms) + _UNIFORM_SHARE / total
    return jnp.where(jnp.all(history.count >= _KEPT), p, 1.0 / total)


def record(history: LossHistory, t: jax.Array, losses: jax.Array) -> LossHistory:
    """Adds the losses `[B]` of a batch, in its order, to the history; the last 10 of each t are kept."""
    order = jnp.argsort(t, stable=True)
    t, losses = t[order], losses[order]
    rank = jnp.arange(len(t)) - jnp.searchsorted(t, t)
    left = jnp.searchsorted(t, t, side="right") - 1 - jnp.arange(len(t))
    # Losses that later ones would overwrite are dropped, because the order of a scatter is undefined.
    row = jnp.where(left < _KEPT, t, len(history.count))
    slot = (history.count[t] + rank) % _KEPT
    return LossHistory(
        history.losses.at[row, slot].set(losses.astype(history.losses.dtype), mode="drop"),
        history.count.at[t].add(1),
    )


def _children(key: jax.Array, n: jax.Array) -> jax.Array:
    """Returns two keys for each of the examples `n`, `[2, B]`: one for t, one for everything else."""
    return jax.vmap(jax.random.split, out_axes=1)(jax.vmap(jax.random.fold_in, (None, 0))(key, n))
