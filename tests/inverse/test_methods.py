"""Methods of posterior sampling against closed forms: one call each, so that nothing depends on luck."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax import inverse, samplers, schedules
from diffjax.inverse import operators
from diffjax.prediction import Prediction

SHAPE = (4, 4, 1)
SCHEDULE = schedules.linear(20, beta_start=0.01, beta_end=0.4)
GRID = np.arange(19, -2, -1)
DDIM = samplers.ddim(SCHEDULE, GRID, rederive_eps=False)
STD = 0.2

pytestmark = pytest.mark.usefixtures("x64")


call = jax.jit(lambda function, *arguments: function(*arguments))
"""Calls a pytree as one program."""


def gaussian(variance=None):
    """Images of covariance `variance`·I, or of a low-rank one."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(16, 3))
    covariance = factor @ factor.T / 3 + 0.05 * np.eye(16) if variance is None else variance * np.eye(16)
    return inverse.GaussianMixture.of([1.0], rng.normal(size=(1, 16)), covariance[None], SHAPE)


def measured(operator, data=None, std=STD):
    """y `[2, …]`: one measurement, twice."""
    rng = np.random.default_rng(1)
    x0 = rng.normal(size=(1, *SHAPE)) if data is None else data.sample(jax.random.key(2), 1)
    y = np.asarray(call(operator, x0))
    return np.repeat(y + std * rng.normal(size=y.shape), 2, axis=0)


OPERATORS = {
    "mask": lambda: operators.mask(np.arange(16).reshape(SHAPE) % 3 > 0),
    "downsampling": lambda: operators.downsampling(SHAPE, 2, "area"),
    "reflected blur": lambda: operators.blur(SHAPE, np.outer([1, 4, 1], [1, 3, 1]) / 30, edges="reflect"),
}


def called(predict, t=9):
    x = np.random.default_rng(3).normal(size=(2, *SHAPE))
    return x, call(predict, x, np.full(2, t)), SCHEDULE.sqrt_alpha_bars[t], SCHEDULE.sqrt_one_minus_alpha_bars[t]


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("method", ["mmps", "pigdm"])
def test_exact_for_gaussian_data(name, method):
    """The guided network is the exact network of the posterior."""
    operator = OPERATORS[name]()
    data = gaussian() if method == "mmps" else gaussian(0.7)
    y = measured(operator, data)
    network = data.predict(SCHEDULE)
    if method == "mmps":
        predict = inverse.mmps(network, SCHEDULE, operator, y, noise_std=STD, iterations=40)
    else:
        predict = inverse.pigdm(network, SCHEDULE, operator, y, noise_std=STD, prior_var=0.7, iterations=40)
    exact = data.posterior(operator, y[0], STD).predict(SCHEDULE)
    _, found, *_ = called(predict)
    _, expected, *_ = called(exact)
    np.testing.assert_allclose(found.x0, expected.x0, atol=1e-9)
    np.testing.assert_allclose(found.eps, expected.eps, atol=1e-9)


def test_whole_runs_of_the_exact_method_are_those_of_the_posterior():
    operator, data = OPERATORS["downsampling"](), gaussian()
    y = measured(operator, data)
    sampler, keys = samplers.ddpm(SCHEDULE, GRID), dj.sample_keys(0, 0, 2)
    x = dj.initial_noise(keys, SHAPE, jnp.float64)
    predict = inverse.mmps(data.predict(SCHEDULE), SCHEDULE, operator, y, noise_std=STD, iterations=10)
    exact = data.posterior(operator, y[0], STD).predict(SCHEDULE)
    np.testing.assert_allclose(dj.sample(sampler, predict, x, keys), dj.sample(sampler, exact, x, keys), atol=1e-8)


def test_published_weight_of_pigdm():
    operator, data = OPERATORS["downsampling"](), gaussian()
    y = measured(operator, data)
    network = data.predict(SCHEDULE)
    _, found, signal, noise = called(inverse.pigdm(network, SCHEDULE, operator, y, published=True))
    _, plain, *_ = called(network)
    # Without noise r² cancels, and the gradient is J·A⁺·(y - A·x̂0), J = ∂x̂0/∂x = √ᾱ·C·(ᾱ·C + (1-ᾱ)·I)⁻¹.
    covariance = data.covariance()
    jacobian = signal * covariance @ np.linalg.inv(signal**2 * covariance + noise**2 * np.eye(16))
    back = np.linalg.pinv(operators.as_matrix(operator))
    residual = np.asarray(y - call(operator, plain.x0)).reshape(2, -1)
    np.testing.assert_allclose(
        np.subtract(found.x0, plain.x0).reshape(2, -1), signal * residual @ back.T @ jacobian.T, atol=1e-10
    )
    np.testing.assert_array_equal(found.eps, plain.eps)


@pytest.mark.parametrize("name", OPERATORS)
def test_ddnm_meets_the_measurement_and_changes_nothing_else(name):
    operator, network = OPERATORS[name](), gaussian().predict(SCHEDULE)
    y = measured(operator, std=0.0)
    _, found, *_ = called(inverse.ddnm(network, SCHEDULE, operator, y, iterations=60))
    _, plain, *_ = called(network)
    np.testing.assert_allclose(call(operator, found.x0), y, atol=1e-9)
    matrix = operators.as_matrix(operator)
    unseen = np.eye(16) - np.linalg.pinv(matrix) @ matrix
    np.testing.assert_allclose(np.subtract(found.x0, plain.x0).reshape(2, -1) @ unseen, 0.0, atol=1e-9)
    np.testing.assert_array_equal(found.eps, plain.eps)


@pytest.mark.parametrize("name", OPERATORS)
def test_diffpir_is_at_the_minimum(name):
    operator, network, strength = OPERATORS[name](), gaussian().predict(SCHEDULE), 7.0
    y = measured(operator)
    predict = inverse.diffpir(network, SCHEDULE, operator, y, noise_std=STD, strength=strength, iterations=60)
    x, found, signal, noise = called(predict)
    _, plain, *_ = called(network)

    def cost(x0):
        return jnp.sum((y - operator(x0)) ** 2) / (2 * STD**2) + strength * (signal / noise) ** 2 / 2 * jnp.sum(
            (x0 - plain.x0) ** 2
        )

    np.testing.assert_allclose(jax.jit(jax.grad(cost))(found.x0), 0.0, atol=1e-7)
    np.testing.assert_allclose(found.eps, (x - signal * np.asarray(found.x0)) / noise, atol=1e-12)
    grid = np.array([19, 9, -1])
    np.testing.assert_allclose(
        inverse.diffpir_noise(SCHEDULE, grid, 0.3) ** 2, [0.3 * (1 - SCHEDULE.alpha_bars[9]), 0.0], atol=1e-15
    )


@pytest.mark.parametrize("sampler", [samplers.ddpm(SCHEDULE, GRID), samplers.ddim(SCHEDULE, GRID, eta=0.4)])
def test_dps_moves_each_step_by_the_gradient(sampler):
    network = gaussian().predict(SCHEDULE)

    def bent(x0):  # any differentiable function will do
        return jnp.tanh(x0[:, ::2, ::2])

    y = np.random.default_rng(4).normal(size=(2, 2, 2, 1))
    predict = inverse.dps(network, sampler, bent, y, scale=0.3)
    keys, x = dj.sample_keys(0, 0, 2), jnp.asarray(np.random.default_rng(3).normal(size=(2, *SHAPE)))

    def distance(x):
        residual = y - bent(network(x, jnp.full(2, 19)).x0)
        return jnp.sum(jnp.sqrt(jnp.sum(residual**2, axis=(1, 2, 3))))

    moved, plain = (dj.sample(sampler[:1], function, x, keys) for function in (predict, network))
    np.testing.assert_allclose(np.subtract(moved, plain), -0.3 * jax.jit(jax.grad(distance))(x), atol=1e-12)
    # Where y is met there is nothing to move.
    met = inverse.dps(network, sampler, lambda x0: 0.0 * x0, np.zeros_like(x))
    np.testing.assert_array_equal(dj.sample(sampler[:1], met, x, keys), plain)


@pytest.mark.parametrize("name", ["mask", "downsampling"])
@pytest.mark.parametrize("method", [inverse.ddrm, inverse.ddnm_plus])
def test_noiseless_measurements_are_met_at_the_end(name, method):
    operator, keys = OPERATORS[name](), dj.sample_keys(0, 0, 2)
    y = measured(operator, std=0.0)
    predict = method(gaussian().predict(SCHEDULE), DDIM, operator, y, keys)
    x = dj.sample(DDIM, predict, dj.initial_noise(keys, SHAPE, jnp.float64))
    np.testing.assert_allclose(call(operator, x), y, atol=1e-10)


@pytest.mark.parametrize("method", [inverse.ddrm, inverse.ddnm_plus])
@pytest.mark.parametrize("row", [0, 10, 18])
def test_every_step_has_the_noise_of_its_level(method, row):
    """Of data that are 0, x_s must be N(0, 1-ᾱ_s) in every coordinate, whatever part of it comes from y."""
    num, std = 6000, 0.4
    rng = np.random.default_rng(row)
    operator = operators.matrix(np.array([[2.0, 0.0, 0.0], [0.0, 0.5, 0.0]]), (3,))
    y = std * rng.normal(size=(num, 2))

    def network(x, t):
        return Prediction(jnp.zeros_like(x), x / jnp.asarray(SCHEDULE.sqrt_one_minus_alpha_bars)[t][:, None])

    level = SCHEDULE.sqrt_one_minus_alpha_bars[GRID[row]]
    predict = method(network, DDIM, operator, y, jax.random.key(row), noise_std=std, eta=0.7)
    x = dj.sample(DDIM[row : row + 1], predict, level * rng.normal(size=(num, 3)))
    variance = 1.0 - SCHEDULE.alpha_bars[GRID[row + 1]]
    np.testing.assert_allclose(np.cov(x.T), variance * np.eye(3), atol=0.08 * variance)


def test_ddrm_is_ddnm_plus_where_it_takes_all_of_y():
    operator, keys = OPERATORS["downsampling"](), dj.sample_keys(0, 0, 2)
    y, network = measured(operator), gaussian().predict(SCHEDULE)
    x = dj.initial_noise(keys, SHAPE, jnp.float64)
    found = [
        dj.sample(DDIM, method(network, DDIM, operator, y, keys, noise_std=STD, **options), x)
        for method, options in (
            (inverse.ddnm_plus, {}), (inverse.ddrm, {"eta_b": 1.0}), (inverse.ddrm, {"eta_b": 0.5})
        )
    ]  # fmt: skip
    np.testing.assert_allclose(found[1], found[0], atol=1e-9)
    assert np.abs(np.subtract(found[2], found[0])).max() > 1e-3


def test_one_program_for_all_measurements_masks_and_scales(count_compilations):
    network = jax.tree_util.Partial(lambda x, t: 0.5 * x)
    sampler, keys = samplers.ddpm(SCHEDULE, GRID), dj.sample_keys(0, 0, 2)
    x = dj.initial_noise(keys, SHAPE, jnp.float64)

    def of(n):
        known = np.arange(16).reshape(SHAPE) % (2 + n) > 0
        operator, std = operators.mask(known), 0.1 + n
        y = np.full((2, *SHAPE), float(n))
        return {
            "mmps": inverse.mmps(network, SCHEDULE, operator, y, noise_std=std, iterations=2),
            "pigdm": inverse.pigdm(network, SCHEDULE, operator, y, noise_std=std, prior_var=1 + n),
            "diffpir": inverse.diffpir(network, SCHEDULE, operator, y, noise_std=std, strength=1 + n),
            "dps": inverse.dps(network, sampler, operator, y, scale=0.1 * n),
        }

    predicts = [of(n) for n in range(3)]
    first = {name: dj.sample(sampler, predict, x, keys) for name, predict in predicts[0].items()}
    count_compilations()
    for changed in predicts[1:]:
        for name, predict in changed.items():
            assert np.abs(np.subtract(dj.sample(sampler, predict, x, keys), first[name])).max() > 1e-3
    assert count_compilations() == 0


def test_wrong_arguments():
    operator, network, key = OPERATORS["mask"](), gaussian().predict(SCHEDULE), jax.random.key(0)
    blur, y = OPERATORS["reflected blur"](), measured(OPERATORS["mask"]())
    history = samplers.dpm_solver_pp(SCHEDULE, GRID)
    ddpm, rederiving = samplers.ddpm(SCHEDULE, GRID), samplers.ddim(SCHEDULE, GRID)
    for make, words in (
        (lambda: inverse.ddnm(network, SCHEDULE, lambda x: x, y), "operator must be an inverse.Operator"),
        (lambda: inverse.ddnm(network, SCHEDULE, operator, y, iterations=0), "iterations=0 must be ≥ 1"),
        (lambda: inverse.ddnm(3, SCHEDULE, operator, y), "predict must be callable"),
        (lambda: inverse.mmps(network, SCHEDULE, operator, y, noise_std=0.0), "noise_std=0.0 must be > 0 and finite"),
        (lambda: inverse.pigdm(network, SCHEDULE, operator, y, noise_std=-1.0), "noise_std=-1.0 must be ≥ 0"),
        (lambda: inverse.pigdm(network, SCHEDULE, operator, y, prior_var=0), "prior_var=0 must be > 0"),
        (lambda: inverse.diffpir(network, SCHEDULE, operator, y, noise_std=1, strength=np.nan), "strength=nan must be"),
        (lambda: inverse.diffpir_noise(SCHEDULE, GRID, 2.0), r"zeta=2.0 must be within \[0, 1\]"),
        (lambda: inverse.dps(network, history, operator, y), "needs a sampler of one call a level, without histories"),
        (lambda: inverse.dps(network, ddpm, 3, y), "operator must be callable"),
        (lambda: inverse.ddrm(network, DDIM, blur, y, key), "needs the SVD of the operator"),
        (lambda: inverse.ddrm(network, ddpm, operator, y, key), "adds noise itself"),
        (lambda: inverse.ddrm(network, rederiving, operator, y, key), "rederive_eps=False"),
        (lambda: inverse.ddrm(network, DDIM, operator, y, key, eta=1.5), r"eta=1.5 must be within \[0, 1\]"),
        (lambda: inverse.ddnm_plus(network, DDIM, operator, y, key, noise_std=-0.1), "noise_std=-0.1 must be ≥ 0"),
        (lambda: called(inverse.ddnm(network, SCHEDULE, operator, y[:, :2])), r"y of shape \(2, 2, 4, 1\) must have"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
