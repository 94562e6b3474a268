"""Linear algebra of measurements: two solvers, image by image, and Aᵀ·(g·A·Aᵀ + v·I)⁻¹ of an operator."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from diffjax.inverse.operators import Operator


def conjugate_gradients(product: Callable[[jax.Array], jax.Array], b: jax.Array, iterations: int) -> jax.Array:
    """Solves M·u = b for each example of a batch by a fixed number of conjugate gradient steps from u = 0.

    (Hestenes & Stiefel 1952.) An example whose residual is 0 stays as it is.

    Args:
      product: u `[B, …]` → M·u, M symmetric and positive semidefinite, of each example by itself.
      b: `[B, …]`.
      iterations: the number of steps; N are exact up to rounding for N unknowns.
    """

    def step(_, state):
        u, residual, direction, square = state
        image = product(direction)
        length = _divide(square, _dot(direction, image))
        u, residual = u + length * direction, residual - length * image
        new_square = _dot(residual, residual)
        return u, residual, residual + _divide(new_square, square) * direction, new_square

    return jax.lax.fori_loop(0, iterations, step, (jnp.zeros_like(b), b, b, _dot(b, b)))[0]


def minimal_residuals(product: Callable[[jax.Array], jax.Array], b: jax.Array, iterations: int) -> jax.Array:
    """Solves M·u = b for each example of a batch by generalized conjugate residuals from u = 0.

    (Eisenstat et al. 1983; the result is that of GMRES, Saad & Schultz 1986.) Among the combinations of b, M·b, M²·b, …
    it has the smallest ‖M·u - b‖. No step increases this norm, for any M: use it for the Jacobian of a trained network,
    which is neither symmetric nor positive, so that conjugate gradients may diverge.

    Args:
      product: u `[B, …]` → M·u of each example by itself.
      b: `[B, …]`.
      iterations: the number of steps, a Python integer, since memory for 2 · iterations arrays like b is needed.

    Returns:
      u `[B, …]`.
    """

    def step(n, state):
        u, residual, directions, images = state
        image = product(residual)
        shares = jax.vmap(lambda other: _divide(_dot(image, other), _dot(other, other)))(images)
        direction, image = (
            new - jnp.sum(shares * kept, axis=0) for new, kept in ((residual, directions), (image, images))
        )
        length = _divide(_dot(residual, image), _dot(image, image))
        u, residual = u + length * direction, residual - length * image
        return u, residual, directions.at[n].set(direction), images.at[n].set(image)

    none = jnp.zeros((iterations, *b.shape), b.dtype)
    return jax.lax.fori_loop(0, iterations, step, (jnp.zeros_like(b), b, none, none))[0]


def _dot(u: jax.Array, v: jax.Array) -> jax.Array:
    """Returns the inner product of each example, `[B, 1, …]`."""
    return jnp.sum(u * v, tuple(range(1, u.ndim)), keepdims=True)


def _divide(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)


def weighted_adjoint(
    operator: Operator, residual: jax.Array, gain: ArrayLike, variance: ArrayLike, iterations: int
) -> jax.Array:
    """Returns Aᵀ·(g·A·Aᵀ + v·I)⁻¹·r, `[B, *image_shape]`: by the operator's SVD, else by conjugate gradients.

    With v = 0 it is A⁺·r/g.

    Args:
      operator: A.
      residual: r `[B, …]`, in the shape of a measurement.
      gain, variance: g and v ≥ 0, scalars, or one number for each example, `[B, 1, …]`.
      iterations: the number of conjugate gradient steps, without an SVD.
    """
    if operator.svd is None:
        gain, variance = (_as_factor(number, residual) for number in (gain, variance))

        def product(u):
            return gain * operator.apply(operator.adjoint(u)) + variance * u

        return operator.adjoint(conjugate_gradients(product, residual, iterations))
    svd = operator.svd
    values = jnp.asarray(svd.values, residual.dtype)
    gain, variance = (_as_factor(number, residual, len(operator.image_shape)) for number in (gain, variance))
    weights = jnp.where(values > 0, values / jnp.where(values > 0, gain * values**2 + variance, 1), 0)
    return svd.to_image(weights * svd.measured(residual))


def _as_factor(number: ArrayLike, like: jax.Array, dims: int | None = None) -> jax.Array:
    """Returns a number, or one for each example, `[B, 1, …]`, in the dtype of `like` and shaped to multiply it."""
    number = jnp.asarray(number, like.dtype)
    return number if number.ndim == 0 else number.reshape(-1, *[1] * (like.ndim - 1 if dims is None else dims))
