"""The variational bound of DDPM and its parts: the KL divergence of Gaussians and the discretised decoder."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from numpy.typing import ArrayLike

from diffjax import process
from diffjax.likelihood.every_timestep import Noised, at_every_timestep
from diffjax.loop import Clip, as_clip
from diffjax.noise import keys_of
from diffjax.prediction import Predict, Prediction, as_predict
from diffjax.schedules import NoiseSchedule

VARIANCES = ("fixed_small", "fixed_large", "learned", "learned_range")

HALF_BIN = 1.0 / 255.0
"""Half the width of one 8-bit bin in [-1, 1]."""
_EDGE = 0.999
_LEAST = 1e-37
"""The probability that replaces one which rounds to 0."""


def normal_kl(mean_1: jax.Array, log_var_1: jax.Array, mean_2: jax.Array, log_var_2: jax.Array) -> jax.Array:
    """Returns KL(N(μ₁, σ₁²) ‖ N(μ₂, σ₂²)) = ½(log σ₂² - log σ₁² + σ₁²/σ₂² - 1 + (μ₁-μ₂)²/σ₂²) in nats, broadcast."""
    log_ratio = log_var_1 - log_var_2
    return 0.5 * (jnp.expm1(log_ratio) - log_ratio + (mean_1 - mean_2) ** 2 * jnp.exp(-log_var_2))


def discretized_gaussian_log_prob(x: jax.Array, mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """Returns log P(x) in nats for 8-bit images in [-1, 1]: the mass of N(μ, σ²) within 1/255 of x (DDPM Eq. 13).

    The bins at -1 and 1 extend to ∓∞, so the mass of all 256 bins is 1. Φ is computed exactly, as a logarithm (public
    code approximates it by a tanh, and bounds the mass below by 10⁻¹²).

    Args:
      x: one of k/127.5 - 1, k = 0 … 255.
      mean, log_var: broadcast against x.
    """
    scale = jnp.exp(-0.5 * log_var)
    centred = x - mean
    # A bin right of the mean is mirrored, because only the left tail is precise.
    sign = jnp.where(centred > 0, -1.0, 1.0)
    upper = log_ndtr((sign * centred + HALF_BIN) * scale)
    lower = log_ndtr((sign * centred - HALF_BIN) * scale)
    inner = upper + jnp.log(jnp.maximum(-jnp.expm1(lower - upper), _LEAST))
    first = log_ndtr((centred + HALF_BIN) * scale)
    last = log_ndtr((HALF_BIN - centred) * scale)
    return jnp.where(x < -_EDGE, first, jnp.where(x > _EDGE, last, inner))


def bound_term(
    schedule: NoiseSchedule, x0: jax.Array, x_t: jax.Array, t: jax.Array, mean: jax.Array, log_var: jax.Array
) -> jax.Array:
    """Returns L_t of the bound on -log p(x_0) in bits/dim, the mean over each example's elements: `[B]` (DDPM Eq. 5).

        t > 0: KL(q(x_{t-1} | x_t, x_0) ‖ N(μ, σ²))        t = 0: -log P(x_0), discretised

    The bound itself is Σ_t L_t plus the (tiny) KL of q(x_T | x_0) from N(0, I).

    Args:
      x0, x_t: `[B, …]`, x0 an 8-bit image in [-1, 1]; t: `int[B]` in 0 … T-1.
      mean, log_var: `[B, …]`, of the model's p(x_{t-1} | x_t).
    """
    true_mean, _, true_log_var = process.q_posterior(schedule, x0, x_t, t)
    kl = normal_kl(true_mean, true_log_var, mean, log_var)
    first = (t == 0).reshape(-1, *(1,) * (x0.ndim - 1))
    # At t > 0 the decoder would be evaluated far out in a tail, where its gradient overflows.
    decoder = -discretized_gaussian_log_prob(x0, jnp.where(first, mean, x0), jnp.where(first, log_var, 0.0))
    return jnp.mean(jnp.where(first, decoder, kl), axis=range(1, x0.ndim)) / math.log(2.0)


class Bound(NamedTuple):
    """The bound on -log p(x_0) of each image and its terms, bits/dim: `total` = `prior` + Σ_t `terms`."""

    total: jax.Array
    """`[B]`."""
    prior: jax.Array
    """L_T `[B]`: KL(q(x_T | x_0) ‖ N(0, I))."""
    terms: jax.Array
    """`[T, B]`: at t > 0 the KL of step t → t-1, at t = 0 the decoder's -log P(x_0) (the paper's L_t and L_0)."""
    eps_mse: jax.Array
    """`[T, B]`: the squared error of the network's ε̂."""
    x0_mse: jax.Array
    """`[T, B]`: the squared error of x̂0 after `clip`."""


class _Tables(NamedTuple):
    """The tables of a schedule that the bound's terms need, `[T]`."""

    coef_x0: ArrayLike
    coef_xt: ArrayLike
    true_log_var: ArrayLike
    low: ArrayLike
    high: ArrayLike


def bound(
    schedule: NoiseSchedule,
    predict: Predict,
    x0: jax.Array,
    key: jax.Array,
    *,
    variance: str | ArrayLike = "fixed_small",
    clip: Clip = None,
) -> Bound:
    """Computes the variational bound on the code length of 8-bit images (DDPM Eq. 5), with one sample of x_t at each t.

        L_T + Σ_{t=1}^{T-1} KL(q(x_{t-1} | x_t, x_0) ‖ N(μ(x_t, x̂0), σ_t²)) - log P(x_0 | x_1)

    Runs one scan with one network call per timestep; new parameters cause no recompilation. The noise of sample n at t
    has the key `fold_in(key_n, t)`, so its bound is the same in any batch. For a shorter chain use `schedules.respace`.

    Args:
      schedule: the noise schedule.
      predict: as in `sample`.
      x0: `[B, …]`, 8-bit images in [-1, 1].
      key: typed keys `[B]`, or one key.
      variance: the variance of p(x_{t-1} | x_t), as in `samplers.ddpm`: "fixed_small" β̃, "fixed_large" β,
        "learned_range" between them, or "learned". At t = 0 β̃ of t = 1 replaces both fixed variances, and the range's
        lower end. An array `[T]` holds the variances themselves, at t = 0 the decoder's.
      clip: the transform of x̂0, as in `sample`; published bounds of DDPM use 1.

    Raises:
      ValueError: images that are not 8-bit images in [-1, 1], an unknown variance, variances that are not `[T]` finite
        numbers > 0, a variance that the network does not predict, an ε-network at ᾱ = 0, or keys that are invalid for
        `sample`.
    """
    low, high = _log_variance_range(schedule, variance)
    x0, predict = checked(predict, x0)
    check_pixels(x0)
    output = jax.eval_shape(predict, x0, jax.ShapeDtypeStruct(x0.shape[:1], jnp.int32))
    is_prediction = isinstance(output, Prediction)
    has_fraction = is_prediction and output.log_var_frac is not None
    if isinstance(variance, str) and variance.startswith("learned") and not has_fraction:
        raise ValueError(f"variance={variance!r} needs a predict that returns a Prediction with log_var_frac")
    if schedule.alpha_bars[-1] == 0.0 and not is_prediction:
        raise ValueError(
            "alpha_bar ends at 0, where eps does not determine x0: predict must return a Prediction "
            "(parameterization.from_v, from_x0)"
        )
    tables = _Tables(
        coef_x0=schedule.posterior_mean_coef_x0,
        coef_xt=schedule.posterior_mean_coef_xt,
        true_log_var=schedule.posterior_log_variance,
        low=low,
        high=high,
    )
    return _bound(process.Scales.of(schedule), tables, predict, x0, keys_of(key, len(x0)), as_clip(clip))


def _log_variance_range(schedule: NoiseSchedule, variance: str | ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lowest and the highest log σ_t², `[T]`, between which the network chooses; equal if it does not.

    Raises:
      ValueError: an unknown variance, or variances that are not `[T]` finite numbers > 0.
    """
    small, large = schedule.posterior_log_variance, np.log(schedule.betas)
    if not isinstance(variance, str):
        return (np.log(check_variances(schedule, "variance", variance)),) * 2
    if variance == "fixed_small":
        return small, small
    if variance == "fixed_large":
        return (np.append(small[:1], large[1:]),) * 2
    if variance == "learned_range":
        return small, large
    if variance == "learned":
        return np.zeros_like(small), np.ones_like(small)
    raise ValueError(f"variance={variance!r} is not one of {', '.join(map(repr, VARIANCES))}")


def check_variances(schedule: NoiseSchedule, name: str, variances: ArrayLike) -> np.ndarray:
    """Returns variances by timestep as float64 `[T]`.

    Raises:
      ValueError: another length, or numbers that are not finite and > 0; the message opens with `name`.
    """
    variances = np.asarray(variances, np.float64)
    if variances.shape != (schedule.num_timesteps,) or not np.all((variances > 0.0) & np.isfinite(variances)):
        raise ValueError(
            f"{name} of shape {variances.shape} must be {schedule.num_timesteps} finite numbers > 0, one a timestep"
        )
    return variances


@jax.jit
def _bound(
    scales: process.Scales, tables: _Tables, predict: Predict, x0: jax.Array, keys: jax.Array, clip: Clip
) -> Bound:
    terms, eps_mse, x0_mse = at_every_timestep(_term_and_errors, scales, tables, predict, x0, keys, clip)
    signal, noise = (jnp.asarray(table[-1], x0.dtype) for table in scales)
    kl = normal_kl(signal * x0, 2.0 * jnp.log(noise), 0.0, 0.0)
    prior = jnp.mean(kl, axis=range(1, x0.ndim)) / math.log(2.0)
    return Bound(prior + jnp.sum(terms, axis=0), prior, terms, eps_mse, x0_mse)


def _term_and_errors(at: Noised, output: Prediction, row: _Tables) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns L_t in bits/dim, and the squared errors of ε̂ and x̂0, `[B]` each."""
    axes = tuple(range(1, at.x0.ndim))
    frac = 0.0 if output.log_var_frac is None else output.log_var_frac
    log_var = row.low + frac * (row.high - row.low)
    true_mean, mean = (row.coef_x0 * start + row.coef_xt * at.x_t for start in (at.x0, output.x0))
    nats = jax.lax.cond(
        at.t == 0,
        lambda: -discretized_gaussian_log_prob(at.x0, mean, log_var),
        lambda: normal_kl(true_mean, row.true_log_var, mean, log_var),
    )
    eps_mse, x0_mse = (jnp.mean(error**2, axes) for error in (output.eps - at.noise, output.x0 - at.x0))
    return jnp.mean(nats, axes) / math.log(2.0), eps_mse, x0_mse


def check_pixels(x0: jax.Array) -> None:
    """Checks that images are 8-bit images in [-1, 1], k/127.5 - 1 for k = 0 … 255; traced ones are not checked.

    Raises:
      ValueError: other values, such as those of images in [0, 1] or 0 … 255.
    """
    if isinstance(x0, jax.core.Tracer):
        return
    levels = (np.asarray(x0, np.float64) + 1.0) * 127.5
    if not (np.all(np.abs(levels - np.round(levels)) < 0.05) and levels.min() > -0.5 and levels.max() < 255.5):
        raise ValueError(
            f"x0 must be 8-bit images in [-1, 1], made by pixels / 127.5 - 1; these have values within "
            f"{np.min(x0):.4g} … {np.max(x0):.4g}"
            + (", not all of them multiples of 1/127.5" if np.all(np.abs(x0) <= 1.001) else "")
        )


def checked(predict: Predict, x0: jax.Array) -> tuple[jax.Array, Predict]:
    """Returns (x0 as float32 or wider, predict as a pytree).

    Raises:
      ValueError: x0 is not a float array `[B, …]`, or predict is not callable.
    """
    x0 = jnp.asarray(x0)
    if x0.ndim < 2 or not jnp.issubdtype(x0.dtype, jnp.floating):
        raise ValueError(f"x0 must be a float array [B, …]; it has shape {x0.shape} and dtype {x0.dtype}")
    return x0.astype(jnp.promote_types(x0.dtype, jnp.float32)), as_predict(predict)
