"""Training objectives, one value an example, and their weights by timestep."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffjax import likelihood, process
from diffjax.noise import keys_of
from diffjax.schedules import NoiseSchedule, Table

TARGETS = ("eps", "x0", "v")
NORMS = ("l2", "l1", "huber")
WEIGHTINGS = ("simple", "snr", "min_snr", "p2", "truncated")
_GAMMAS = {"min_snr": 5.0, "p2": 1.0}


def weights(
    schedule: NoiseSchedule, weighting: str = "simple", *, target: str = "eps", gamma: float | None = None
) -> Table:
    """What the distance from `target` is multiplied by at each t: `[T]`.

    At one x_t the squared errors of ε̂, x̂0 and v̂ that say the same are SNR : 1 : SNR + 1, with SNR = ᾱ/(1-ᾱ). So a
    weighting is one function of SNR on the x0-error, and is divided by 1, SNR or SNR + 1 on that of x0, ε or v:

        snr        SNR                  the ε-error as it is (Salimans & Ho 2022, §4)
        truncated  max(SNR, 1)          (the same)
        min_snr    min(SNR, γ)          γ = 5 (Hang et al. 2023, §3.4)
        p2         SNR/(1 + SNR)^γ      γ = 1: the ε-error over (1 + SNR)^γ (Choi et al. 2022, Eq. 8, k = 1)

    "simple" is 1 on the target's own error, whichever that is: for ε DDPM's L_simple, and the same as "snr".

    Raises:
      ValueError: an unknown weighting or target, a γ ≤ 0 or one that is not taken, or a weight that is infinite (ε
        where ᾱ = 0).
    """
    _check("weighting", weighting, WEIGHTINGS)
    _check("target", target, TARGETS)
    if gamma is not None and (weighting not in _GAMMAS or not gamma > 0.0):
        raise ValueError(f"gamma={gamma} must be > 0, and None unless weighting is 'min_snr' or 'p2'")
    if weighting == "simple":
        return np.ones(schedule.num_timesteps)
    gamma = gamma or _GAMMAS.get(weighting)
    snr = schedule.alpha_bars / (1.0 - schedule.alpha_bars)
    on_x0 = {
        "snr": lambda: snr,
        "truncated": lambda: np.maximum(snr, 1.0),
        "min_snr": lambda: np.minimum(snr, gamma),
        "p2": lambda: snr / (1.0 + snr) ** gamma,
    }[weighting]()
    with np.errstate(divide="ignore", invalid="ignore"):
        result = on_x0 / {"x0": 1.0, "eps": snr, "v": snr + 1.0}[target]
    if not np.all(np.isfinite(result)):
        raise ValueError(f"weighting={weighting!r} of target={target!r} has no value where alpha_bar = 0")
    return result


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
    hybrid: float = 0.0,
) -> jax.Array:
    """How far the network's answer at x_t is from its target, the mean over each example's elements: `[B]`.

    With ε as target and the rest as it is, L_simple (DDPM Eq. 14). `hybrid` = λ adds λ·T·L_t (bits/dim), which trains
    a learned_range variance; its gradient reaches the mean not at all (L_hybrid, Nichol & Dhariwal 2021, §3.1).

    Args:
      predict: (x_t, t) → what `target` says `[B, …, C]`; if `hybrid`, with the variance's C channels after it
        (`guidance.split_variance`).
      x0, noise: `[B, …, C]`; t: `int[B]` in 0 … T-1. If `hybrid`, x0 is an 8-bit image in [-1, 1].
      target: "eps", "x0" or "v" (`process.predict_v`).
      norm: of the error e: "l2" (e²), "l1" (|e|) or "huber" (½e² within `delta`, δ(|e| - ½δ) outside).
      weights: `[T]`, what the distance at each t is multiplied by; None: 1.
      hybrid: λ; 0.001 in the paper, 0 for a network that predicts no variance.

    Raises:
      ValueError: another target or norm, a δ ≤ 0 or a λ < 0, or an answer of the wrong shape.
    """
    _check("target", target, TARGETS)
    if not hybrid >= 0.0:
        raise ValueError(f"hybrid={hybrid} must be ≥ 0")
    x_t = process.q_sample(schedule, x0, t, noise)
    answer = predict(x_t, t)
    wanted_shape = (*x0.shape[:-1], x0.shape[-1] * (2 if hybrid else 1))
    if answer.shape != wanted_shape:
        raise ValueError(
            f"predict returned shape {answer.shape} for x of shape {x0.shape}; it must be {wanted_shape}, "
            f"hybrid being {hybrid}"
        )
    answer, variance = jnp.split(answer, 2, axis=-1) if hybrid else (answer, None)
    wanted = {"eps": lambda: noise, "x0": lambda: x0, "v": lambda: process.predict_v(schedule, x0, t, noise)}[target]()
    loss = distance(answer, wanted, norm=norm, delta=delta)
    if weights is not None:
        loss *= jnp.asarray(weights, loss.dtype)[t]
    if hybrid:
        frozen = jax.lax.stop_gradient(process.convert(schedule, x_t, t, answer, given=target, wanted="x0"))
        mean, _, low = process.q_posterior(schedule, frozen, x_t, t)
        frac = (variance + 1.0) / 2.0
        log_var = low + frac * (process.lookup(np.log(schedule.betas), t, x_t) - low)
        loss += hybrid * schedule.num_timesteps * likelihood.bound_term(schedule, x0, x_t, t, mean, log_var)
    return loss


def by_timestep(
    loss: Callable[..., jax.Array], params: Any, batch: dict[str, jax.Array], timesteps: ArrayLike, key: jax.Array
) -> jax.Array:
    """The loss of each example at each of `timesteps` `[K]`, one draw of the noise each: `[K, B]`, in one jitted scan.

    Example n draws its noise at t from `fold_in(key_n, t)`: values do not depend on the batch or on the other t.

    Args:
      loss: as a training step takes it, without dropout (`generation.loss(..., train=False)`); another function is
        another compilation.
      batch: arrays `[B, …]`.
      timesteps: in 0 … T-1.
      key: typed keys `[B]`, or one key.

    Raises:
      ValueError: timesteps that are no vector of whole numbers, and keys that `sample` refuses.
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


def distance(answer: jax.Array, wanted: jax.Array, *, norm: str = "l2", delta: float = 1.0) -> jax.Array:
    """The mean over each example's elements of the error's norm, `[B]`; `norm` and `delta` as in `denoising`.

    Raises:
      ValueError: another norm, or a δ ≤ 0.
    """
    _check("norm", norm, NORMS)
    if not delta > 0.0:
        raise ValueError(f"delta={delta} must be > 0")
    return jnp.mean(_distance(answer - wanted, norm, delta), axis=range(1, answer.ndim))


def offset_noise(keys: jax.Array, shape: tuple[int, ...], strength: float) -> jax.Array:
    """`strength`·N(0, 1), one draw an example and channel: `[B, 1, …, C]`, to be added to noise `[B, *shape]`.

    A network trained so can move an image's mean brightness (N. Guttenberg, "Diffusion with offset noise", 2023).
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


def _check(argument: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{argument}={value!r} is not one of {', '.join(map(repr, allowed))}")
