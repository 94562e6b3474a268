"""The twisted diffusion sampler: sequential Monte Carlo whose particles become exact posterior samples as they grow."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from diffjax.inverse.methods import as_leaf, check_numbers, check_operator, residual_of, tweedie_factor
from diffjax.inverse.operators import Operator
from diffjax.loop import Clip, as_clip, cast_row, predict_row
from diffjax.noise import initial_noise, keys_of, sample_noise
from diffjax.prediction import Predict, as_predict
from diffjax.steps import Sampler

_RESAMPLING = 2**31
"""What is added to a row's number for the random offset of its resampling."""


class Particles(NamedTuple):
    """Weighted samples of the posterior of each measurement."""

    x: jax.Array
    """`[B, K, …]`."""
    weights: jax.Array
    """`[B, K]`, of sum 1: E[f(x) | y] ≈ Σ_k weights[k]·f(x[k])."""
    effective: jax.Array
    """`[B, R + 1]`: the effective number of particles, 1/Σ_k weights², before each row's resampling and at the end."""
    log_evidence: jax.Array
    """`[B]`: the estimate of log p(y) of the sampler's own model."""

    def draw(self, key: jax.Array) -> jax.Array:
        """Returns one sample of each posterior, `[B, …]`, drawn by the weights."""
        which = jax.random.categorical(key, jnp.log(self.weights), axis=1)
        return jnp.take_along_axis(self.x, which.reshape(-1, *[1] * (self.x.ndim - 1)), axis=1)[:, 0]


def twisted(
    sampler: Sampler,
    predict: Predict,
    operator: Operator,
    y: ArrayLike,
    key: jax.Array,
    *,
    noise_std: ArrayLike,
    num_particles: int,
    prior_var: ArrayLike = 1.0,
    resample_below: float = 0.5,
    clip: Clip = None,
) -> Particles:
    """Runs the twisted diffusion sampler (TDS; Wu et al. 2023, Alg. 1) on a table.

    Each row proposes by the sampler's step from x̂0 + (1-ᾱ)/√ᾱ·∇log p̃(y | x_t) and weighs a particle by

        p̃(y | x_s)·N(x_s; m, d²·I) / (p̃(y | x_t)·N(x_s; m̃, d²·I)),     p̃(y | x_t) = N(y; A·x̂0, (σ_y² + r²)·I)

    m and m̃ being the means of the step without and with the gradient, and r² as in `pigdm`. A row without noise (d = 0,
    the last one) proposes m itself. The exact p(y | x_0) ends the run, so that the weighted particles converge, as they
    grow in number, to the posterior of the prior that the table itself samples from, whatever p̃ is. Memory and time are
    those of B·K samples, with a backward pass in each row.

    Args:
      sampler: a stochastic table of one call a level, without histories or learned variance, that ends at clean data:
        `ddpm`, or `ddim` with η > 0.
      predict: returns ε̂ `[B·K, …]`, a `Prediction` or a `Target`: the particles of a measurement are adjacent.
      operator: A.
      y: the measurements, `[B, …]`.
      key: typed keys `[B]`, or one key.
      noise_std: σ_y > 0.
      num_particles: K ≥ 2.
      prior_var: v > 0 in r², the variance of the data.
      resample_below: particles are resampled (systematically) where their effective number is below this share of K.
      clip: the transform of x̂0 before the gradient is added, as in `sample`.

    Raises:
      ValueError: another kind of sampler, numbers out of range, or arguments that are invalid for `sample`.
    """
    check_operator(operator)
    check_numbers(noise_std=noise_std, prior_var=prior_var)
    if num_particles < 2 or not 0.0 <= resample_below <= 1.0:
        raise ValueError(
            f"num_particles={num_particles} must be ≥ 2, and resample_below={resample_below} within [0, 1]"
        )
    if sampler.x0_history.shape[-1] or sampler.eps_history.shape[-1] or sampler.log_var is not None:
        raise ValueError("twisted needs a sampler without histories or learned variance: use ddpm or ddim")
    if not sampler.is_stochastic or sampler.grid[-1] != -1:
        raise ValueError("twisted needs a sampler that adds noise and ends at clean data, -1")
    y = jnp.asarray(y)
    options = as_leaf(noise_std), as_leaf(prior_var), as_leaf(resample_below)
    return _run(sampler, as_predict(predict), operator, y, keys_of(key, len(y)), options, as_clip(clip), num_particles)


@partial(jax.jit, static_argnums=7)
def _run(sampler, predict, operator, y, keys, options, clip, count) -> Particles:
    dtype = jnp.result_type(y.dtype, jnp.float32)
    shape, size = operator.image_shape, len(y)
    noise_std, prior_var, resample_below = (jnp.asarray(option, dtype) for option in options)
    particle_keys = jax.vmap(lambda key: jax.random.split(key, count))(keys).reshape(-1)
    y_all = jnp.repeat(y.astype(dtype), count, axis=0)

    def log_likelihood(x0, variance):
        residual = residual_of(operator, x0, y_all)
        square = jnp.sum(residual.reshape(len(residual), -1) ** 2, axis=1)
        numbers = residual.size // len(residual)
        return -0.5 * (square / variance + numbers * jnp.log(2 * jnp.pi * variance))

    def twist(x, row):
        x0, eps, _ = predict_row(predict, row, x, clip)
        r2 = prior_var * row.noise**2 / (row.noise**2 + prior_var * row.signal**2)
        value = log_likelihood(x0, noise_std**2 + r2)
        return jnp.sum(value), (value, x0, eps)

    def body(carry, columns):
        x, log_weights, log_evidence = carry
        number, row = columns
        row = cast_row(row, dtype)
        gradient, (value, x0, eps) = jax.grad(twist, has_aux=True)(x, row)
        log_weights, log_evidence, effective = _normalized(log_weights + value.reshape(size, count), log_evidence)
        chosen, log_weights = _resampled(keys, number, log_weights, effective < resample_below * count)
        x, x0, eps, gradient, value = (part[chosen] for part in (x, x0, eps, gradient, value))
        shift = jnp.where(row.d > 0, tweedie_factor(row.signal, row.noise), 0) * gradient
        mean = row.a * x + row.b * x0 + row.c * eps
        # The ε̂ of a shifted x̂0 is (x - √ᾱ·x̂0)/√(1-ᾱ).
        move = (row.b - row.c * row.signal / row.noise) * shift
        z = sample_noise(particle_keys, number, shape, dtype)
        x = mean + move + row.d * z
        # log N(x; mean, d²) - log N(x; mean + move, d²)
        ratio = _by_particle(jnp.where(row.d > 0, move / jnp.where(row.d > 0, row.d, 1), 0), z)
        log_weights = log_weights + (ratio - value).reshape(size, count)
        return (x, log_weights, log_evidence), effective

    x = initial_noise(particle_keys, shape, dtype)
    start = x, jnp.full((size, count), -jnp.log(count), dtype), jnp.zeros(size, dtype)
    (x, log_weights, log_evidence), effective = jax.lax.scan(body, start, (jnp.arange(sampler.num_rows), sampler))
    log_weights = log_weights + log_likelihood(x, noise_std**2).reshape(size, count)
    log_weights, log_evidence, last = _normalized(log_weights, log_evidence)
    return Particles(
        x=x.reshape(size, count, *shape),
        weights=jnp.exp(log_weights),
        effective=jnp.append(effective.T, last[:, None], axis=1),
        log_evidence=log_evidence,
    )


def _normalized(log_weights, log_evidence):
    """Returns log weights of sum 1, log p(y) so far, and the effective number of particles."""
    total = jax.nn.logsumexp(log_weights, axis=1)
    log_weights = log_weights - total[:, None]
    return log_weights, log_evidence + total, jnp.exp(-jax.nn.logsumexp(2 * log_weights, axis=1))


def _resampled(keys, number, log_weights, wanted):
    """Returns the numbers of the chosen particles among all, `[B·K]`, and their log weights `[B, K]`.

    Systematic resampling (Kitagawa 1996): K equidistant points with one random offset in the cumulated weights.
    """
    size, count = log_weights.shape
    offsets = jax.vmap(
        lambda key: jax.random.uniform(jax.random.fold_in(key, jnp.uint32(_RESAMPLING) + number.astype(jnp.uint32)))
    )(keys)
    points = (jnp.arange(count) + offsets[:, None].astype(log_weights.dtype)) / count
    cumulated = jnp.cumsum(jnp.exp(log_weights), axis=1)
    drawn = jnp.minimum(jax.vmap(jnp.searchsorted)(cumulated, points), count - 1)
    chosen = jnp.where(wanted[:, None], drawn, jnp.arange(count))
    log_weights = jnp.where(wanted[:, None], -jnp.log(count), log_weights)
    return (chosen + jnp.arange(size)[:, None] * count).reshape(-1), log_weights


def _by_particle(scaled_move, z):
    """Returns ½·‖z‖² - ½·‖z + scaled_move‖² of each particle, `[B·K]`."""
    parts = -scaled_move * z - 0.5 * scaled_move**2
    return jnp.sum(parts.reshape(len(z), -1), axis=1)
