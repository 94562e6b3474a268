"""Posterior sampling with an unconditional network: wrappers of `predict` that draw x̂0 towards a measurement y = A·x.

    predict = inverse.mmps(predict, schedule, operator, y, noise_std=0.1)
    x = sample(samplers.ddpm(schedule, grid), predict, noise, key)

Each returns a `jax.tree_util.Partial` of a module-level function. y, masks, noise levels and scales are its leaves: new
values of the same shapes cause no recompilation. Where A·A⁺ or an inverse of A·Aᵀ is needed, it is taken from the
operator's SVD, or by conjugate gradients; the system of `mmps` by minimal residuals. Methods that differentiate the
network (`dps`, `pigdm`, `mmps`) cost a backward pass for each row, and `mmps` one more for each step of its solver.

The levels are those of the loop's t, as in `parameterization`; at ᾱ = 0 nothing is drawn towards y.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffjax import process
from diffjax.inverse.linear import minimal_residuals, weighted_adjoint
from diffjax.inverse.operators import Operator
from diffjax.loop import network_call
from diffjax.prediction import Predict, Prediction, as_predict
from diffjax.schedules import NoiseSchedule


def ddnm(
    predict: Predict, schedule: NoiseSchedule, operator: Operator, y: ArrayLike, *, iterations: int = 20
) -> jax.tree_util.Partial:
    """Replaces what the measurement determines: x̂0 + A⁺·(y - A·x̂0) (DDNM; Wang, Yu & Zhang 2023, Eq. 13).

    For measurements without noise; `ddnm_plus` allows noise. ε̂ stays the network's, as in the paper: build the sampler
    with `rederive_eps=False` if the loop clips. The paper samples by `ddim(eta=0.85)` or `ddpm`.

    Args:
      predict: returns ε̂ `[B, …]`, a `Prediction` or a `Target`.
      schedule: the schedule that the sampling loop's t refers to.
      operator: A.
      y: the measurements, `[B, …]`.
      iterations: the number of conjugate gradient steps, for an operator without SVD.

    Raises:
      ValueError: a network that is not callable, an operator that is not an `Operator`, or `iterations` < 1; when
        called, a measurement of another shape than A·x.
    """
    return _partial(_ddnm, predict, schedule, operator, y, iterations=iterations)


def diffpir(
    predict: Predict,
    schedule: NoiseSchedule,
    operator: Operator,
    y: ArrayLike,
    *,
    noise_std: ArrayLike,
    strength: ArrayLike = 10.0,
    iterations: int = 20,
) -> jax.tree_util.Partial:
    """Replaces x̂0 by a proximal step towards the measurement (DiffPIR; Zhu et al. 2023, Eq. 13).

        x̂0' = argmin_x ‖y - A·x‖²/(2σ_y²) + λ·ᾱ/(2(1-ᾱ))·‖x - x̂0‖² = x̂0 + Aᵀ·(A·Aᵀ + λ·σ_y²·ᾱ/(1-ᾱ)·I)⁻¹·(y - A·x̂0)

    and ε̂' = (x - √ᾱ·x̂0')/√(1-ᾱ). The paper samples by `ddim(sigma=√ζ·√(1-ᾱ_s))`: `diffpir_noise` gives this σ.

    Args:
      predict, schedule, operator, y, iterations: as in `ddnm`.
      noise_std: σ_y > 0, the standard deviation of the measurement's noise.
      strength: λ > 0 of the prior; 3 to 25 in the paper.

    Raises:
      ValueError: as in `ddnm`, or numbers that are not > 0.
    """
    check_numbers(noise_std=noise_std, strength=strength)
    return _partial(_diffpir, predict, schedule, operator, y, noise_std, strength, iterations=iterations)


def diffpir_noise(schedule: NoiseSchedule, grid: ArrayLike, zeta: float = 0.5) -> np.ndarray:
    """Returns σ = √(ζ·(1-ᾱ_s)) of each step `[S]`, for `samplers.ddim(schedule, grid, sigma=…)` (DiffPIR, Eq. 15).

    Args:
      schedule: the noise schedule.
      grid: the time grid, `[S+1]`.
      zeta: ζ in [0, 1], the share of new noise.

    Raises:
      ValueError: ζ outside [0, 1].
    """
    if not 0.0 <= zeta <= 1.0:
        raise ValueError(f"zeta={zeta} must be within [0, 1]")
    return np.sqrt(zeta * (1.0 - schedule.alpha_bar_at(np.asarray(grid)[1:])))


def pigdm(
    predict: Predict,
    schedule: NoiseSchedule,
    operator: Operator,
    y: ArrayLike,
    *,
    noise_std: ArrayLike = 0.0,
    prior_var: ArrayLike = 1.0,
    published: bool = False,
    iterations: int = 20,
) -> jax.tree_util.Partial:
    """Adds the score of a Gaussian approximation of p(y | x_t) (ΠGDM; Song, Vahdat, Mardani & Kautz 2023, Eq. 7).

        p(y | x_t) ≈ N(A·x̂0, r²·A·Aᵀ + σ_y²·I),     r² = v·(1-ᾱ)/(1-ᾱ + v·ᾱ)
        x̂0' = x̂0 + (1-ᾱ)/√ᾱ·g,     g = (∂x̂0/∂x)ᵀ·Aᵀ·(r²·A·Aᵀ + σ_y²·I)⁻¹·(y - A·x̂0)

    which is exact for data of covariance v·I. `published` gives the step of the paper's Alg. 1 as it is used since,
    x̂0 + √ᾱ·r²·g with the network's ε̂, which is not the score of this approximation.

    Args:
      predict, schedule, operator, y, iterations: as in `ddnm`.
      noise_std: σ_y ≥ 0.
      prior_var: v > 0, the variance of the data; 1 in the paper.
      published: the paper's weight in place of the exact one.

    Raises:
      ValueError: as in `ddnm`, a σ_y that is negative, or a variance that is not > 0.
    """
    check_numbers(prior_var=prior_var)
    check_numbers(low="≥ 0", noise_std=noise_std)
    function = _pigdm_published if published else _pigdm
    return _partial(function, predict, schedule, operator, y, noise_std, prior_var, iterations=iterations)


def mmps(
    predict: Predict,
    schedule: NoiseSchedule,
    operator: Operator,
    y: ArrayLike,
    *,
    noise_std: ArrayLike,
    iterations: int = 5,
) -> jax.tree_util.Partial:
    """Adds the score of p(y | x_t) with Tweedie's covariance of x_0 (MMPS; Rozet et al. 2024, Eq. 16-19).

        V = (1-ᾱ)/√ᾱ·∂x̂0/∂x ≈ Cov[x_0 | x_t],     x̂0' = x̂0 + V·Aᵀ·(A·V·Aᵀ + σ_y²·I)⁻¹·(y - A·x̂0)

    Exact for Gaussian data if the solver has converged. The system is solved by `minimal_residuals`, each step with one
    product by the network's Jacobian.

    Args:
      predict, schedule, operator, y: as in `ddnm`.
      noise_std: σ_y > 0.
      iterations: the number of steps of the solver; 1 to 5 in the paper. Another number is another program.

    Raises:
      ValueError: as in `ddnm`, or a σ_y that is not > 0.
    """
    check_numbers(noise_std=noise_std)
    return _partial(_Mmps(_checked_iterations(iterations)), predict, schedule, operator, y, noise_std)


def _partial(function, predict, schedule, operator, y, *numbers, iterations=None):
    """Returns the wrapper, whose leaves are all numbers, and the number of iterations if it is given."""
    check_operator(operator)
    leaves = [process.Scales.of(schedule), operator, jnp.asarray(y), *map(as_leaf, numbers)]
    if iterations is not None:
        leaves.append(np.int32(_checked_iterations(iterations)))
    return jax.tree_util.Partial(function, as_predict(predict), *leaves)


def _checked_iterations(iterations: int) -> int:
    if iterations < 1:
        raise ValueError(f"iterations={iterations} must be ≥ 1")
    return int(iterations)


def check_operator(operator: Operator) -> None:
    """Checks the type of an operator.

    Raises:
      ValueError: it is no `Operator`.
    """
    if not isinstance(operator, Operator):
        raise ValueError(f"operator must be an inverse.Operator; it is a {type(operator).__name__}")


def check_numbers(*, low: str = "> 0", **numbers: ArrayLike) -> None:
    """Checks numbers by name, where they are known: finite and > 0, or with `low="≥ 0"` ≥ 0.

    Raises:
      ValueError: a number that is not.
    """
    for name, number in numbers.items():
        if isinstance(number, jax.core.Tracer):
            continue
        value = np.asarray(number, np.float64)
        if not np.all(np.isfinite(value) & ((value > 0.0) if low == "> 0" else (value >= 0.0))):
            raise ValueError(f"{name}={number} must be {low} and finite")


def residual_of(operator: Operator, x0: jax.Array, y: jax.Array) -> jax.Array:
    """Returns y - A·x̂0 in the dtype of x̂0.

    Raises:
      ValueError: a measurement of another shape than A·x̂0.
    """
    measured = operator(x0)
    if y.shape != measured.shape:
        raise ValueError(f"y of shape {y.shape} must have the shape of the measured x, {measured.shape}")
    return y.astype(x0.dtype) - measured


def as_leaf(number: ArrayLike) -> ArrayLike:
    """Returns a number as a leaf of one type, so that 2 and 2.0 share one compilation."""
    return np.float64(number) if isinstance(number, int | float) else number


def differentiated(predict: Predict, x: jax.Array, t: jax.Array, signal: jax.Array, noise: jax.Array):
    """Returns the `Prediction` at x, and the function v → (∂x̂0/∂x)ᵀ·v of images `[B, …]`."""

    def x0_of(x):
        prediction = network_call(predict, x, t, signal, noise)
        return prediction.x0, prediction

    _, transposed, prediction = jax.vjp(x0_of, x, has_aux=True)
    return prediction, lambda v: transposed(v)[0]


def tweedie_factor(signal: jax.Array, noise: jax.Array) -> jax.Array:
    """Returns (1-ᾱ)/√ᾱ, by which a score moves x̂0 (Tweedie's formula); 0 at ᾱ = 0."""
    seen = signal > 0
    return jnp.where(seen, noise**2 / jnp.where(seen, signal, 1), 0)


def shifted(prediction: Prediction, shift: jax.Array, signal: jax.Array, noise: jax.Array) -> Prediction:
    """Returns x̂0 + shift with the ε̂ that belongs to it."""
    x0, eps, frac = prediction
    return Prediction(x0 + shift, eps - signal / noise * shift, frac)


def _ddnm(predict, scales, operator, y, iterations, x, t):
    x0, eps, frac = network_call(predict, x, t, *process.scales_at(scales, x, t, clean=False))
    return Prediction(x0 + weighted_adjoint(operator, residual_of(operator, x0, y), 1.0, 0.0, iterations), eps, frac)


def _diffpir(predict, scales, operator, y, noise_std, strength, iterations, x, t):
    signal, noise = process.scales_at(scales, x, t, clean=False)
    prediction = network_call(predict, x, t, signal, noise)
    variance = jnp.asarray(strength * noise_std**2, x.dtype) * (signal / noise) ** 2
    residual = residual_of(operator, prediction.x0, y)
    return shifted(prediction, weighted_adjoint(operator, residual, 1.0, variance, iterations), signal, noise)


def _guidance_of_pigdm(predict, scales, operator, y, noise_std, prior_var, iterations, x, t):
    """Returns the prediction, r² and g, with √ᾱ and √(1-ᾱ)."""
    signal, noise = process.scales_at(scales, x, t, clean=False)
    prediction, transposed = differentiated(predict, x, t, signal, noise)
    prior_var, noise_var = jnp.asarray(prior_var, x.dtype), jnp.asarray(noise_std, x.dtype) ** 2
    variance = prior_var * noise**2 / (noise**2 + prior_var * signal**2)
    residual = residual_of(operator, prediction.x0, y)
    g = transposed(weighted_adjoint(operator, residual, variance, noise_var, iterations))
    return prediction, variance, g, signal, noise


def _pigdm(*arguments):
    prediction, _, g, signal, noise = _guidance_of_pigdm(*arguments)
    return shifted(prediction, tweedie_factor(signal, noise) * g, signal, noise)


def _pigdm_published(*arguments):
    (x0, eps, frac), variance, g, signal, _ = _guidance_of_pigdm(*arguments)
    return Prediction(x0 + signal * variance * g, eps, frac)


@dataclasses.dataclass(frozen=True)
class _Mmps:
    """MMPS with a fixed number of solver steps; instances with the same number share a compiled program."""

    iterations: int

    def __call__(self, predict, scales, operator, y, noise_std, x, t):
        signal, noise = process.scales_at(scales, x, t, clean=False)
        prediction, transposed = differentiated(predict, x, t, signal, noise)
        factor, noise_var = tweedie_factor(signal, noise), jnp.asarray(noise_std, x.dtype) ** 2

        def covariance(v):
            return factor * transposed(v)

        def product(u):
            return operator.apply(covariance(operator.adjoint(u))) + noise_var * u

        u = minimal_residuals(product, residual_of(operator, prediction.x0, y), self.iterations)
        return shifted(prediction, covariance(operator.adjoint(u)), signal, noise)
