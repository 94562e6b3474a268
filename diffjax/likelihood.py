"""The parts of the variational bound: KL divergences of Gaussians and the discretised decoder, all elementwise."""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr

from diffjax import process
from diffjax.schedules import NoiseSchedule

_HALF_BIN = 1.0 / 255.0
_EDGE = 0.999
# What stands in where a bin's probability rounds to 0.
_LEAST = 1e-37


def normal_kl(mean_1: jax.Array, log_var_1: jax.Array, mean_2: jax.Array, log_var_2: jax.Array) -> jax.Array:
    """KL(N(μ₁, σ₁²) ‖ N(μ₂, σ₂²)) = ½(log σ₂² - log σ₁² + σ₁²/σ₂² - 1 + (μ₁-μ₂)²/σ₂²), in nats. All broadcast."""
    log_ratio = log_var_1 - log_var_2
    return 0.5 * (jnp.expm1(log_ratio) - log_ratio + (mean_1 - mean_2) ** 2 * jnp.exp(-log_var_2))


def discretized_gaussian_log_prob(x: jax.Array, mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """log P(x) in nats for 8-bit images in [-1, 1]: the mass of N(μ, σ²) within 1/255 of x (DDPM Eq. 13).

    The bins at -1 and 1 reach to ∓∞, so the 256 of them hold a mass of 1. Φ itself is used, in logarithms (public code
    has a tanh in its place, and a floor of 10⁻¹² under the mass).

    Args:
      x: one of k/127.5 - 1, k = 0 … 255.
      mean, log_var: broadcast against x.
    """
    scale = jnp.exp(-0.5 * log_var)
    centred = x - mean
    # A bin right of the mean is mirrored: the left tail alone keeps its digits.
    sign = jnp.where(centred > 0, -1.0, 1.0)
    upper = log_ndtr((sign * centred + _HALF_BIN) * scale)
    lower = log_ndtr((sign * centred - _HALF_BIN) * scale)
    inner = upper + jnp.log(jnp.maximum(-jnp.expm1(lower - upper), _LEAST))
    first = log_ndtr((centred + _HALF_BIN) * scale)
    last = log_ndtr((_HALF_BIN - centred) * scale)
    return jnp.where(x < -_EDGE, first, jnp.where(x > _EDGE, last, inner))


def bound_term(
    schedule: NoiseSchedule, x0: jax.Array, x_t: jax.Array, t: jax.Array, mean: jax.Array, log_var: jax.Array
) -> jax.Array:
    """L_t of the bound on -log p(x_0) in bits/dim, the mean over each example's elements: `[B]` (DDPM Eq. 5).

        t > 0: KL(q(x_{t-1} | x_t, x_0) ‖ N(μ, σ²))        t = 0: -log P(x_0), discretised

    The bound itself is Σ_t L_t and the (tiny) KL of q(x_T | x_0) from N(0, I).

    Args:
      x0, x_t: `[B, …]`, x0 an 8-bit image in [-1, 1]; t: `int[B]` in 0 … T-1.
      mean, log_var: `[B, …]`, of the model's p(x_{t-1} | x_t).
    """
    true_mean, _, true_log_var = process.q_posterior(schedule, x0, x_t, t)
    kl = normal_kl(true_mean, true_log_var, mean, log_var)
    first = (t == 0).reshape(-1, *(1,) * (x0.ndim - 1))
    # Elsewhere the decoder would be asked far out in a tail, where its gradient overflows.
    decoder = -discretized_gaussian_log_prob(x0, jnp.where(first, mean, x0), jnp.where(first, log_var, 0.0))
    return jnp.mean(jnp.where(first, decoder, kl), axis=range(1, x0.ndim)) / math.log(2.0)
