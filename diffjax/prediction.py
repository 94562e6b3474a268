"""The interface of a network in the sampling loop: `predict(x, t)`, and the `Prediction` that it may return."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Predict = Callable[[jax.Array, jax.Array], Any]
"""(x `[B, …]`, t `[B]`, int32 or float) → ε̂ `[B, …]`, a `Prediction`, or a `Target`."""


class Prediction(NamedTuple):
    """The output of a network where ε̂ alone is not enough: v- and x_0-networks at ᾱ = 0, learned variances."""

    x0: jax.Array
    """x̂0 `[B, …]`."""
    eps: jax.Array
    """ε̂ `[B, …]`."""
    log_var_frac: jax.Array | None = None
    """`[B, …]`: the position of log σ² between the bounds in `Sampler.log_var`, from 0 (low) to 1 (high)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Target:
    """The output of a v- or x_0-network, which the sampling loop converts at the level of its x (√ᾱ and √(1-ᾱ)).

    The adapters that convert at the timestep of the call give the same unless that is the time of another level.
    """

    value: jax.Array
    """v̂ or x̂0 `[B, …]`."""
    kind: str = dataclasses.field(metadata={"static": True})
    """"v" or "x0"."""

    def at(self, x: jax.Array, signal: jax.Array, noise: jax.Array) -> Prediction:
        """Returns (x̂0, ε̂) at x = `signal`·x_0 + `noise`·ε; ε̂ of an x̂0 is 0 where there is no noise."""
        value = jnp.asarray(same_shape(self.value, x), x.dtype)
        if self.kind == "v":
            return Prediction(signal * x - noise * value, noise * x + signal * value)
        noisy = noise > 0
        return Prediction(value, jnp.where(noisy, (x - signal * value) / jnp.where(noisy, noise, 1), 0.0))


def as_pytree(function: Callable) -> Callable:
    """Returns `function` as a jit argument: unchanged if it is a pytree, else as a `Partial`, compared by identity."""
    return jax.tree_util.Partial(function) if jax.tree_util.all_leaves([function]) else function


def as_predict(predict: Predict) -> Predict:
    """Returns `predict` as a pytree.

    Raises:
      ValueError: `predict` is not callable.
    """
    if not callable(predict):
        raise ValueError(f"predict must be callable as predict(x, t); it is a {type(predict).__name__}")
    return as_pytree(predict)


def one_array(output: Any, dtype: Any) -> jax.Array:
    """Returns a network's output as an array of `dtype`.

    Raises:
      ValueError: the output is a `Prediction` or a `Target`.
    """
    if isinstance(output, Prediction | Target):
        raise ValueError(
            f"predict returned a {type(output).__name__}: this function needs a network that returns one array"
        )
    return jnp.asarray(output, dtype)


def same_shape(output: jax.Array, x: jax.Array) -> jax.Array:
    """Returns a network's output unchanged; broadcasting would hide a wrong shape from later checks.

    Raises:
      ValueError: the output has another shape than x.
    """
    if jnp.shape(output) != x.shape:
        raise ValueError(f"predict returned shape {jnp.shape(output)} for x of shape {x.shape}: they must be equal")
    return output
