"""Training losses, one value for each example, and their weights by timestep."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffjax import fields, likelihood, process
from diffjax.fields import Field
from diffjax.noise import keys_of
from diffjax.registry import Registry, call
from diffjax.schedules import NoiseSchedule, Table

TARGETS = ("eps", "x0", "v", "flow", "edm")
"""The quantities that a network may be trained to predict (`process.convert`).

"flow" is the velocity ε - x_0 of rectified flow (Liu et al. 2023), "edm" the output F of EDM's network (Karras et al.
2022, Eq. 8). Networks of these two are called with `process.network_input`.
"""
NORMS = ("l2", "l1", "huber")
"""The norms of the error."""

GIVEN = ("snr", "unit", "sigma_data")
"""The parameters of a weighting that are no options of it."""

WEIGHTINGS = Registry("loss weighting")
"""Functions (snr `[T]`, options) → the weight of the x0-error at each t, `[T]`.

They may also take `unit` `[T]` and `sigma_data`. At a given x_t, the squared errors of ε̂, x̂0 and v̂ of the same
prediction have the ratio SNR : 1 : SNR + 1, with SNR = ᾱ/(1-ᾱ). `unit` is the term of the training target: 1 for x_0,
SNR for ε, SNR + 1 for v, (√SNR + 1)² for "flow" and SNR + 1/σ_data² for "edm".
"""


@WEIGHTINGS.register
def simple(unit: np.ndarray) -> np.ndarray:
    """Weights the target's own error by 1; for ε, this is L_simple (DDPM Eq. 14), and for "edm", EDM's loss."""
    return unit


@WEIGHTINGS.register
def snr(snr: np.ndarray) -> np.ndarray:
    """Weights the x0-error by SNR, which gives the error of ε̂ (Salimans & Ho 2022, §4)."""
    return snr


@WEIGHTINGS.register
def min_snr(snr: np.ndarray, *, weighting_gamma: float = 5.0) -> np.ndarray:
    """Weights the x0-error by min(SNR, γ) (Hang et al. 2023, §3.4).

    Args:
      weighting_gamma: γ, the largest weight, in (0, 1e6].

    Raises:
      ValueError: γ ≤ 0 or not finite.
    """
    return np.minimum(snr, _checked_gamma(weighting_gamma, 1e6))


@WEIGHTINGS.register
def p2(snr: np.ndarray, *, weighting_gamma: float = 1.0) -> np.ndarray:
    """Weights the x0-error by SNR/(1 + SNR)^γ: the error of ε̂ over (1 + SNR)^γ (Choi et al. 2022, Eq. 8, k = 1).

    Args:
      weighting_gamma: γ, the strength of the weighting, in (0, 100].

    Raises:
      ValueError: γ ≤ 0 or not finite.
    """
    with np.errstate(over="ignore"):
        return snr / (1.0 + snr) ** _checked_gamma(weighting_gamma, 100.0)


@WEIGHTINGS.register
def truncated(snr: np.ndarray) -> np.ndarray:
    """Weights the x0-error by max(SNR, 1) (Salimans & Ho 2022, §4)."""
    return np.maximum(snr, 1.0)


@WEIGHTINGS.register
def edm(snr: np.ndarray, sigma_data: float) -> np.ndarray:
    """Weights the x0-error by (σ² + σ_data²)/(σ·σ_data)² = SNR + 1/σ_data² (Karras et al. 2022, Table 1)."""
    return snr + 1.0 / sigma_data**2


def weights(
    schedule: NoiseSchedule,
    weighting: str = "simple",
    *,
    target: str = "eps",
    sigma_data: float = 0.5,
    **options: Any,
) -> Table:
    """Returns the weight of the error of `target` at each t, `[T]`: the weighting divided by the target's unit.

    Args:
      schedule: the noise schedule.
      weighting: a name in `WEIGHTINGS`, or an import path.
      target: the training target, one of `TARGETS`.
      sigma_data: σ_data, for the target and the weighting "edm".
      options: the options of the weighting.

    Raises:
      ValueError: an unknown weighting, target or option, σ_data ≤ 0, or a weight that is not finite and ≥ 0 (as for ε
        at ᾱ = 0).
    """
    _check("target", target, TARGETS)
    if not 1e-100 < sigma_data < np.inf:
        raise ValueError(f"sigma_data={sigma_data} must be > 0 and finite")
    ratio = schedule.alpha_bars / (1.0 - schedule.alpha_bars)
    unit = {
        "x0": np.ones_like(ratio),
        "eps": ratio.copy(),
        "v": ratio + 1.0,
        "flow": (np.sqrt(ratio) + 1.0) ** 2,
        "edm": ratio + 1.0 / sigma_data**2,
    }[target]
    on_x0 = call(WEIGHTINGS[weighting], {"snr": ratio, "unit": unit, "sigma_data": sigma_data}, options)
    if on_x0 is unit:
        return np.ones(schedule.num_timesteps)  # also where the unit is 0
    with np.errstate(divide="ignore", invalid="ignore"):
        result = np.asarray(on_x0, np.float64) / unit
    if result.shape != unit.shape or not np.all((result >= 0.0) & np.isfinite(result)):
        where = f" at t={np.argmin((result >= 0.0) & np.isfinite(result))}" if result.shape == unit.shape else ""
        raise ValueError(
            f"weighting={weighting!r} for target={target!r} must be finite and ≥ 0 at every timestep; it is not{where}"
        )
    return result


def weighting_options(weighting: str) -> dict[str, Field]:
    """Returns the options of a weighting, given by its name in `WEIGHTINGS` or by an import path.

    Raises:
      ValueError: an unknown weighting.
    """
    return fields.options(WEIGHTINGS[weighting], GIVEN)


def denoising(
    schedule: NoiseSchedule,
    predict: Callable[[jax.Array, jax.Array], jax.Array],
    x0: jax.Array,
    t: jax.Array,
    noise: jax.Array,
    *,
    target: str = "eps",
    norm: str = "l2",
    delta: float = 1.0,
    weights: ArrayLike | None = None,
    vlb_weight: float = 0.0,
    sigma_data: float = 0.5,
) -> jax.Array:
    """Returns the error of the network's prediction at x_t, the mean over each example's elements: `[B]`.

    With ε as target and the other defaults it is L_simple (DDPM Eq. 14). `vlb_weight` = λ adds λ·T·L_t (bits/dim),
    which trains a learned_range variance; its gradient does not reach the mean (L_hybrid, Nichol & Dhariwal 2021).

    Args:
      schedule: the noise schedule.
      predict: (x_t, t) → the prediction of `target`, `[B, …, C]`; with `vlb_weight` > 0, `[B, …, 2C]` with the variance
        in the last C channels (`parameterization.split_variance`). x_t is scaled as `process.network_input` says.
      x0, noise: `[B, …, C]`. With `vlb_weight` > 0, x0 is an 8-bit image in [-1, 1].
      t: `[B]` in 0 … T-1: whole or, without `vlb_weight`, real times (`process.scales_at`).
      target: one of `TARGETS`; "flow" and "edm" go without `vlb_weight`.
      norm: the norm of the error e: "l2" (e²), "l1" (|e|) or "huber" (½e² within `delta`, δ(|e| - ½δ) outside).
      delta: δ of the Huber norm.
      weights: `[T]`, the weight of the error at each t, linear in t between; None: 1.
      vlb_weight: λ; 0.001 in the paper, 0 for a network without a variance.
      sigma_data: σ_data of the target "edm".

    Raises:
      ValueError: an unknown target or norm, δ ≤ 0, λ < 0 or not allowed, or an output of the wrong shape.
    """
    _check("target", target, TARGETS)
    if not 0.0 <= vlb_weight < np.inf:
        raise ValueError(f"vlb_weight={vlb_weight} must be ≥ 0 and finite")
    if vlb_weight and target in ("flow", "edm"):
        raise ValueError(f"vlb_weight={vlb_weight} must be 0 for target={target!r}")
    x_t = process.q_sample(schedule, x0, t, noise)
    output = predict(process.network_input(schedule, x_t, t, target, sigma_data=sigma_data), t)
    wanted_shape = (*x0.shape[:-1], x0.shape[-1] * (2 if vlb_weight else 1))
    if output.shape != wanted_shape:
        raise ValueError(
            f"predict returned shape {output.shape} for x of shape {x0.shape}; it must be {wanted_shape} "
            f"with vlb_weight={vlb_weight}"
        )
    output, variance = jnp.split(output, 2, axis=-1) if vlb_weight else (output, None)
    wanted = {
        "eps": lambda: noise,
        "x0": lambda: x0,
        "v": lambda: process.predict_v(schedule, x0, t, noise),
        "flow": lambda: noise - x0,
        "edm": lambda: process.predict_edm(schedule, x0, t, noise, sigma_data=sigma_data),
    }[target]()
    loss = distance(output, wanted, norm=norm, delta=delta)
    if weights is not None:
        loss *= _weight_at(jnp.asarray(weights, loss.dtype), t)
    if vlb_weight:
        frozen = jax.lax.stop_gradient(process.convert(schedule, x_t, t, output, given=target, wanted="x0"))
        mean, _, low = process.q_posterior(schedule, frozen, x_t, t)
        frac = (variance + 1.0) / 2.0
        log_var = low + frac * (process.lookup(np.log(schedule.betas), t, x_t) - low)
        loss += vlb_weight * schedule.num_timesteps * likelihood.bound_term(schedule, x0, x_t, t, mean, log_var)
    return loss


def _weight_at(weights: jax.Array, t: jax.Array) -> jax.Array:
    if jnp.issubdtype(jnp.result_type(t), jnp.floating):
        return jnp.interp(t, jnp.arange(len(weights), dtype=weights.dtype), weights)
    return weights[t]


def by_timestep(
    loss: Callable[..., jax.Array], params: Any, batch: dict[str, jax.Array], timesteps: ArrayLike, key: jax.Array
) -> jax.Array:
    """Returns the loss of each example at each of `timesteps` `[K]`: `[K, B]`, with one noise sample each, in one scan.

    The noise of example n at t has the key `fold_in(key_n, t)`, so a value depends on no other example or timestep.

    Args:
      loss: a loss as in a training step, without dropout; each new function is compiled.
      params: the parameters.
      batch: arrays `[B, …]`.
      timesteps: whole numbers in 0 … T-1.
      key: typed keys `[B]`, or one key.

    Raises:
      ValueError: timesteps that are not a vector of whole numbers, or keys that are invalid for `sample`.
    """
    timesteps = np.asarray(timesteps)
    if timesteps.ndim != 1 or not np.issubdtype(timesteps.dtype, np.integer):
        raise ValueError(f"timesteps must be int [K]; they are {timesteps.dtype} {timesteps.shape}")
    count = len(jax.tree.leaves(batch)[0])
    return _by_timestep(loss, params, batch, timesteps.astype(np.int32), keys_of(key, count))


@partial(jax.jit, static_argnums=0)
def _by_timestep(loss, params, batch, timesteps, keys) -> jax.Array:
    def body(carry, t):
        noise_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
        return carry, loss(params, batch, jnp.full(len(keys), t), noise_keys, keys[0])

    return jax.lax.scan(body, None, timesteps)[1]


def distance(output: jax.Array, wanted: jax.Array, *, norm: str = "l2", delta: float = 1.0) -> jax.Array:
    """Returns the mean over each example's elements of the error's norm, `[B]`; `norm` and `delta` as in `denoising`.

    Raises:
      ValueError: an unknown norm, or δ that is not > 0 and finite.
    """
    _check("norm", norm, NORMS)
    if not 0.0 < delta < np.inf:
        raise ValueError(f"delta={delta} must be > 0 and finite")
    return jnp.mean(_distance(output - wanted, norm, delta), axis=range(1, output.ndim))


def offset_noise(keys: jax.Array, shape: tuple[int, ...], strength: float) -> jax.Array:
    """Returns `strength`·N(0, 1), one value for each example and channel, `[B, 1, …, C]`, to add to noise.

    A network trained with it can shift an image's mean brightness (N. Guttenberg, "Diffusion with offset noise", 2023).

    Args:
      keys: typed keys `[B]`.
      shape: the shape of an example.
      strength: the standard deviation.
    """
    ones = (1,) * (len(shape) - 1)
    return strength * jax.vmap(lambda key: jax.random.normal(key, (*ones, shape[-1])))(keys)


def _distance(error: jax.Array, norm: str, delta: float) -> jax.Array:
    match norm:
        case "l2":
            return error**2
        case "l1":
            return jnp.abs(error)
    size = jnp.abs(error)
    return jnp.where(size <= delta, 0.5 * error**2, delta * (size - 0.5 * delta))


def _checked_gamma(weighting_gamma: float, largest: float) -> float:
    if not 0.0 < weighting_gamma <= largest:
        raise ValueError(f"weighting_gamma={weighting_gamma} must be > 0 and ≤ {largest:g}")
    return weighting_gamma


def _check(argument: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{argument}={value!r} is not one of {', '.join(map(repr, allowed))}")
