import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.inverse import conjugate_gradients, minimal_residuals

pytestmark = pytest.mark.usefixtures("x64")
SIZE = 6
SQUARE = np.random.default_rng(0).normal(size=(SIZE, SIZE))
POSITIVE = SQUARE @ SQUARE.T + 0.1 * np.eye(SIZE)
NEITHER = SQUARE + 0.1 * np.eye(SIZE)  # not symmetric, with eigenvalues on both sides of 0
B = np.random.default_rng(1).normal(size=(3, SIZE))


def by(matrix):
    return lambda u: u @ jnp.asarray(matrix).T


def residual(matrix, u):
    return np.linalg.norm(B - u @ matrix.T, axis=1)


@pytest.mark.parametrize(
    ("solve", "matrix"), [(conjugate_gradients, POSITIVE), (minimal_residuals, POSITIVE), (minimal_residuals, NEITHER)]
)
def test_as_many_steps_as_unknowns_are_exact(solve, matrix):
    found = jax.jit(lambda b: solve(by(matrix), b, SIZE))(B)
    np.testing.assert_allclose(found, np.linalg.solve(matrix, B.T).T, rtol=1e-7)


@pytest.mark.parametrize("matrix", [POSITIVE, NEITHER])
@pytest.mark.parametrize("steps", range(1, SIZE))
def test_no_combination_of_powers_has_a_smaller_residual(steps, matrix):
    found = minimal_residuals(by(matrix), jnp.asarray(B), steps)
    for b, u in zip(B, found, strict=True):
        powers = np.stack([np.linalg.matrix_power(matrix, n) @ b for n in range(steps)], axis=1)
        best = powers @ np.linalg.lstsq(matrix @ powers, b, rcond=None)[0]
        np.testing.assert_allclose(u, best, rtol=1e-6, atol=1e-8)


def test_steps_past_the_solution_keep_it_and_zero_stays_zero():
    b = jnp.asarray(B).at[1].set(0)
    found = minimal_residuals(by(POSITIVE), b, 4 * SIZE)
    np.testing.assert_allclose(found, np.linalg.solve(POSITIVE, b.T).T, rtol=1e-7)
    assert not np.any(found[1])


def test_conjugate_gradients_diverge_where_the_matrix_is_not_positive():
    start = np.linalg.norm(B, axis=1)
    assert np.max(residual(NEITHER, conjugate_gradients(by(NEITHER), jnp.asarray(B), 4)) / start) > 10
    assert np.all(residual(NEITHER, minimal_residuals(by(NEITHER), jnp.asarray(B), 4)) < start)
