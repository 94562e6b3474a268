"""Adapters between a network and the sampling loop: small wrappers of `predict`.

They convert the network's output (x_0, v, the score, a velocity, a variance) and its time input (a noise level, scaled
or respaced timesteps), and are composed by ordinary calls:

    predict = from_v(map_timesteps(predictor(model, params), indices), schedule)
    predict = from_edm(with_noise_level(network, schedule, "edm"), schedule)  # F(c_in·x, c_noise) of Karras et al. 2022
    predict = from_flow(with_noise_level(scale_timesteps(network, 1000), schedule, "flow"), schedule)  # as SD3 and Flux

Each returns a `jax.tree_util.Partial` of a module-level function. Parameters and tables are its leaves, so new values
cause no recompilation, and wrappers built with equal settings are equal. Adapters of the time input go inside; adapters
that look up the schedule at the loop's t go outside.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffjax import process
from diffjax.prediction import Predict, Prediction, Target, as_predict, one_array, same_shape
from diffjax.schedules import NoiseSchedule


def from_x0(predict: Predict, schedule: NoiseSchedule | None = None) -> jax.tree_util.Partial:
    """Converts a network that predicts x_0 into one that returns `Prediction(x0, eps)`; valid at ᾱ = 0 too.

    ε̂ = (x - √ᾱ·x̂0)/√(1-ᾱ).

    Args:
      predict: returns x̂0 `[B, …]`.
      schedule: the schedule that the sampling loop's t refers to; None: the loop itself converts, at the level of its
        x (`Target`). The two differ where a table calls the network at the time of another level.

    Raises:
      ValueError: `predict` is not callable; when called, the network's output has another shape than x.
    """
    if schedule is None:
        return jax.tree_util.Partial(_x0_target, as_predict(predict))
    return jax.tree_util.Partial(_from_x0, as_predict(predict), process.Scales.of(schedule))


def from_v(predict: Predict, schedule: NoiseSchedule | None = None) -> jax.tree_util.Partial:
    """Converts a network that predicts v into one that returns `Prediction(x0, eps)`; valid at ᾱ = 0 too.

    x̂0 = √ᾱ·x - √(1-ᾱ)·v̂, ε̂ = √(1-ᾱ)·x + √ᾱ·v̂ (Salimans & Ho 2022, App. D).

    Args:
      predict: returns v̂ `[B, …]`.
      schedule: as in `from_x0`. diffusers' `DDIMInverseScheduler` converts v̂ of the destination's time at the source's
        level: `probability_flow(network_at="destination")` with no schedule here.

    Raises:
      ValueError: as in `from_x0`.
    """
    if schedule is None:
        return jax.tree_util.Partial(_v_target, as_predict(predict))
    return jax.tree_util.Partial(_from_v, as_predict(predict), process.Scales.of(schedule))


def from_score(predict: Predict, schedule: NoiseSchedule) -> jax.tree_util.Partial:
    """Converts a network that predicts the score ∇log q(x_t) into one that returns `Prediction(x0, eps)`, where ᾱ > 0.

    ε̂ = -√(1-ᾱ)·score, x̂0 = (x - √(1-ᾱ)·ε̂)/√ᾱ.

    Args:
      predict: returns the score `[B, …]`.
      schedule: the schedule that the sampling loop's t refers to.

    Raises:
      ValueError: as in `from_x0`.
    """
    return jax.tree_util.Partial(_from_score, as_predict(predict), process.Scales.of(schedule))


def from_flow(predict: Predict, schedule: NoiseSchedule) -> jax.tree_util.Partial:
    """Converts a network of the velocity ε - x_0 on the linear path (rectified flow) to one that gives `Prediction`.

    The network is called with x_t on the linear path, x/(√ᾱ + √(1-ᾱ)) = (1-u)·x_0 + u·ε, and the loop's t;
    `with_noise_level(…, "flow")` gives it u. Any schedule will do: the change of path is exact, also at ᾱ = 0 (u = 1).
    (Liu et al. 2023; `process.x0_from_flow`.)

    Args:
      predict: returns v̂ `[B, …]`.
      schedule: the schedule that the sampling loop's t refers to.

    Raises:
      ValueError: as in `from_x0`.
    """
    return jax.tree_util.Partial(_from_flow, as_predict(predict), process.Scales.of(schedule))


def from_edm(predict: Predict, schedule: NoiseSchedule, *, sigma_data: float = 0.5) -> jax.tree_util.Partial:
    """Converts EDM's network F into one that returns `Prediction`: x̂0 = c_skip·x̄ + c_out·F(c_in·x̄, …), x̄ = x/√ᾱ.

    (Karras et al. 2022, Eq. 7 and Table 1; `process.predict_edm`.) The network is called with c_in·x̄ and the loop's t;
    `with_noise_level(…, "edm")` gives it c_noise. Valid at ᾱ = 0 too.

    Args:
      predict: returns F `[B, …]`.
      schedule: the schedule that the sampling loop's t refers to.
      sigma_data: σ_data, the standard deviation of the data that the network was trained with; a leaf of the result.

    Raises:
      ValueError: as in `from_x0`, or a σ_data that is not > 0.
    """
    if not 0.0 < sigma_data < np.inf:
        raise ValueError(f"sigma_data={sigma_data} must be > 0 and finite")
    return jax.tree_util.Partial(_from_edm, as_predict(predict), process.Scales.of(schedule), np.float64(sigma_data))


def from_target(
    predict: Predict,
    schedule: NoiseSchedule,
    target: str = "eps",
    *,
    variance: str | None = None,
    sigma_data: float = 0.5,
) -> Predict:
    """Converts a network with any training target into a `predict` for the sampling loop.

    Args:
      predict: returns the target `[B, …]`, or, with `variance`, `[B, …, 2C]`.
      schedule: the schedule that the sampling loop's t refers to.
      target: the network's training target: "eps", "x0", "v", "flow" or "edm".
      variance: the kind of variance in the last C channels, as in `split_variance`; None: the network predicts none.
      sigma_data: σ_data of the target "edm".

    Raises:
      ValueError: an unknown target or variance.
    """
    if variance is not None:
        return split_variance(predict, schedule, variance, given=target)
    wrap = {
        "eps": lambda predict, _: predict,
        "x0": from_x0,
        "v": from_v,
        "flow": from_flow,
        "edm": partial(from_edm, sigma_data=sigma_data),
    }
    if target not in wrap:
        raise ValueError(f"target={target!r} is not one of {', '.join(map(repr, wrap))}")
    return wrap[target](predict, schedule)


def to_eps(predict: Predict) -> jax.tree_util.Partial:
    """Reduces the output of `predict` to ε̂ `[B, …]`."""
    return jax.tree_util.Partial(_to_eps, as_predict(predict))


def to_x0(predict: Predict, schedule: NoiseSchedule) -> jax.tree_util.Partial:
    """Reduces the output of `predict` to x̂0 `[B, …]`; not finite at ᾱ = 0 if `predict` returns ε̂ alone."""
    return jax.tree_util.Partial(_to_x0, as_predict(predict), process.Scales.of(schedule))


def split_variance(
    predict: Predict, schedule: NoiseSchedule, kind: str = "learned_range", *, given: str = "eps"
) -> jax.tree_util.Partial:
    """Converts a network with 2C output channels into one that returns `Prediction(x0, eps, log_var_frac)`.

    With v denoting the last C channels (Nichol & Dhariwal 2021, Eq. 15):

        learned_range: log_var_frac = (v + 1)/2, from β̃ (at v = -1) to β (at v = 1)
        learned:       log_var_frac = v, which is log σ² itself (the sampler's bounds are then 0 and 1)

    Args:
      predict: returns `[B, …, 2C]` for x of shape `[B, …, C]`.
      schedule: the schedule that the sampling loop's t refers to.
      kind: "learned_range" or "learned", as in `samplers.ddpm(variance=…)`.
      given: the parameterization of the first C channels: "eps", "x0" or "v".

    Raises:
      ValueError: an unknown kind or parameterization; when called, an output without 2C channels.
    """
    for argument, value, allowed in (
        ("kind", kind, ("learned_range", "learned")),
        ("given", given, ("eps", "x0", "v")),
    ):
        if value not in allowed:
            raise ValueError(f"{argument}={value!r} is not one of {', '.join(map(repr, allowed))}")
    return jax.tree_util.Partial(_Split(kind, given), as_predict(predict), process.Scales.of(schedule))


def with_noise_level(predict: Predict, schedule: NoiseSchedule, kind: str = "sqrt_alpha_bar") -> jax.tree_util.Partial:
    """Conditions the network on the noise level of t instead of t, in the dtype of x and the shape of t.

        sqrt_alpha_bar: √ᾱ (SR3, §2.4);     alpha_bar: ᾱ
        flow: u = σ̄/(1+σ̄), the time of the linear path;     edm: c_noise = ¼·log σ̄ (Karras et al. 2022, Table 1)

    Args:
      predict: called as `predict(x, level)`.
      schedule: the schedule that the sampling loop's t refers to.
      kind: "sqrt_alpha_bar", "alpha_bar", "flow" or "edm". At t = -1 the levels are 1, 1, 0 and -∞.

    Raises:
      ValueError: an unknown kind; when called, a concrete t outside -1 … T-1.
    """
    if kind not in _LEVELS:
        raise ValueError(f"kind={kind!r} is not one of {', '.join(map(repr, _LEVELS))}")
    return jax.tree_util.Partial(_WithLevel(kind), as_predict(predict), process.Scales.of(schedule))


def scale_timesteps(predict: Predict, factor: float) -> jax.tree_util.Partial:
    """Passes t·`factor` to the network, in the dtype of x; OpenAI's `rescale_timesteps` is the factor 1000/T."""
    return jax.tree_util.Partial(_scale_timesteps, as_predict(predict), np.float64(factor))


def map_timesteps(predict: Predict, indices: ArrayLike) -> jax.tree_util.Partial:
    """Passes `indices[t]` to a network that was trained on a longer schedule (`schedules.respace`).

    Args:
      predict: the network of the longer schedule.
      indices: `int[T']`, the kept indices of the longer schedule, strictly ascending.

    Raises:
      ValueError: invalid indices; when called, a concrete t outside 0 … T'-1, or a fractional t.
    """
    indices = np.asarray(indices)
    if indices.ndim != 1 or not indices.size or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"indices must be whole numbers [T']; they have shape {indices.shape}, dtype {indices.dtype}")
    if indices[0] < 0 or np.any(np.diff(indices) <= 0):
        raise ValueError(f"indices must ascend strictly from 0 or above; they are {indices}")
    return jax.tree_util.Partial(_map_timesteps, as_predict(predict), indices.astype(np.int32))


def _x0_target(predict, x, t):
    return Target(_value(predict, x, t), "x0")


def _v_target(predict, x, t):
    return Target(_value(predict, x, t), "v")


def _from_x0(predict, scales, x, t):
    x0 = _value(predict, x, t)
    return Prediction(x0, process.predict_eps(scales, x, t, x0))


def _from_v(predict, scales, x, t):
    v = _value(predict, x, t)
    return Prediction(process.x0_from_v(scales, x, t, v), process.eps_from_v(scales, x, t, v))


def _from_score(predict, scales, x, t):
    eps = process.eps_from_score(scales, t, _value(predict, x, t))
    return Prediction(process.predict_x0(scales, x, t, eps), eps)


def _from_flow(predict, scales, x, t):
    velocity = _value(predict, process.network_input(scales, x, t, "flow"), t)
    return Prediction(process.x0_from_flow(scales, x, t, velocity), process.eps_from_flow(scales, x, t, velocity))


def _from_edm(predict, scales, sigma_data, x, t):
    sigma_data = jnp.asarray(sigma_data, x.dtype)
    output = _value(predict, process.network_input(scales, x, t, "edm", sigma_data=sigma_data), t)
    x0 = process.x0_from_edm(scales, x, t, output, sigma_data=sigma_data)
    return Prediction(x0, process.eps_from_edm(scales, x, t, output, sigma_data=sigma_data))


def _to_eps(predict, x, t):
    output = predict(x, t)
    return output.eps if isinstance(output, Prediction) else output


def _to_x0(predict, scales, x, t):
    output = predict(x, t)
    if isinstance(output, Prediction):
        return output.x0
    return process.predict_x0(scales, x, t, same_shape(one_array(output, x.dtype), x))


@dataclasses.dataclass(frozen=True)
class _Split:
    """Splits the channels; instances with equal fields are equal, so an equal wrapper causes no recompilation."""

    kind: str
    given: str

    def __call__(self, predict, scales, x, t):
        output, channels = one_array(predict(x, t), x.dtype), x.shape[-1]
        if output.shape[-1:] != (2 * channels,):
            raise ValueError(
                f"predict returned shape {output.shape}: a network that predicts a variance must return "
                f"{2 * channels} channels for the {channels} of x"
            )
        value, v = (same_shape(part, x) for part in jnp.split(output, 2, axis=-1))
        x0, eps = (process.convert(scales, x, t, value, given=self.given, wanted=wanted) for wanted in ("x0", "eps"))
        return Prediction(x0, eps, (v + 1.0) / 2.0 if self.kind == "learned_range" else v)


_LEVELS = {
    "sqrt_alpha_bar": lambda signal, noise: signal,
    "alpha_bar": lambda signal, noise: signal**2,
    "flow": lambda signal, noise: noise / (signal + noise),
    "edm": lambda signal, noise: 0.25 * (jnp.log(noise) - jnp.log(signal)),
}


@dataclasses.dataclass(frozen=True)
class _WithLevel:
    """Looks up the level; instances with equal fields are equal, so an equal wrapper causes no recompilation."""

    kind: str

    def __call__(self, predict, scales, x, t):
        return predict(x, _LEVELS[self.kind](*process.scales_at(scales, x, t)).reshape(jnp.shape(t)))


def _scale_timesteps(predict, factor, x, t):
    return predict(x, jnp.asarray(t, x.dtype) * jnp.asarray(factor, x.dtype))


def _map_timesteps(predict, indices, x, t):
    if jnp.issubdtype(jnp.result_type(t), jnp.floating):
        raise ValueError(f"t of dtype {jnp.result_type(t)}: a respaced schedule has whole timesteps only")
    t = t if isinstance(t, jax.core.Tracer) else np.asarray(t)
    if not isinstance(t, jax.core.Tracer) and (np.min(t) < 0 or np.max(t) >= len(indices)):
        raise ValueError(f"timestep {np.min(t)} … {np.max(t)} is out of range: allowed is 0 … {len(indices) - 1}")
    output, known = predict(x, jnp.asarray(indices)[t]), (t >= 0) & (t < len(indices))
    # A traced t cannot raise: where it has no index, the output is NaN and not a neighbour's.
    return jax.tree.map(
        lambda part: jnp.where(jnp.reshape(known, known.shape + (1,) * (part.ndim - known.ndim)), part, jnp.nan), output
    )


def _value(predict, x, t):
    """Returns the network's output, one array in the dtype and shape of x."""
    return same_shape(one_array(predict(x, t), x.dtype), x)
