"""Timesteps of a batch, drawn by example: functions of the step's key and the example's number in the global batch."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

_KEPT = 10
_UNIFORM_SHARE = 1e-3


class LossHistory(NamedTuple):
    """The last 10 losses at each t: what "importance" draws by."""

    losses: jax.Array
    """float32 `[T, 10]`."""
    count: jax.Array
    """int32 `[T]`: how many there have been."""


class Draw(NamedTuple):
    """The timesteps of a batch."""

    t: jax.Array
    """int32 `[B]`, in 0 … T-1."""
    weight: jax.Array
    """float32 `[B]`, 1/(T·p(t)): the mean of weight·loss is the mean over uniform t, whatever the draw."""


def empty_history(num_timesteps: int) -> LossHistory:
    """No losses yet."""
    return LossHistory(jnp.zeros((num_timesteps, _KEPT)), jnp.zeros(num_timesteps, jnp.int32))


def uniform(key: jax.Array, n: jax.Array, batch_size: int, num_timesteps: int) -> jax.Array:
    """Each example's own draw: int32 `[B]`, as all the draws below.

    Args:
      key: the step's.
      n: int `[B]`, numbers of examples in the global batch.
      batch_size: the global batch's.
    """
    return jax.vmap(lambda key: jax.random.randint(key, (), 0, num_timesteps))(_children(key, n)[0])


def antithetic(key: jax.Array, n: jax.Array, batch_size: int, num_timesteps: int) -> jax.Array:
    """Examples 2k and 2k + 1 share a draw: t and T-1-t (DDIM's code pairs the two halves of a batch)."""
    t = uniform(key, n - n % 2, batch_size, num_timesteps)
    return jnp.where(n % 2, num_timesteps - 1 - t, t)


def low_discrepancy(key: jax.Array, n: jax.Array, batch_size: int, num_timesteps: int) -> jax.Array:
    """t = ⌊T·((u + n/B) mod 1)⌋, one u ~ U(0, 1) for the batch (Kingma et al. 2021, App. I.1), in whole numbers."""
    # The child after the last example's.
    offset = jax.random.randint(jax.random.fold_in(key, batch_size), (), 0, num_timesteps * batch_size)
    return (offset + n * num_timesteps) // batch_size % num_timesteps


UNWEIGHTED: dict[str, Callable[..., jax.Array]] = {
    "uniform": uniform,
    "antithetic": antithetic,
    "low_discrepancy": low_discrepancy,
}
KINDS = (*UNWEIGHTED, "importance")


def draw(
    kind: str, key: jax.Array, n: jax.Array, *, batch_size: int, num_timesteps: int, history: LossHistory | None = None
) -> Draw:
    """The timesteps of examples `n` `[B]` of a global batch; `kind` is one of `KINDS`.

    "importance" draws by `probabilities(history)`, each example for itself.
    """
    if kind in UNWEIGHTED:
        return Draw(UNWEIGHTED[kind](key, n, batch_size, num_timesteps), jnp.ones(len(n), jnp.float32))
    p = probabilities(history)
    cumulative = jnp.cumsum(p)
    u = jax.vmap(jax.random.uniform)(_children(key, n)[0])
    t = jnp.searchsorted(cumulative, u * cumulative[-1], side="right").astype(jnp.int32)
    t = jnp.minimum(t, num_timesteps - 1)
    return Draw(t, 1.0 / (num_timesteps * p[t]))


def noise_keys(key: jax.Array, n: jax.Array) -> jax.Array:
    """Keys `[B]` for whatever else examples `n` draw."""
    return _children(key, n)[1]


def probabilities(history: LossHistory) -> jax.Array:
    """p(t) ∝ √E[L_t²], `[T]`, uniform until each t has 10 losses (Nichol & Dhariwal 2021, Eq. 18).

    A thousandth is spread evenly, so that no t is forgotten (their code).
    """
    total = len(history.count)
    rms = jnp.sqrt(jnp.mean(history.losses**2, axis=1))
    p = (1.0 - _UNIFORM_SHARE) * rms / jnp.sum(rms) + _UNIFORM_SHARE / total
    return jnp.where(jnp.all(history.count >= _KEPT), p, 1.0 / total)


def record(history: LossHistory, t: jax.Array, losses: jax.Array) -> LossHistory:
    """The history after a batch: of each t's losses `[B]`, in the batch's order, the last 10 stay."""
    order = jnp.argsort(t, stable=True)
    t, losses = t[order], losses[order]
    rank = jnp.arange(len(t)) - jnp.searchsorted(t, t)
    left = jnp.searchsorted(t, t, side="right") - 1 - jnp.arange(len(t))
    # What later ones would overwrite goes nowhere: the order of a scatter is not defined.
    row = jnp.where(left < _KEPT, t, len(history.count))
    slot = (history.count[t] + rank) % _KEPT
    return LossHistory(
        history.losses.at[row, slot].set(losses.astype(history.losses.dtype), mode="drop"),
        history.count.at[t].add(1),
    )


def _children(key: jax.Array, n: jax.Array) -> jax.Array:
    """Keys `[2, B]` of examples `n`: for t, and for the rest."""
    return jax.vmap(jax.random.split, out_axes=1)(jax.vmap(jax.random.fold_in, (None, 0))(key, n))
