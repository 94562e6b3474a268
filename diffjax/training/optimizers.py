"""Optimizers by name, from optax, with a learning rate that compiled programs do not depend on."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffjax.training.packing import packed

OPTIMIZERS = {"adam": optax.adam, "adamw": optax.adamw}
DECAYS = ("constant", "cosine")


class LearningRate(NamedTuple):
    """peak·share(step)."""

    peak: float
    share: optax.Schedule
    """In [0, 1]."""

    def __call__(self, step: jax.Array | int) -> jax.Array | float:
        """That of a step, from 0 on."""
        return self.peak * self.share(step)


class Factor(NamedTuple):
    """What updates are multiplied by, as a state: another value is no other program."""

    value: jax.Array


def learning_rate(peak: float, *, warmup_steps: int, decay: str, num_steps: int) -> LearningRate:
    """Linear warm-up from 0 over `warmup_steps`, then `peak` ("constant") or a cosine down to 0 at `num_steps`.

    Raises:
      ValueError: an unknown decay, a peak ≤ 0, or a warm-up that is negative or leaves no step to decay in.
    """
    if decay not in DECAYS:
        raise ValueError(f"decay={decay!r} is not one of {', '.join(map(repr, DECAYS))}")
    if peak <= 0:
        raise ValueError(f"learning_rate={peak} must be > 0")
    if warmup_steps < 0 or (decay == "cosine" and warmup_steps >= num_steps):
        raise ValueError(f"warmup_steps={warmup_steps}: allowed is 0 … {num_steps - 1} (config.train.steps - 1)")
    share = (
        optax.constant_schedule(1.0)
        if decay == "constant"
        else optax.cosine_decay_schedule(1.0, num_steps - warmup_steps)
    )
    if warmup_steps:
        share = optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup_steps), share], [warmup_steps])
    return LearningRate(peak, share)


def optimizer(name: str, rate: LearningRate, *, clip_norm: float | None) -> optax.GradientTransformation:
    """`name` ("adam" or "adamw") at `rate`, after clipping the gradient's global norm to `clip_norm` (None: not).

    Its state is of packed parameters (`packing`).

    Raises:
      ValueError: an unknown name, or a norm ≤ 0.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"name={name!r} is not one of {', '.join(map(repr, OPTIMIZERS))}")
    if clip_norm is not None and clip_norm <= 0:
        raise ValueError(f"clip_norm={clip_norm} must be > 0, or None for no clipping")
    clipping = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    return packed(optax.chain(clipping, OPTIMIZERS[name](rate.share), _times(rate.peak)))


def _times(factor: float) -> optax.GradientTransformation:
    def init(params):
        return Factor(jnp.float32(factor))

    def update(updates, state, params=None):
        return jax.tree.map(lambda change: state.value.astype(change.dtype) * change, updates), state

    return optax.GradientTransformation(init, update)
