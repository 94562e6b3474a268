"""Fitted tables: on Gaussian data they reach the exact flow; gradients through the loop are the analytic ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax import learn, samplers, schedules, timesteps
from diffjax.learn import moving
from diffjax.metrics.kernel import kernel_distance

MEAN, STD = 0.3, 0.5
SCHEDULE = schedules.linear()

pytestmark = pytest.mark.usefixtures("x64")


@jax.tree_util.Partial
def exact(x, t):
    """ε̂ of data N(MEAN, STD²), between the timesteps too, with a gradient in t."""
    log_snr = jnp.interp(t.astype(x.dtype), np.arange(1000.0), SCHEDULE.log_snr).reshape(-1, *[1] * (x.ndim - 1))
    ab, noise_square = jax.nn.sigmoid(log_snr), jax.nn.sigmoid(-log_snr)
    return jnp.sqrt(noise_square) * (x - jnp.sqrt(ab) * MEAN) / (ab * STD**2 + noise_square)


def flow(x):
    """Where the probability flow takes x from the last timestep to clean data."""
    ab = SCHEDULE.alpha_bars[-1]
    return MEAN + STD * (x - np.sqrt(ab) * MEAN) / np.sqrt(ab * STD**2 + 1 - ab)


def test_a_fitted_table_reaches_the_exact_flow():
    x = np.random.default_rng(0).normal(size=(64, 4))
    pairs, held_out = (learn.Pairs(part, flow(part)) for part in (x[:48], x[48:]))
    table = samplers.ddim(SCHEDULE, timesteps.trailing(1000, 5))
    fitted = learn.fit(
        table, learn.distance(exact, remat=False), pairs, held_out=held_out,
        num_steps=1500, batch_size=48, learning_rate=0.03, free=("a", "b", "c"),
    )  # fmt: skip
    assert fitted.start > 1e-3
    assert fitted.loss < 1e-10
    other = np.random.default_rng(1).normal(size=(20, 4))
    np.testing.assert_allclose(dj.sample(fitted.table, exact, other), flow(other), atol=1e-4)
    np.testing.assert_array_equal(fitted.table.t_net, table.t_net)
    np.testing.assert_array_equal(fitted.table.signal, table.signal)
    np.testing.assert_array_equal(fitted.table.d, table.d)
    assert fitted.history[0, 2] == fitted.start
    assert np.min(fitted.history[:, 2]) == fitted.loss


def test_histories_are_learned_and_frozen_columns_stay():
    x = np.random.default_rng(0).normal(size=(32, 4))
    table = samplers.ddim(SCHEDULE, timesteps.trailing(1000, 4))
    fitted = learn.fit(
        table, learn.distance(exact), learn.Pairs(x, flow(x)), held_out=learn.Pairs(x, flow(x)),
        num_steps=60, learning_rate=0.01, free=("x0_history", "eps_history"), num_history=2,
    )  # fmt: skip
    assert fitted.table.x0_history.shape == fitted.table.eps_history.shape == (4, 2)
    assert fitted.loss < 0.5 * fitted.start
    for name in ("a", "b", "c"):
        np.testing.assert_array_equal(getattr(fitted.table, name), getattr(table, name))
    dj.sample(fitted.table, exact, x)  # no row uses what is before the first


def test_a_fitted_grid_descends_between_the_same_ends():
    """The fitted table is DDIM on the fitted grid."""
    x = np.random.default_rng(0).normal(size=(32, 4))
    pairs, table = learn.Pairs(x, flow(x)), samplers.ddim(SCHEDULE, timesteps.trailing(1000, 2))
    fitted = learn.fit(
        table, learn.distance(exact), pairs, held_out=pairs,
        num_steps=60, learning_rate=0.1, free=("grid",), schedule=SCHEDULE,
    )  # fmt: skip
    assert fitted.loss < 0.5 * fitted.start
    grid = fitted.table.grid
    assert (grid[0], grid[-1]) == (999, -1)
    assert np.all(np.diff(grid) < 0)
    again = samplers.ddim(SCHEDULE, grid)
    for one, other in zip(jax.tree.leaves(fitted.table), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_a_moved_grid_has_the_levels_of_the_schedule():
    table = samplers.dpm_solver_pp(SCHEDULE, timesteps.trailing(1000, 4))
    offsets = {"grid": jnp.array([0.3, -0.2, 1.5, -4.0]), "a": jnp.array([0.0, 0.1, 0.0, 0.0])}
    traced, host = (
        jax.jit(lambda o: moving.moved(table, SCHEDULE, o))(offsets),
        moving.on_host(table, SCHEDULE, offsets),
    )
    for one, other in zip(jax.tree.leaves(traced), jax.tree.leaves(host), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(host.signal, np.sqrt(SCHEDULE.alpha_bar_at(host.t_from)), rtol=1e-12)
    assert -1 < host.t_from[-1] < 20
    still = moving.on_host(table, SCHEDULE, jax.tree.map(jnp.zeros_like, offsets))
    for one, other in zip(jax.tree.leaves(still), jax.tree.leaves(table), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_rows_one_by_one():
    """From states of the flow, each row of a fitted table leads to the next state."""
    grid = timesteps.trailing(1000, 2)
    states = learn.trajectories(SCHEDULE, exact, dj.sample_keys(0, 0, 10), (3,), grid, substeps=60, batch_size=5)
    assert states.shape == (10, 3, 3)
    np.testing.assert_allclose(states[:, -1], flow(states[:, 0]), atol=5e-3)
    table = samplers.ddim(SCHEDULE, grid)
    fitted = learn.fit(
        table, learn.step_distance(exact), states, held_out=states,
        num_steps=200, learning_rate=0.05, free=("a", "b", "c"),
    )  # fmt: skip
    assert fitted.loss < 1e-3 * fitted.start
    x = np.random.default_rng(1).normal(size=(20, 3))
    error = [np.mean((dj.sample(one, exact, x) - flow(x)) ** 2) for one in (table, fitted.table)]
    assert error[1] < 0.01 * error[0]
    with pytest.raises(ValueError, match="must have no histories"):
        learn.fit(samplers.lms(SCHEDULE, grid), learn.step_distance(exact), states, held_out=states)
    with pytest.raises(ValueError, match=r"states of shape \(10, 2, 3\) must be \[B, 3, …\]"):
        learn.fit(table, learn.step_distance(exact), states[:, 1:], held_out=states)


def test_kernel_distance():
    """The loss is the metric, and a table that is fitted to it gets the mean and spread of the data."""
    x, real = (
        np.random.default_rng(0).normal(size=(200, 2)),
        MEAN + STD * np.random.default_rng(1).normal(size=(300, 2)),
    )
    table = samplers.ddim(SCHEDULE, timesteps.trailing(1000, 2))
    loss = learn.kernel_distance(exact, (real + 1) / 2)
    samples = (np.asarray(dj.sample(table, exact, x)) + 1) / 2
    np.testing.assert_allclose(loss(table, x), kernel_distance(samples, (real + 1) / 2), rtol=1e-9)
    fitted = learn.fit(
        table, loss, x, held_out=x, num_steps=40, batch_size=200, learning_rate=0.03, free=("b", "c")
    )  # fmt: skip
    assert fitted.loss < 0.1 * fitted.start
    with pytest.raises(ValueError, match=r"reference of shape \(3,\) must be \[M, D\]"):
        learn.kernel_distance(exact, np.ones(3))


def test_memory_of_a_gradient_is_flat_in_the_number_of_steps():
    """With `remat`, a step more costs its x and x̂0, not the activations of its network call."""
    x, width, network = jnp.ones((4, 8)), 4096, jax.tree_util.Partial(wide)
    weights = jnp.ones((8, width))

    def temporary(steps, remat):
        table = samplers.ddim(SCHEDULE, timesteps.trailing(1000, steps))

        def result(weights):
            return jnp.sum(dj.sample(table, jax.tree_util.Partial(network, weights), x, remat=remat))

        return jax.jit(jax.grad(result)).lower(weights).compile().memory_analysis().temp_size_in_bytes

    call = x.dtype.itemsize * len(x) * width  # the activations of one call
    assert temporary(40, True) - temporary(10, True) < 30 * call / 20
    assert temporary(40, False) - temporary(10, False) > 30 * call


def wide(weights, x, t):
    return jnp.tanh(x @ weights) @ weights.T / weights.shape[1]


def test_the_teacher_is_close_to_the_flow():
    pairs = learn.teacher(SCHEDULE, exact, dj.sample_keys(0, 0, 10), (3,), batch_size=4)
    assert pairs.x.shape == pairs.target.shape == (10, 3)
    np.testing.assert_allclose(pairs.target, flow(pairs.x), atol=2e-3)


@pytest.mark.parametrize("remat", [False, True])
def test_jacobian_of_ddim_is_the_product_of_its_linear_steps(remat):
    table = samplers.ddim(SCHEDULE, timesteps.trailing(1000, 7))
    slope = 1.0
    for row in range(7):
        signal, noise = table.signal[row], table.noise[row]
        eps = noise / (signal**2 * STD**2 + noise**2)
        slope *= table.b[row] * (1 - noise * eps) / signal + table.c[row] * eps
    jacobian = jax.jacobian(lambda x: dj.sample(table, exact, x, remat=remat))(jnp.array([[0.3, -0.8]]))
    np.testing.assert_allclose(jacobian[0, :, 0, :], slope * np.eye(2), atol=1e-12)


def test_gradients_of_parameters_and_table_without_a_key():
    table = samplers.ddim(SCHEDULE, timesteps.trailing(1000, 4))
    x = jnp.array([[0.3, -0.8]])

    def scaled(scale, x, t):
        return scale * exact(x, t)

    def result(scale, c):
        network = jax.tree_util.Partial(scaled, scale)
        return jnp.sum(dj.sample(dataclasses.replace(table, c=c), network, x, remat=True))

    by_scale, by_c = jax.jit(jax.grad(result, (0, 1)))(1.0, jnp.asarray(table.c))
    h = 1e-6
    np.testing.assert_allclose(by_scale, (result(1 + h, table.c) - result(1 - h, table.c)) / (2 * h), rtol=1e-6)
    for row in range(4):
        step = h * np.eye(4)[row]
        numeric = (result(1.0, table.c + step) - result(1.0, table.c - step)) / (2 * h)
        np.testing.assert_allclose(by_c[row], numeric, rtol=1e-6, atol=1e-8)


def test_a_traced_noise_needs_a_key():
    table = samplers.ddpm(SCHEDULE, timesteps.trailing(1000, 4))
    with pytest.raises(ValueError, match="pass key"):
        jax.grad(lambda a: jnp.sum(dj.sample(dataclasses.replace(table, a=a), exact, jnp.ones((1, 2)))))(table.a)
    with pytest.raises(ValueError, match="pass key"):
        jax.jit(lambda d: dj.sample(dataclasses.replace(table, d=d), exact, jnp.ones((1, 2))))(table.d)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"free": ("d",)}, r"free=\('d',\) must be some of"),
        ({"free": ("grid",)}, "free has 'grid': pass schedule"),
        ({"num_steps": 0}, "num_steps=0"),
        ({"learning_rate": np.nan}, "learning_rate=nan"),
    ],
)
def test_wrong_values(options, words):
    table, x = samplers.ddim(SCHEDULE, timesteps.trailing(1000, 2)), np.ones((2, 2))
    with pytest.raises(ValueError, match=words):
        learn.fit(table, learn.distance(exact), learn.Pairs(x, x), held_out=learn.Pairs(x, x), **options)
