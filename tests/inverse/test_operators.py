"""Operators against their matrices: adjoint, SVD, and the degradations of data sets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.data import degradations
from diffjax.inverse import operators, weighted_adjoint

SHAPE = (6, 8, 2)
RNG = np.random.default_rng(0)

pytestmark = pytest.mark.usefixtures("x64")


call = jax.jit(lambda function, *arguments: function(*arguments))
"""Calls a pytree as one program."""


def made():
    rng = np.random.default_rng(1)
    return {
        "mask": operators.mask(rng.random(SHAPE) > 0.5),
        "mask of all channels": operators.mask(rng.random((6, 8, 1)) > 0.5, SHAPE),
        "masks": operators.mask(rng.random((3, *SHAPE)) > 0.5, SHAPE),
        "bicubic": operators.downsampling(SHAPE, 2),
        "area": operators.downsampling(SHAPE, 2, "area"),
        "separable": operators.separable(rng.normal(size=(4, 6)), rng.normal(size=(9, 8)), 2),
        "blur": operators.blur(SHAPE, rng.random((5, 3))),
        "reflected blur": operators.blur(SHAPE, rng.random((3, 3)), edges="reflect"),
        "channels": operators.channels([[0.25, 0.75]], SHAPE),
        "matrix": operators.matrix(rng.normal(size=(20, 96)), SHAPE),
        "tall matrix": operators.matrix(rng.normal(size=(100, 96)), SHAPE),
        "function": operators.from_function(lambda x: x[:, ::2] - 2.0 * x[:, 1::2], SHAPE),
    }


NAMES = (
    "mask", "mask of all channels", "masks", "bicubic", "area", "separable", "blur", "reflected blur", "channels",
    "matrix", "tall matrix", "function",
)  # fmt: skip


def test_the_names_are_all(x64):
    assert tuple(made()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_adjoint_and_svd(name):
    operator = made()[name]
    x = RNG.normal(size=(3, *SHAPE))
    y = np.asarray(call(operator, x))
    other = RNG.normal(size=y.shape)
    np.testing.assert_allclose(np.sum(other * y), np.sum(call(operator.adjoint, other) * x), rtol=1e-10)
    # Aᵀ(2·AAᵀ + 0.3·I)⁻¹·r by the SVD or by conjugate gradients, against that of matrices.
    solve = jax.jit(weighted_adjoint)
    found = solve(operator, other, 2.0, 0.3, 150)
    if name == "masks":
        expected = np.where(operator.apply(np.ones_like(x)), other / 2.3, 0)
    else:
        matrix = operators.as_matrix(operator)
        np.testing.assert_allclose(y.reshape(3, -1), x.reshape(3, -1) @ matrix.T, atol=1e-10)
        inverse = np.linalg.inv(2.0 * matrix @ matrix.T + 0.3 * np.eye(len(matrix)))
        expected = (other.reshape(3, -1) @ inverse.T @ matrix).reshape(x.shape)
    np.testing.assert_allclose(found, expected, atol=1e-8)
    if operator.svd is not None:
        values, to_coefficients, to_image, measured = operator.svd
        coefficients = np.asarray(call(to_coefficients, x))
        np.testing.assert_allclose(call(to_image, coefficients), x, atol=1e-12)
        np.testing.assert_allclose(np.sum(coefficients**2), np.sum(x**2), rtol=1e-12)
        np.testing.assert_allclose(call(measured, y), values * coefficients, atol=1e-10)
        seen = call(to_image, (np.asarray(values) > 0) * coefficients)
        np.testing.assert_allclose(solve(operator, y, 1.0, 0.0, 1), seen, atol=1e-9)


def test_an_svd_on_request():
    operator = made()["reflected blur"]
    assert operator.svd is None
    x = RNG.normal(size=(2, *SHAPE))
    # The pseudo-inverse of an invertible blur gives x back.
    back = jax.jit(weighted_adjoint)(operators.with_svd(operator), call(operator, x), 1.0, 0.0, 1)
    np.testing.assert_allclose(back, x, atol=1e-7)


def test_they_are_the_degradations_of_data_sets():
    image = RNG.integers(0, 256, (12, 12, 3)).astype(np.uint8)
    x = image[None].astype(np.float64)
    for kind in degradations.REDUCTIONS:
        reduced = call(operators.downsampling(image.shape, 3, kind), x)[0]
        # Pillow rounds to 8 bits after each of the two axes.
        np.testing.assert_allclose(reduced, degradations.downsample(image, 3, kind), atol=1.3)
    kernel = degradations.kernel(degradations.Degradation("motion", 5.0, angle=30.0))
    blurred = call(operators.blur(image.shape, kernel, edges="reflect"), x)[0]
    np.testing.assert_allclose(blurred, degradations.convolve(image, kernel), atol=1e-9)


def test_masks_and_kernels_are_leaves(count_compilations):
    measure = jax.jit(lambda operator, x: operator(x))
    x = jnp.ones((2, *SHAPE))
    for operator_of in (
        lambda n: operators.mask(np.arange(96).reshape(SHAPE) % (n + 2) == 0),
        lambda n: operators.blur(SHAPE, np.full((3, 3), n + 1.0)),
        lambda n: operators.blur(SHAPE, np.full((3, 3), n + 1.0), edges="reflect"),
        lambda n: operators.matrix(np.full((3, 96), n + 1.0), SHAPE),
    ):
        changed = [operator_of(n) for n in range(3)]
        first = measure(changed[0], x)
        count_compilations()
        others = [measure(operator, x) for operator in changed[1:]]
        assert count_compilations() == 0
        assert not any(np.allclose(first, other) for other in others)


def test_wrong_arguments():
    for make, words in (
        (lambda: operators.mask(np.ones((3, 3)), SHAPE), r"known of shape \(3, 3\) does not fit images of shape"),
        (lambda: operators.separable(np.ones(3), np.ones((2, 2)), 1), "rows and columns must be matrices"),
        (lambda: operators.downsampling(SHAPE, 5), "factor=5 must divide the height and width of images of 6×8"),
        (lambda: operators.downsampling(SHAPE, 2, "lanczos"), "kind='lanczos' is not one of 'bicubic', 'area'"),
        (lambda: operators.blur(SHAPE, np.ones((2, 2))), r"kernel of shape \(2, 2\) must be odd"),
        (lambda: operators.blur(SHAPE, np.ones((7, 7))), "must be odd and fit into images of 6×8"),
        (lambda: operators.blur(SHAPE, np.ones((3, 3)), edges="zero"), "edges='zero' is not one of"),
        (lambda: operators.channels(np.ones((1, 3)), SHAPE), r"weights of shape \(1, 3\) must be \[K, 2\]"),
        (lambda: operators.matrix(np.ones((1, 3)), SHAPE), r"weights of shape \(1, 3\) must be \[M, 96\]"),
        (lambda: operators.matrix(np.ones((1, 5000)), (5000,)), "images of 5000 elements are too large"),
        (lambda: operators.from_function(jnp.tanh, SHAPE), "this function is not linear"),
        (lambda: operators.from_function(lambda x: x**2, SHAPE), "this function is not linear"),
        (lambda: operators.from_function(lambda x: x * x[:, ::-1], SHAPE), "this function is not linear"),
        (lambda: operators.from_function(lambda x: 2 * x + 1, SHAPE), "not linear: of zeros it returns other numbers"),
        (lambda: operators.mask(np.ones(SHAPE))(jnp.ones((1, 3, 3, 1))), r"x of shape \(1, 3, 3, 1\) must be images"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
