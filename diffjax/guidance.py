"""Guidance: wrappers of `predict` that move samples towards a condition, by classifier-free or classifier guidance.

Each returns a `jax.tree_util.Partial` of a module-level function. Parameters, tables and scales are its leaves, so new
values cause no recompilation. The conversions of a network's target and time input are in `parameterization`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffjax import process
from diffjax.prediction import Predict, Prediction, as_predict, as_pytree, one_array, same_shape
from diffjax.schedules import NoiseSchedule


def classifier_free(
    predict: Predict,
    schedule: NoiseSchedule,
    scale: ArrayLike,
    *,
    unconditional: Predict | None = None,
    interval: tuple[ArrayLike, ArrayLike] = (0.0, np.inf),
    rescale: ArrayLike = 0.0,
) -> jax.tree_util.Partial:
    """Applies classifier-free guidance, ε̂ = ε̂_u + s·(ε̂_c - ε̂_u): s = 0: unconditional, 1: conditional.

    (Ho & Salimans 2022, Eq. 6, call w = s - 1 the strength.) x̂0 and v̂ are combined in the same way, since they are
    affine in ε̂. The log-variance is the conditional network's. All numbers are leaves of the result.

    Args:
      predict: the conditional network. It returns a `Prediction`, or an array `[B, …]`: ε̂, or another target that an
        outer `from_target` converts (channels after those of x, a variance, are not guided).
      schedule: the schedule that the sampling loop's t refers to.
      scale: s.
      unconditional: the unconditional network. None: one call of `predict` computes both, on a batch `[2B, …]` whose
        row 2n has the condition of sample n, and whose row 2n + 1 is unconditional (`both`).
      interval: (low, high): guidance applies where low < σ̄ ≤ high, σ̄ = √((1-ᾱ)/ᾱ), with s = 1 elsewhere (Kynkäänniemi
        et al. 2024).
      rescale: φ in [0, 1]: the guided output is multiplied by φ·std(conditional)/std(guided) + 1 - φ, with standard
        deviations over all axes but the batch's (Lin et al. 2023, §3.4). If the output is an array, it is rescaled
        itself, as in that paper; if it is a `Prediction`, x̂0 is rescaled and ε̂ derived from it.

    Raises:
      ValueError: a network that is not callable, an invalid interval or φ; when called, an output of a wrong shape.
    """
    _check_scale(scale)
    low, high = interval
    if not isinstance(low, jax.core.Tracer) and not isinstance(high, jax.core.Tracer) and not 0.0 <= low < high:
        raise ValueError(f"interval=({low}, {high}) must be two noise levels, 0 ≤ low < high")
    if not isinstance(rescale, jax.core.Tracer) and not 0.0 <= rescale <= 1.0:
        raise ValueError(f"rescale={rescale} must be within [0, 1]")
    other = None if unconditional is None else as_predict(unconditional)
    options = _Options(*map(_leaf, (scale, low, high, rescale)))
    return jax.tree_util.Partial(_classifier_free, as_predict(predict), other, process.Scales.of(schedule), options)


def both(condition: jax.Array, none: ArrayLike) -> jax.Array:
    """Interleaves conditions `[B, …]` with `none`, the value for no condition: `[2B, …]`, for `classifier_free`."""
    condition = jnp.asarray(condition)
    pairs = jnp.stack([condition, jnp.broadcast_to(jnp.asarray(none, condition.dtype), condition.shape)], axis=1)
    return pairs.reshape(-1, *condition.shape[1:])


def with_classifier(
    predict: Predict, schedule: NoiseSchedule, log_prob: Callable[[jax.Array, jax.Array], jax.Array], scale: ArrayLike
) -> jax.tree_util.Partial:
    """Applies classifier guidance, ε̂ - s·√(1-ᾱ)·∇log p(y | x_t) (Dhariwal & Nichol 2021, Alg. 2), where ᾱ > 0.

    With the unconditional network, s = 1 and the true classifier p of x_t, the result is the conditional network.
    The mean of an ancestral step moves by s·(β_t/√α_t)·∇log p; their Alg. 1 has s·Σ_t·∇log p.

    Args:
      predict: returns ε̂ `[B, …]`, or a `Prediction`.
      schedule: the schedule that the sampling loop's t refers to.
      log_prob: (x_t `[B, …]`, t `[B]`) → log p(y_n | x_n) `[B]`, a function of x_n alone; a pytree, like `predict`.
      scale: s, a leaf of the result.

    Raises:
      ValueError: a function that is not callable; when called, an output of a wrong shape.
    """
    _check_scale(scale)
    if not callable(log_prob):
        raise ValueError(f"log_prob must be callable as log_prob(x, t); it is a {type(log_prob).__name__}")
    scales = process.Scales.of(schedule)
    return jax.tree_util.Partial(_with_classifier, as_predict(predict), as_pytree(log_prob), scales, _leaf(scale))


class _Options(NamedTuple):
    """The numbers of `classifier_free`."""

    scale: ArrayLike
    low: ArrayLike
    high: ArrayLike
    rescale: ArrayLike


def _classifier_free(predict, unconditional, scales, options, x, t):
    conditional, free = _two_outputs(predict, unconditional, x, t)
    signal, noise = process.scales_at(scales, x, t, clean=False)
    scale, low, high, rescale = (jnp.asarray(option, x.dtype) for option in options)
    level = noise / signal
    scale = jnp.where((low < level) & (level <= high), scale, 1.0)

    def guided(c, u):
        # This form is exact at s = 0 and s = 1.
        return scale * c + (1.0 - scale) * u

    def factor(c, guided):
        c_std, std = (jnp.std(part, axis=range(1, x.ndim), keepdims=True) for part in (c, guided))
        return jnp.where(std > 0, rescale * c_std / jnp.where(std > 0, std, 1.0) + (1.0 - rescale), 1.0)

    if not isinstance(conditional, Prediction):
        channels = x.shape[-1]
        c, u = (same_shape(output[..., :channels], x) for output in (conditional, free))
        value = guided(c, u)
        return jnp.concatenate([value * factor(c, value), conditional[..., channels:]], axis=-1)
    x0, eps = guided(conditional.x0, free.x0), guided(conditional.eps, free.eps)
    rescaled = x0 * factor(conditional.x0, x0)
    return Prediction(rescaled, eps + signal / noise * (x0 - rescaled), conditional.log_var_frac)


def _two_outputs(predict, unconditional, x, t):
    """Returns the conditional and the unconditional output, two arrays or two `Prediction`s, in the dtype of x."""
    if unconditional is None:
        twice = predict(jnp.repeat(x, 2, axis=0), jnp.repeat(jnp.broadcast_to(t, x.shape[:1]), 2))
        if any(len(part) != 2 * len(x) for part in jax.tree.leaves(twice)):
            raise ValueError(
                f"without unconditional=, predict must return 2·{len(x)} rows; it returned "
                f"{[part.shape for part in jax.tree.leaves(twice)]}"
            )
        # The rows of a pair are adjacent, so that a device of a sharded batch holds both.
        pairs = jax.tree.map(lambda part: part.reshape(len(x), 2, *part.shape[1:]), twice)
        outputs = jax.tree.map(lambda part: part[:, 0], pairs), jax.tree.map(lambda part: part[:, 1], pairs)
    else:
        outputs = predict(x, t), unconditional(x, t)
    if isinstance(outputs[0], Prediction) != isinstance(outputs[1], Prediction):
        raise ValueError("predict and unconditional must both return an array, or both a Prediction")
    return jax.tree.map(lambda part: jnp.asarray(part, x.dtype), outputs)


def _with_classifier(predict, log_prob, scales, scale, x, t):
    def total(x):
        value = log_prob(x, t)
        if jnp.shape(value) != x.shape[:1]:
            raise ValueError(f"log_prob returned shape {jnp.shape(value)} for {len(x)} rows; it must be [{len(x)}]")
        return jnp.sum(value)

    signal, noise = process.scales_at(scales, x, t, clean=False)
    shift = jnp.asarray(scale, x.dtype) * noise * jax.grad(total)(x).astype(x.dtype)
    output = predict(x, t)
    if not isinstance(output, Prediction):
        return same_shape(one_array(output, x.dtype), x) - shift
    x0, eps, frac = output
    return Prediction(x0 + noise / signal * shift, eps - shift, frac)


def _check_scale(scale: ArrayLike) -> None:
    if isinstance(scale, int | float) and not np.isfinite(scale):
        raise ValueError(f"scale={scale} must be finite")


def _leaf(number: ArrayLike) -> ArrayLike:
    """Returns a number as a leaf of one type, so that 2 and 2.0 share one compilation."""
    return np.float64(number) if isinstance(number, int | float) else number
