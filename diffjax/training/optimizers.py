"""Optimizers from optax, with a learning rate that can change without recompilation."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffjax.registry import Registry, call
from diffjax.training.packing import packed

OPTIMIZERS = Registry("optimizer")
"""Functions (rate: optax.Schedule, options) → optax.GradientTransformation."""

LR_SCHEDULES = ("constant", "cosine")
"""The schedules of the learning rate after the warm-up."""


@OPTIMIZERS.register
def adam(
    rate: optax.Schedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Builds Adam (Kingma & Ba 2015).

    Args:
      rate: the learning rate, a function of the step.
      b1: the decay of the moving average of gradients, in [0, 1).
      b2: the decay of the moving average of squared gradients, in [0, 1).
      eps: the number added to the root of the mean square, in (0, 1].

    Raises:
      ValueError: an option out of range.
    """
    return optax.adam(rate, **_checked_moments(b1, b2, eps))


@OPTIMIZERS.register
def adamw(
    rate: optax.Schedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 1e-4
) -> optax.GradientTransformation:
    """Builds Adam with decoupled weight decay (Loshchilov & Hutter 2019).

    Args:
      rate: the learning rate, a function of the step.
      b1: the decay of the moving average of gradients, in [0, 1).
      b2: the decay of the moving average of squared gradients, in [0, 1).
      eps: the number added to the root of the mean square, in (0, 1].
      weight_decay: the decay λ: each step also subtracts learning rate · λ · parameter; in [0, 100].

    Raises:
      ValueError: an option out of range.
    """
    if not 0.0 <= weight_decay <= 100.0:
        raise ValueError(f"weight_decay={weight_decay} must be within [0, 100]")
    return optax.adamw(rate, **_checked_moments(b1, b2, eps), weight_decay=weight_decay)


class LearningRate(NamedTuple):
    """The learning rate, peak·share(step)."""

    peak: float
    share: optax.Schedule
    """In [0, 1]."""

    def __call__(self, step: jax.Array | int) -> jax.Array | float:
        """Returns the learning rate of a step, counted from 0."""
        return self.peak * self.share(step)


class Factor(NamedTuple):
    """The factor of the updates, kept in the optimizer state so that a new value needs no recompilation."""

    value: jax.Array


def learning_rate(peak: float, *, warmup_steps: int, lr_schedule: str, num_steps: int) -> LearningRate:
    """Builds a linear warm-up from 0 over `warmup_steps`, then `peak` ("constant") or a cosine to 0 at `num_steps`.

    Args:
      peak: the learning rate after the warm-up.
      warmup_steps: the length of the warm-up; 0 for no warm-up.
      lr_schedule: "constant" or "cosine".
      num_steps: the number of training steps.

    Raises:
      ValueError: an unknown `lr_schedule`, a peak that is not > 0 and finite, or an invalid `warmup_steps`.
    """
    if lr_schedule not in LR_SCHEDULES:
        raise ValueError(f"lr_schedule={lr_schedule!r} is not one of {', '.join(map(repr, LR_SCHEDULES))}")
    if not 0.0 < peak < math.inf:
        raise ValueError(f"learning_rate={peak} must be > 0 and finite")
    if not warmup_steps >= 0:
        raise ValueError(f"warmup_steps={warmup_steps} must be ≥ 0")
    if lr_schedule == "cosine" and warmup_steps >= num_steps:
        raise ValueError(f"warmup_steps={warmup_steps} must be within 0 … {num_steps - 1}, below the number of steps")
    share = (
        optax.constant_schedule(1.0)
        if lr_schedule == "constant"
        else optax.cosine_decay_schedule(1.0, num_steps - warmup_steps)
    )
    if warmup_steps:
        share = optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup_steps), share], [warmup_steps])
    return LearningRate(peak, share)


def optimizer(
    name: str, rate: LearningRate, *, grad_clip_norm: float | None, **options: float
) -> optax.GradientTransformation:
    """Builds an optimizer that first clips the gradient's global norm; its state is packed (`packing`).

    Args:
      name: a name in `OPTIMIZERS`, or an import path.
      rate: the learning rate.
      grad_clip_norm: the largest global norm of the gradient; None for no clipping.
      options: the options of the optimizer.

    Raises:
      ValueError: an unknown name or option, or an option or norm out of range.
    """
    if grad_clip_norm is not None and not 0.0 < grad_clip_norm < math.inf:
        raise ValueError(f"grad_clip_norm={grad_clip_norm} must be > 0 and finite, or None for no clipping")
    clipping = optax.identity() if grad_clip_norm is None else _clip_by_global_norm(grad_clip_norm)
    return packed(optax.chain(clipping, call(OPTIMIZERS[name], {"rate": rate.share}, options), _times(rate.peak)))


def _checked_moments(b1: float, b2: float, eps: float) -> dict[str, float]:
    for name, value in (("b1", b1), ("b2", b2)):
        if not 0.0 <= value < 1.0:
            raise ValueError(f"{name}={value} must be within [0, 1)")
    if not 0.0 < eps <= 1.0:
        raise ValueError(f"eps={eps} must be within (0, 1]")
    return {"b1": b1, "b2": b2, "eps": eps}


def _clip_by_global_norm(most: float) -> optax.GradientTransformation:
    """Clips as `optax.clip_by_global_norm` does; if `update` is given `grad_norm`, by this norm, as for shards."""

    def init(params):
        return optax.EmptyState()

    def update(updates, state, params=None, *, grad_norm=None, **extra):
        norm = optax.tree.norm(updates) if grad_norm is None else grad_norm
        return jax.tree.map(lambda g: jnp.where(norm < most, g, g / norm.astype(g.dtype) * most), updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def _times(factor: float) -> optax.GradientTransformation:
    def init(params):
        return Factor(jnp.float32(factor))

    def update(updates, state, params=None):
        return jax.tree.map(lambda change: state.value.astype(change.dtype) * change, updates), state

    return optax.GradientTransformation(init, update)
