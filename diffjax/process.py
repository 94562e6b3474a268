"""The forward process q(x_t | x_0), its posterior, and the conversions between ε, x_0, v, the score and others.

`x` are arrays `[B, …]`, `t` is `int[B]` or a scalar in 0 … T-1; -1 (clean data) is allowed wherever it is defined.
Tables are looked up in the dtype of `x`. The conversions accept real (float) `t` too, see `scales_at`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffjax.schedules import NoiseSchedule

PARAMETERIZATIONS = ("eps", "x0", "v", "score", "flow", "edm")


class Scales(NamedTuple):
    """√ᾱ_t and √(1-ᾱ_t), `[T]`: the tables that the conversions need, as a pytree that jit accepts."""

    sqrt_alpha_bars: ArrayLike
    sqrt_one_minus_alpha_bars: ArrayLike

    @classmethod
    def of(cls, schedule: "NoiseSchedule | Scales") -> "Scales":
        """Returns the two tables of a schedule."""
        return cls(schedule.sqrt_alpha_bars, schedule.sqrt_one_minus_alpha_bars)


def q_sample(schedule: NoiseSchedule, x0: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
    """Returns x_t = √ᾱ_t·x_0 + √(1-ᾱ_t)·ε, a sample of q(x_t | x_0) (DDPM Eq. 4). All `[B, …]`; `t = -1` gives x_0.

    Examples:
      Without noise, x_t is x_0 scaled by √ᾱ_t.

      >>> import diffjax as dj
      >>> schedule = dj.schedules.linear(4, beta_start=0.1, beta_end=0.4)
      >>> q_sample(schedule, jnp.ones((1, 2)), jnp.array([3]), jnp.zeros((1, 2))).round(3)
      Array([[0.55, 0.55]], dtype=float32)
    """
    signal, noise_scale = scales_at(schedule, x0, t)
    return signal * x0 + noise_scale * noise


def q_mean_variance(schedule: NoiseSchedule, x0: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns mean `[B, …]`, variance and log-variance (`[B, 1, …]`) of q(x_t | x_0) (DDPM Eq. 4)."""
    return (
        lookup(schedule.sqrt_alpha_bars, t, x0, clean=1.0) * x0,
        lookup(1.0 - schedule.alpha_bars, t, x0, clean=0.0),
        lookup(schedule.log_one_minus_alpha_bars, t, x0, clean=-np.inf),
    )


def q_posterior(
    schedule: NoiseSchedule, x0: jax.Array, x_t: jax.Array, t: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns mean `[B, …]`, variance and log-variance (`[B, 1, …]`) of q(x_{t-1} | x_t, x_0) (DDPM Eq. 6-7), t ≥ 0.

    At t = 0 the variance is 0 and the log-variance is that of t = 1 (`NoiseSchedule.posterior_log_variance`).
    """
    mean = lookup(schedule.posterior_mean_coef_x0, t, x_t) * x0 + lookup(schedule.posterior_mean_coef_xt, t, x_t) * x_t
    return mean, lookup(schedule.posterior_variance, t, x_t), lookup(schedule.posterior_log_variance, t, x_t)


def predict_x0(schedule: NoiseSchedule | Scales, x_t: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """Returns x̂_0 = (x_t - √(1-ᾱ_t)·ε̂)/√ᾱ_t (DDPM Eq. 15), `[B, …]`. Not finite where ᾱ_t = 0."""
    signal, noise = scales_at(schedule, x_t, t)
    return (x_t - noise * eps) / signal


def predict_eps(schedule: NoiseSchedule | Scales, x_t: jax.Array, t: jax.Array, x0: jax.Array) -> jax.Array:
    """Returns ε̂ = (x_t - √ᾱ_t·x̂_0)/√(1-ᾱ_t), `[B, …]`, t ≥ 0: the inverse of `predict_x0`."""
    signal, noise = scales_at(schedule, x_t, t, clean=False)
    return (x_t - signal * x0) / noise


def predict_v(schedule: NoiseSchedule | Scales, x0: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """Returns v = √ᾱ_t·ε - √(1-ᾱ_t)·x_0 (Salimans & Ho 2022, App. D), `[B, …]`: -x_0 where ᾱ_t = 0, ε at t = -1."""
    signal, noise = scales_at(schedule, x0, t)
    return signal * eps - noise * x0


def x0_from_v(schedule: NoiseSchedule | Scales, x_t: jax.Array, t: jax.Array, v: jax.Array) -> jax.Array:
    """Returns x̂_0 = √ᾱ_t·x_t - √(1-ᾱ_t)·v̂, `[B, …]`, finite for every t."""
    signal, noise = scales_at(schedule, x_t, t)
    return signal * x_t - noise * v


def eps_from_v(schedule: NoiseSchedule | Scales, x_t: jax.Array, t: jax.Array, v: jax.Array) -> jax.Array:
    """Returns ε̂ = √(1-ᾱ_t)·x_t + √ᾱ_t·v̂, `[B, …]`, finite for every t."""
    signal, noise = scales_at(schedule, x_t, t)
    return noise * x_t + signal * v


def score_from_eps(schedule: NoiseSchedule | Scales, t: jax.Array, eps: jax.Array) -> jax.Array:
    """Returns ∇log q(x_t) = -ε̂/√(1-ᾱ_t) (Song et al. 2021), `[B, …]`, t ≥ 0."""
    return -eps / scales_at(schedule, eps, t, clean=False)[1]


def eps_from_score(schedule: NoiseSchedule | Scales, t: jax.Array, score: jax.Array) -> jax.Array:
    """Returns ε̂ = -√(1-ᾱ_t)·∇log q(x_t), `[B, …]`; 0 at t = -1."""
    return -scales_at(schedule, score, t)[1] * score


def x0_from_flow(schedule: NoiseSchedule | Scales, x_t: jax.Array, t: jax.Array, velocity: jax.Array) -> jax.Array:
    """Returns x̂_0 `[B, …]` of the velocity u = ε - x_0 of the linear path (Liu et al. 2023), finite for every t.

    The path is x_u = (1-u)·x_0 + u·ε. Both paths have the level σ̄ at u = σ̄/(1+σ̄) = n/(s+n), where
    x_u = x_t/(s+n), s = √ᾱ_t and n = √(1-ᾱ_t); so x̂_0 = x_u - u·v̂ and ε̂ = x_u + (1-u)·v̂.
    """
    signal, noise = scales_at(schedule, x_t, t)
    return (x_t - noise * velocity) / (signal + noise)


def eps_from_flow(schedule: NoiseSchedule | Scales, x_t: jax.Array, t: jax.Array, velocity: jax.Array) -> jax.Array:
    """Returns ε̂ = (x_t + √ᾱ_t·v̂)/(√ᾱ_t + √(1-ᾱ_t)) `[B, …]` of a velocity, as `x0_from_flow`; finite for every t."""
    signal, noise = scales_at(schedule, x_t, t)
    return (x_t + signal * velocity) / (signal + noise)


def predict_edm(
    schedule: NoiseSchedule | Scales,
    x0: jax.Array,
    t: jax.Array,
    eps: jax.Array,
    *,
    sigma_data: float | jax.Array = 0.5,
) -> jax.Array:
    """Returns F = (x_0 - c_skip·x̄)/c_out, the training target of EDM's network (Karras et al. 2022, Eq. 8), `[B, …]`.

    With x̄ = x_t/√ᾱ_t, σ = σ̄_t, c_skip = σ_data²/(σ² + σ_data²) and c_out = σ·σ_data/√(σ² + σ_data²) (Table 1):

        F = (n·x_0 - σ_data²·s·ε)/(σ_data·r),     r = √(n² + σ_data²·s²),     s = √ᾱ_t, n = √(1-ᾱ_t)

    finite for every t; -v if σ_data = 1.
    """
    signal, noise, root = _edm_scales(schedule, x0, t, sigma_data)
    return (noise * x0 - sigma_data**2 * signal * eps) / (sigma_data * root)


def x0_from_edm(
    schedule: NoiseSchedule | Scales,
    x_t: jax.Array,
    t: jax.Array,
    output: jax.Array,
    *,
    sigma_data: float | jax.Array = 0.5,
) -> jax.Array:
    """Returns x̂_0 = c_skip·x̄ + c_out·F = (σ_data/r)²·s·x_t + σ_data·n/r·F, `[B, …]`; letters as in `predict_edm`."""
    signal, noise, root = _edm_scales(schedule, x_t, t, sigma_data)
    return (sigma_data / root) ** 2 * signal * x_t + sigma_data * noise / root * output


def eps_from_edm(
    schedule: NoiseSchedule | Scales,
    x_t: jax.Array,
    t: jax.Array,
    output: jax.Array,
    *,
    sigma_data: float | jax.Array = 0.5,
) -> jax.Array:
    """Returns ε̂ = n/r²·x_t - σ_data·s/r·F, `[B, …]`; letters as in `predict_edm`."""
    signal, noise, root = _edm_scales(schedule, x_t, t, sigma_data)
    return noise / root**2 * x_t - sigma_data * signal / root * output


def network_input(
    schedule: NoiseSchedule | Scales, x_t: jax.Array, t: jax.Array, target: str, *, sigma_data: float | jax.Array = 0.5
) -> jax.Array:
    """Returns x_t as networks of a training target take it, `[B, …]`.

        flow: x_t/(√ᾱ_t + √(1-ᾱ_t)), on the linear path;     edm: c_in·x_t/√ᾱ_t, of standard deviation 1

    with c_in = 1/√(σ² + σ_data²) (Karras et al. 2022, Table 1). For the other targets it is x_t itself.
    """
    if target == "flow":
        return x_t / sum(scales_at(schedule, x_t, t))
    if target == "edm":
        return x_t / _edm_scales(schedule, x_t, t, sigma_data)[2]
    return x_t


def convert(
    schedule: NoiseSchedule | Scales,
    x_t: jax.Array,
    t: jax.Array,
    value: jax.Array,
    *,
    given: str,
    wanted: str,
    sigma_data: float | jax.Array = 0.5,
) -> jax.Array:
    """Converts a prediction at x_t from the parameterization `given` to `wanted`.

    The result is finite at ᾱ_t = 0 if `value` determines it; ε and the score determine neither x_0 nor v there.

    Args:
      schedule: the noise schedule, or its `Scales`.
      x_t, value: `[B, …]`.
      t: `int[B]` or a scalar; may be fractional (see `scales_at`).
      given, wanted: "eps", "x0", "v", "score", "flow" (the velocity ε - x_0) or "edm" (F of `predict_edm`). At t = -1
        there is no score, and x_0 determines nothing else.
      sigma_data: σ_data of "edm".

    Returns:
      `[B, …]`.

    Raises:
      ValueError: an unknown parameterization, or an invalid t, as in `lookup`.
    """
    for argument, kind in (("given", given), ("wanted", wanted)):
        if kind not in PARAMETERIZATIONS:
            raise ValueError(f"{argument}={kind!r} is not one of {', '.join(map(repr, PARAMETERIZATIONS))}")
    if given == wanted:
        return value

    def eps():
        match given:
            case "x0":
                return predict_eps(schedule, x_t, t, value)
            case "v":
                return eps_from_v(schedule, x_t, t, value)
            case "score":
                return eps_from_score(schedule, t, value)
            case "flow":
                return eps_from_flow(schedule, x_t, t, value)
            case "edm":
                return eps_from_edm(schedule, x_t, t, value, sigma_data=sigma_data)
        return value

    def x0():
        match given:
            case "x0":
                return value
            case "v":
                return x0_from_v(schedule, x_t, t, value)
            case "flow":
                return x0_from_flow(schedule, x_t, t, value)
            case "edm":
                return x0_from_edm(schedule, x_t, t, value, sigma_data=sigma_data)
        return predict_x0(schedule, x_t, t, eps())

    match wanted:
        case "eps":
            return eps()
        case "x0":
            return x0()
        case "v":
            return predict_v(schedule, x0(), t, eps())
        case "flow":
            return eps() - x0()
        case "edm":
            return predict_edm(schedule, x0(), t, eps(), sigma_data=sigma_data)
    return score_from_eps(schedule, t, eps())


def scales_at(
    schedule: NoiseSchedule | Scales, x: jax.Array, t: jax.Array, *, clean: bool = True
) -> tuple[jax.Array, jax.Array]:
    """Returns √ᾱ_t and √(1-ᾱ_t) in the dtype of `x`, shaped to broadcast against it.

    Between whole timesteps log(ᾱ/(1-ᾱ)) is linear in t, and at the ends as in `continuous_time`.

    Args:
      schedule: the noise schedule, or its `Scales`.
      x: `[B, …]`.
      t: whole or real times, `[B]` or a scalar, in -1 … T-1 (0 … T-1 without `clean`).
      clean: whether t = -1 is allowed.

    Raises:
      ValueError: an invalid t, as in `lookup`.
    """
    tables = schedule.sqrt_alpha_bars, schedule.sqrt_one_minus_alpha_bars
    at_clean = (1.0, 0.0) if clean else (None, None)
    if not jnp.issubdtype(jnp.result_type(t), jnp.floating):
        return tuple(lookup(table, t, x, value) for table, value in zip(tables, at_clean, strict=True))
    t = jnp.asarray(t, jnp.result_type(x))
    before = jnp.floor(t)
    fraction = (t - before).reshape(t.shape + (1,) * (x.ndim - t.ndim))

    def log_snr(index):
        signal, noise = (
            lookup(table, index.astype(jnp.int32), x, value) for table, value in zip(tables, at_clean, strict=True)
        )
        return 2.0 * (jnp.log(signal) - jnp.log(noise))

    low, high = log_snr(before), log_snr(jnp.ceil(t))
    value = (1.0 - fraction) * low + fraction * high
    # As in continuous_time.alpha_bar_at, where an end is infinite.
    value = jnp.where(jnp.isposinf(low), high - 2.0 * jnp.log(fraction), value)
    value = jnp.where(jnp.isneginf(high), low + 2.0 * jnp.log1p(-fraction), value)
    value = jnp.where(fraction > 0, value, low)
    return jnp.sqrt(jax.nn.sigmoid(value)), jnp.sqrt(jax.nn.sigmoid(-value))


def _edm_scales(schedule, x, t, sigma_data) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns √ᾱ_t, √(1-ᾱ_t) and r = √(1-ᾱ_t + σ_data²·ᾱ_t)."""
    signal, noise = scales_at(schedule, x, t)
    return signal, noise, jnp.sqrt(noise**2 + sigma_data**2 * signal**2)


def check_float(name: str, images: ArrayLike) -> None:
    """Checks that images are floats.

    Raises:
      ValueError: whole numbers, such as pixels of 0 … 255.
    """
    dtype = jnp.result_type(images)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name} must be a float array, not {dtype}; pixels 0 … 255 become {name} / 127.5 - 1")


def lookup(table: ArrayLike, t: jax.Array, x: jax.Array, clean: float | None = None) -> jax.Array:
    """Returns `table[t]` in the dtype of `x`, shaped to broadcast against it; `clean`: the value at t = -1.

    Raises:
      ValueError: an `x` of whole numbers, a concrete `t` out of range (a traced one gives NaN instead), a fractional
        `t`, or a `t` whose shape is neither [] nor [B]. Without `clean`, -1 is out of range.
    """
    check_float("x", x)
    if jnp.issubdtype(jnp.result_type(t), jnp.floating):
        raise ValueError(f"t of dtype {jnp.result_type(t)}: this table has entries at whole timesteps only")
    if np.ndim(t) > 1 or (np.ndim(t) == 1 and np.shape(t)[0] not in (1, np.shape(x)[0])):
        raise ValueError(f"t of shape {np.shape(t)} against x of shape {np.shape(x)}: t must be a scalar or [{len(x)}]")
    lowest = 0 if clean is None else -1
    known = None if isinstance(t, jax.core.Tracer) else np.asarray(t)  # a JAX array within jit is known, too
    if known is not None and (known.min() < lowest or known.max() >= len(table)):
        raise ValueError(
            f"timestep {known.min()} … {known.max()} is out of range: allowed is {lowest} … {len(table) - 1}"
        )
    table = jnp.asarray(table, jnp.result_type(x))
    clean_first = jnp.pad(table, (1, 0), constant_values=np.nan if clean is None else clean)
    values = clean_first.at[jnp.asarray(t) + 1].get(mode="fill", fill_value=np.nan, wrap_negative_indices=False)
    return values.reshape(values.shape + (1,) * (np.ndim(x) - np.ndim(values)))
