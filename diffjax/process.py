"""The forward process q(x_t | x_0), its posterior, and the conversions between x_0 and ε.

`x` are arrays `[B, …]`, `t` is `int[B]` or a scalar in 0 … T-1; -1 (clean data) is allowed wherever it means something.
Tables are looked up in the dtype of `x`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.schedules import NoiseSchedule, Table


def q_sample(schedule: NoiseSchedule, x0: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
    """x_t = √ᾱ_t·x_0 + √(1-ᾱ_t)·ε, a draw of q(x_t | x_0) (DDPM Eq. 4). All `[B, …]`; `t = -1` gives x_0."""
    return (
        _lookup(schedule.sqrt_alpha_bars, t, x0, clean=1.0) * x0
        + _lookup(schedule.sqrt_one_minus_alpha_bars, t, x0, clean=0.0) * noise
    )


def q_mean_variance(schedule: NoiseSchedule, x0: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean `[B, …]`, variance and log-variance (`[B, 1, …]`) of q(x_t | x_0) (DDPM Eq. 4)."""
    return (
        _lookup(schedule.sqrt_alpha_bars, t, x0, clean=1.0) * x0,
        _lookup(1.0 - schedule.alpha_bars, t, x0, clean=0.0),
        _lookup(schedule.log_one_minus_alpha_bars, t, x0, clean=-np.inf),
    )


def q_posterior(
    schedule: NoiseSchedule, x0: jax.Array, x_t: jax.Array, t: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean `[B, …]`, variance and log-variance (`[B, 1, …]`) of q(x_{t-1} | x_t, x_0) (DDPM Eq. 6-7), t ≥ 0.

    At t = 0 the variance is 0 and the log-variance that of t = 1 (`NoiseSchedule.posterior_log_variance`).
    """
    mean = (
        _lookup(schedule.posterior_mean_coef_x0, t, x_t) * x0 + _lookup(schedule.posterior_mean_coef_xt, t, x_t) * x_t
    )
    return mean, _lookup(schedule.posterior_variance, t, x_t), _lookup(schedule.posterior_log_variance, t, x_t)


def predict_x0(schedule: NoiseSchedule, x_t: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """x̂_0 = (x_t - √(1-ᾱ_t)·ε̂)/√ᾱ_t (DDPM Eq. 15), `[B, …]`. Not finite where ᾱ_t = 0."""
    signal = _lookup(schedule.sqrt_alpha_bars, t, x_t, clean=1.0)
    noise = _lookup(schedule.sqrt_one_minus_alpha_bars, t, x_t, clean=0.0)
    return (x_t - noise * eps) / signal


def predict_eps(schedule: NoiseSchedule, x_t: jax.Array, t: jax.Array, x0: jax.Array) -> jax.Array:
    """ε̂ = (x_t - √ᾱ_t·x̂_0)/√(1-ᾱ_t), `[B, …]`, t ≥ 0: the inverse of `predict_x0`."""
    return (x_t - _lookup(schedule.sqrt_alpha_bars, t, x_t) * x0) / _lookup(schedule.sqrt_one_minus_alpha_bars, t, x_t)


def _lookup(table: Table, t: jax.Array, x: jax.Array, clean: float | None = None) -> jax.Array:
    """`table[t]` in the dtype of `x`, shaped to broadcast against it; `clean` is the value at t = -1, if it has one.

    Raises:
      ValueError: a concrete `t` out of range (a traced one cannot be seen), or of a shape other than [] and [B].
    """
    if np.ndim(t) > 1 or (np.ndim(t) == 1 and np.shape(t)[0] not in (1, np.shape(x)[0])):
        raise ValueError(f"t of shape {np.shape(t)} against x of shape {np.shape(x)}: t is a scalar or [{len(x)}]")
    lowest = 0 if clean is None else -1
    if not isinstance(t, jax.core.Tracer) and (np.min(t) < lowest or np.max(t) >= len(table)):
        raise ValueError(f"timestep {np.min(t)} … {np.max(t)} is out of range: allowed is {lowest} … {len(table) - 1}")
    # Index -1 reads the appended last entry.
    values = jnp.asarray(table if clean is None else np.append(table, clean), jnp.result_type(x))[jnp.asarray(t)]
    return values.reshape(values.shape + (1,) * (np.ndim(x) - np.ndim(values)))
