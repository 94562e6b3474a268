"""Posterior sampling by methods whose step depends on where it leads: they are given the table that `sample` runs.

    sampler = samplers.ddim(schedule, grid, rederive_eps=False)
    predict = inverse.ddrm(predict, sampler, operator, y, key, noise_std=0.1)
    x = sample(sampler, predict, noise)

`dps` runs with any table of one call a level; `ddrm` and `ddnm_plus` add the noise themselves, with one variance for
each singular value, and run with deterministic DDIM. Otherwise as in `methods`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffjax.inverse.methods import as_leaf, check_numbers, check_operator, residual_of
from diffjax.inverse.operators import Operator
from diffjax.loop import network_call
from diffjax.noise import keys_of
from diffjax.prediction import Predict, Prediction, as_predict, as_pytree
from diffjax.steps import Sampler


class _Rows(NamedTuple):
    """The columns of a table that the methods look up by the time of the call, `[R]`."""

    t: ArrayLike
    signal: ArrayLike
    noise: ArrayLike
    signal_to: ArrayLike
    noise_to: ArrayLike
    b: ArrayLike


def dps(
    predict: Predict, sampler: Sampler, operator: Operator, y: ArrayLike, *, scale: ArrayLike = 1.0
) -> jax.tree_util.Partial:
    """Moves x_s by -ζ·∇_x ‖y - A(x̂0)‖ after each step (DPS; Chung et al. 2023, Alg. 1 with ζ_i = ζ/(2‖y - A(x̂0)‖)).

    The paper samples by `ddpm`. The step is a shift of x̂0 by the gradient over the row's coefficient of x̂0.

    Args:
      predict: returns ε̂ `[B, …]`, a `Prediction` or a `Target`.
      sampler: the table that will be run: one call a level, without histories.
      operator: A, an `Operator` or any differentiable function of images `[B, …]`, each by itself; a pytree.
      y: the measurements, `[B, …]`.
      scale: ζ, in units of x.

    Raises:
      ValueError: a network or operator that is not callable, or a sampler with histories, inner calls, a time that is
        called twice, or a row that does not use x̂0; when called, a measurement of another shape than A(x̂0).
    """
    if not callable(operator):
        raise ValueError(f"operator must be callable as operator(x); it is a {type(operator).__name__}")
    rows = _rows_of(sampler)
    if np.any(np.asarray(rows.b) == 0):
        raise ValueError("a row of this sampler does not use x0: DPS needs ddpm or ddim")
    return jax.tree_util.Partial(_dps, as_predict(predict), rows, as_pytree(operator), jnp.asarray(y), as_leaf(scale))


def ddrm(
    predict: Predict,
    sampler: Sampler,
    operator: Operator,
    y: ArrayLike,
    key: jax.Array,
    *,
    noise_std: ArrayLike = 0.0,
    eta: float = 0.85,
    eta_b: float = 1.0,
) -> jax.tree_util.Partial:
    """Denoises in the coordinates of the SVD, each towards x̂0 or y by its noise (DDRM; Kawar et al. 2022, Eq. 7-8).

    Args:
      predict: returns ε̂ `[B, …]`, a `Prediction` or a `Target`.
      sampler: the table that will be run, `ddim(schedule, grid, rederive_eps=False)`.
      operator: A, with an SVD.
      y: the measurements, `[B, …]`.
      key: typed keys `[B]`, or one key: the noise of each step. Let the initial noise have other keys, or
        `initial_noise` of these.
      noise_std: σ_y ≥ 0.
      eta: η in [0, 1], the share of new noise where y is noisier than x_s, or unknown.
      eta_b: η_b in [0, 1], the weight of y where it is less noisy than x_s.

    Raises:
      ValueError: as in `dps`, an operator without SVD, another kind of sampler, or numbers out of range.
    """
    options = _checked_options(sampler, operator, noise_std, eta=eta, eta_b=eta_b)
    return _with_noise(_ddrm, predict, sampler, operator, y, key, options)


def ddnm_plus(
    predict: Predict,
    sampler: Sampler,
    operator: Operator,
    y: ArrayLike,
    key: jax.Array,
    *,
    noise_std: ArrayLike = 0.0,
    eta: float = 0.85,
) -> jax.tree_util.Partial:
    """Replaces what the measurement determines, and adds only the noise that y lacks (DDNM+; Wang et al. 2023, App. I).

    Args:
      predict, sampler, operator, y, key, noise_std: as in `ddrm`.
      eta: η in [0, 1], the share of new noise in x_s.

    Raises:
      ValueError: as in `ddrm`.
    """
    options = _checked_options(sampler, operator, noise_std, eta=eta)
    return _with_noise(_ddnm_plus, predict, sampler, operator, y, key, options)


def _rows_of(sampler: Sampler) -> _Rows:
    histories = np.shape(sampler.x0_history)[-1] + np.shape(sampler.eps_history)[-1]
    times = np.asarray(sampler.t_net)
    if histories or not np.all(sampler.lands) or len(np.unique(times)) < len(times):
        raise ValueError("this method needs a sampler of one call a level, without histories: use ddpm or ddim")
    return _Rows(times, sampler.signal, sampler.noise, sampler.signal_to, sampler.noise_to, sampler.b)


def _checked_options(sampler: Sampler, operator: Operator, noise_std: ArrayLike, **shares: float) -> list[ArrayLike]:
    """Returns the numbers as leaves, after the checks of `ddrm`."""
    check_operator(operator)
    if operator.svd is None:
        raise ValueError("this method needs the SVD of the operator: inverse.operators.with_svd gives small ones one")
    check_numbers(low="≥ 0", noise_std=noise_std)
    for name, share in shares.items():
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"{name}={share} must be within [0, 1]")
    rows = _rows_of(sampler)
    is_ddim = np.allclose(rows.b, rows.signal_to) and np.allclose(sampler.c, rows.noise_to)
    if sampler.is_stochastic or sampler.rederive_eps or not is_ddim:
        raise ValueError("this method adds noise itself: give samplers.ddim(schedule, grid, rederive_eps=False)")
    return [as_leaf(number) for number in (noise_std, *shares.values())]


def _with_noise(function, predict, sampler, operator, y, key, options):
    y = jnp.asarray(y)
    return jax.tree_util.Partial(
        function, as_predict(predict), _rows_of(sampler), operator, y, keys_of(key, len(y)), *options
    )


def _row_at(rows: _Rows, x: jax.Array, t: jax.Array) -> tuple[jax.Array, _Rows]:
    """Returns the numbers of the rows that are called at t, `[B]`, and their columns, `[B, 1, …]` in the dtype of x."""
    t = jnp.broadcast_to(t, x.shape[:1])
    number = jnp.argmin(jnp.abs(jnp.asarray(rows.t) - t[:, None]), axis=1)
    columns = [jnp.asarray(column)[number].astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) for column in rows]
    return number, _Rows(*columns)


def _noise(keys: jax.Array, numbers: jax.Array, x: jax.Array) -> jax.Array:
    """Returns z ~ N(0, I) like x, by the key of each sample and the number of its row."""
    return jax.vmap(lambda key, number: jax.random.normal(jax.random.fold_in(key, number), x.shape[1:], x.dtype))(
        keys, numbers
    )


def _dps(predict, rows, operator, y, scale, x, t):
    _, row = _row_at(rows, x, t)

    def distance(x):
        prediction = network_call(predict, x, t, row.signal, row.noise)
        residual = residual_of(operator, prediction.x0, y)
        square = jnp.sum(residual**2, axis=range(1, residual.ndim))
        # The gradient is 0, not NaN, where y is met.
        return jnp.sum(jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)), prediction

    gradient, (x0, eps, frac) = jax.grad(distance, has_aux=True)(x)
    return Prediction(x0 - jnp.asarray(scale, x.dtype) * gradient / row.b, eps, frac)


def _ddrm(predict, rows, operator, y, keys, noise_std, eta, eta_b, x, t):
    number, row = _row_at(rows, x, t)
    x0, _, frac = network_call(predict, x, t, row.signal, row.noise)
    values, seen, measured = _measured(operator, x0, y)
    noise_std, eta, eta_b = (jnp.asarray(option, x.dtype) for option in (noise_std, eta, eta_b))
    # As in the paper, all levels and states are those of the variance-exploding process x/√ᾱ.
    now, then = row.noise / row.signal, row.noise_to / row.signal_to
    to_coefficients = operator.svd.to_coefficients
    known, state = to_coefficients(x0), to_coefficients(x / row.signal)
    of_y = jnp.where(seen, noise_std / values, jnp.inf)
    kept = jnp.sqrt(1 - eta**2) * then
    noisy = seen & (then < of_y)
    mean = known + kept * jnp.where(noisy, (measured - known) / jnp.where(noisy, of_y, 1), (state - known) / now)
    std = jnp.broadcast_to(eta * then, mean.shape)
    clear = seen & ~noisy
    mean = jnp.where(clear, (1 - eta_b) * known + eta_b * measured, mean)
    std = jnp.where(clear, jnp.sqrt(jnp.maximum(then**2 - jnp.where(clear, eta_b * of_y, 0) ** 2, 0)), std)
    wanted = operator.svd.to_image(mean + std * _noise(keys, number, x))
    return _leading_to(wanted, x0, then, frac)


def _ddnm_plus(predict, rows, operator, y, keys, noise_std, eta, x, t):
    number, row = _row_at(rows, x, t)
    x0, eps, frac = network_call(predict, x, t, row.signal, row.noise)
    values, seen, measured = _measured(operator, x0, y)
    noise_std, eta = (jnp.asarray(option, x.dtype) for option in (noise_std, eta))
    to_coefficients, to_image = operator.svd.to_coefficients, operator.svd.to_image
    of_y = jnp.where(seen, row.signal_to * noise_std / values, 0)
    noisy = seen & (row.noise_to < of_y)
    kept = row.noise_to * jnp.sqrt(1 - eta**2)
    weight = jnp.where(noisy, kept / jnp.where(noisy, of_y, 1), jnp.where(seen, 1.0, 0.0))
    std = jnp.where(seen & ~noisy, jnp.sqrt(jnp.maximum(row.noise_to**2 - of_y**2, 0)), eta * row.noise_to)
    x0 = x0 + to_image(weight * (measured - to_coefficients(x0)))
    added = std * _noise(keys, number, x) + jnp.where(seen, 0, kept * to_coefficients(eps))
    some = row.noise_to > 0
    return Prediction(x0, to_image(added) / jnp.where(some, row.noise_to, 1), frac)


def _measured(operator, x0, y):
    """Returns the singular values (1 where there is none), where there is one, and Uᵀ·y over them."""
    residual_of(operator, x0, y)  # checks the shape of y
    values = jnp.asarray(operator.svd.values, x0.dtype)
    seen = values > 0
    values = jnp.where(seen, values, 1)
    return values, seen, operator.svd.measured(y.astype(x0.dtype)) / values


def _leading_to(wanted, x0, level, frac):
    """Returns the prediction by which deterministic DDIM goes to `wanted`, x_s/√ᾱ_s; at level 0 it is x̂0 itself."""
    some = level > 0
    eps = jnp.where(some, (wanted - x0) / jnp.where(some, level, 1), 0)
    return Prediction(jnp.where(some, x0, wanted), eps, frac)
