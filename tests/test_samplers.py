"""Samplers against what is known in closed form. Everything here runs the real loop, in float64."""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax import samplers, schedules, timesteps

SCHEDULE = schedules.linear()
GRIDS = {
    "full": timesteps.full(1000),
    "trailing_50": timesteps.trailing(1000, 50),
    "leading_30": timesteps.leading(1000, 30),
    "ends_at_0": timesteps.linspace(1000, 20)[:-1],
}
TABLES = {
    "ddim_0": lambda s, g: samplers.ddim(s, g, eta=0.0),
    "ddim_0.5": lambda s, g: samplers.ddim(s, g, eta=0.5),
    "ddim_1": lambda s, g: samplers.ddim(s, g, eta=1.0),
    "ddpm_small": lambda s, g: samplers.ddpm(s, g, variance="fixed_small"),
    "ddpm_large": lambda s, g: samplers.ddpm(s, g, variance="fixed_large"),
}
MEAN, STD = 0.3, 0.6

each_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
each_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())


def optimal_eps(alpha_bars, x, t):
    """E[ε | x_t] for x_0 ~ N(MEAN, STD²): known in closed form."""
    ab = alpha_bars[t].reshape(-1, *[1] * (x.ndim - 1))
    return jnp.sqrt(1 - ab) * (x - jnp.sqrt(ab) * MEAN) / (ab * STD**2 + 1 - ab)


def oracle_eps(alpha_bars, x0, x, t):
    """The ε that leads from x_0 to x_t."""
    ab = alpha_bars[t].reshape(-1, *[1] * (x.ndim - 1))
    return (x - jnp.sqrt(ab) * x0) / jnp.sqrt(1 - ab)


def affine_map(steps, predict, every=1):
    """(levels, slope, offset, gains): x_k = slope_k·x_T + offset_k + Σ_i gains_ki·z_i, read off the real loop.

    An impulse is a run with noise in one row alone: another table of the same shape, so one compilation serves all.
    """
    key = jax.random.key(7)
    x_T = jnp.zeros((1, 1))

    def run(d, x):
        return dj.sample_trajectory(dataclasses.replace(steps, d=d), predict, x, key, every=every)

    silent = np.zeros(steps.num_rows)
    at_0, at_1 = run(silent, x_T), run(silent, x_T + 1)
    z = np.array([jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, 0), i), (1,)).item()
                  for i in range(steps.num_rows)])  # fmt: skip
    columns = []
    for i in np.flatnonzero(steps.d):
        impulse = run(np.where(np.arange(steps.num_rows) == i, steps.d, 0), x_T).x - at_0.x
        columns.append(np.asarray(impulse).reshape(-1) / z[i])
    flat = [np.asarray(trajectory.x).reshape(-1) for trajectory in (at_0, at_1)]
    return at_0.t, flat[1] - flat[0], flat[0], np.array(columns).T if columns else np.zeros((len(flat[0]), 0))


@pytest.mark.usefixtures("x64")
@each_table
@each_grid
def test_one_run_is_the_affine_recursion_on_gaussian_data(grid, table):
    # For x_0 ~ N(m, s²) the optimal ε̂ is affine in x, so a run is a recursion of scalars: written here from the
    # papers' own forms (posterior mean; DDIM Eq. 12), and followed with the very noise that the loop draws.
    steps = table(SCHEDULE, grid)
    predict = jax.tree_util.Partial(optimal_eps, jnp.asarray(SCHEDULE.alpha_bars))
    keys = dj.sample_keys(3, 0, 5)
    x = dj.initial_noise(keys, (2,), jnp.float64)
    result = dj.sample(steps, predict, x, keys)

    x = np.asarray(x)
    eta = {"ddim_0": 0.0, "ddim_0.5": 0.5}.get(next(n for n, f in TABLES.items() if f is table), 1.0)
    for i, (t, s) in enumerate(itertools.pairwise(grid)):
        ab_t, ab_s = SCHEDULE.alpha_bars[t], SCHEDULE.alpha_bars[s] if s >= 0 else 1.0
        eps = np.sqrt(1 - ab_t) * (x - np.sqrt(ab_t) * MEAN) / (ab_t * STD**2 + 1 - ab_t)
        x0 = (x - np.sqrt(1 - ab_t) * eps) / np.sqrt(ab_t)
        alpha = ab_t / ab_s
        small = (1 - ab_s) / (1 - ab_t) * (1 - alpha)
        if table in (TABLES["ddpm_small"], TABLES["ddpm_large"]):
            mean = (np.sqrt(alpha) * (1 - ab_s) * x + np.sqrt(ab_s) * (1 - alpha) * x0) / (1 - ab_t)
            sigma = np.sqrt(small if table is TABLES["ddpm_small"] else (1 - alpha) * (s >= 0))
        else:
            sigma = eta * np.sqrt(small)
            mean = np.sqrt(ab_s) * x0 + np.sqrt(1 - ab_s - sigma**2) * eps
        z = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, i), (2,)))(keys)  # noqa: B023
        x = mean + sigma * np.asarray(z)
    np.testing.assert_allclose(result, x, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("x64")
@each_table
def test_moments_on_gaussian_data(table):
    # The mean and variance of the sampler's own law, by the scalar recursion, against what the loop's map implies.
    grid = timesteps.trailing(1000, 50)
    steps = table(SCHEDULE, grid)
    predict = jax.tree_util.Partial(optimal_eps, jnp.asarray(SCHEDULE.alpha_bars))
    _, slope, offset, gains = affine_map(steps, predict, every=50)
    mean, variance = 0.0, 1.0
    for t, s, d in zip(grid[:-1], grid[1:], steps.d, strict=True):
        ab_t, ab_s = SCHEDULE.alpha_bars[t], SCHEDULE.alpha_bars[s] if s >= 0 else 1.0
        # E[x_s | x_t] = p·E[x0 | x_t] + q·E[ε | x_t], and both are affine in x_t.
        if "ddpm" in next(n for n, f in TABLES.items() if f is table):
            alpha = ab_t / ab_s
            p = np.sqrt(ab_s) * (1 - alpha) / (1 - ab_t) + np.sqrt(alpha) * (1 - ab_s) / (1 - ab_t) * np.sqrt(ab_t)
            q = np.sqrt(alpha) * (1 - ab_s) / (1 - ab_t) * np.sqrt(1 - ab_t)
        else:
            p, q = np.sqrt(ab_s), np.sqrt(1 - ab_s - d**2)
        total = ab_t * STD**2 + 1 - ab_t
        slope_t = p * np.sqrt(ab_t) * STD**2 / total + q * np.sqrt(1 - ab_t) / total
        centre = p * MEAN + slope_t * (mean - np.sqrt(ab_t) * MEAN)
        mean, variance = centre, slope_t**2 * variance + d**2
    assert offset[-1] == pytest.approx(mean, rel=1e-12)
    assert slope[-1] ** 2 + np.sum(gains[-1] ** 2) == pytest.approx(variance, rel=1e-12)
    if table is TABLES["ddim_0"]:
        # At 50 steps the variance is still well short: the truth of the method, not an error.
        assert 0.7 < variance / STD**2 < 0.95


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["ddim_0", "ddim_0.5", "ddim_1", "ddpm_small"])
@pytest.mark.parametrize("grid", [timesteps.trailing(1000, 20), timesteps.leading(1000, 30)], ids=["20", "30"])
def test_with_the_oracle_every_marginal_is_exact(grid, name):
    # Started from q(x_T | x_0), the run is q(x_t | x_0) at every level, for every η (DDIM Lemma 1).
    x0 = 0.8
    steps = TABLES[name](SCHEDULE, grid)
    predict = jax.tree_util.Partial(oracle_eps, jnp.asarray(SCHEDULE.alpha_bars), x0)
    levels, slope, offset, gains = affine_map(steps, predict)
    ab = SCHEDULE.alpha_bar_at(levels)
    mean = slope * np.sqrt(ab[0]) * x0 + offset
    variance = slope**2 * (1 - ab[0]) + np.sum(gains**2, axis=1)
    np.testing.assert_allclose(mean, np.sqrt(ab) * x0, rtol=1e-12)
    np.testing.assert_allclose(variance, 1 - ab, rtol=1e-11, atol=1e-15)


def test_ddpm_full_is_the_schedules_posterior():
    steps = samplers.ddpm(SCHEDULE, timesteps.full(1000))
    np.testing.assert_allclose(steps.a[::-1], SCHEDULE.posterior_mean_coef_xt, rtol=1e-12)
    np.testing.assert_allclose(steps.b[::-1], SCHEDULE.posterior_mean_coef_x0, rtol=1e-9)
    np.testing.assert_allclose(steps.d[::-1] ** 2, SCHEDULE.posterior_variance, rtol=1e-9)
    large = samplers.ddpm(SCHEDULE, timesteps.full(1000), variance="fixed_large")
    np.testing.assert_allclose(large.d[::-1][1:] ** 2, SCHEDULE.betas[1:], rtol=1e-9)
    assert large.d[-1] == 0


@pytest.mark.usefixtures("x64")
@each_grid
@pytest.mark.parametrize("clip", [None, 1.0])
def test_ddim_with_eta_1_is_ddpm(grid, clip):
    keys = dj.sample_keys(0, 0, 3)
    x = dj.initial_noise(keys, (4,), jnp.float64)
    predict = jax.tree_util.Partial(lambda x, t: jnp.sin(2 * x) + 1e-3 * t[:, None])
    runs = [
        dj.sample(steps, predict, x, keys, clip=clip)
        for steps in (samplers.ddim(SCHEDULE, grid, eta=1.0), samplers.ddpm(SCHEDULE, grid))
    ]
    np.testing.assert_allclose(*runs, rtol=1e-11, atol=1e-11)


def test_zero_noise_through_the_ddpm_mean_is_not_ddim_0():
    grid = timesteps.trailing(1000, 10)
    mean_only = dataclasses.replace(samplers.ddpm(SCHEDULE, grid), d=np.zeros(10))
    predict = jax.tree_util.Partial(lambda x, t: jnp.sin(x))
    x = jnp.ones((1, 3))
    difference = dj.sample(mean_only, predict, x) - dj.sample(samplers.ddim(SCHEDULE, grid), predict, x)
    assert np.max(np.abs(difference)) > 0.1


def test_keeping_the_networks_eps_matters_exactly_where_clipping_does():
    grid = timesteps.trailing(1000, 10)
    x = dj.initial_noise(dj.sample_keys(0, 0, 2), (3,))
    predict = jax.tree_util.Partial(lambda x, t: 0.5 * jnp.sin(x))
    derived, raw = (samplers.ddim(SCHEDULE, grid, rederive_eps=flag) for flag in (True, False))
    np.testing.assert_array_equal(dj.sample(derived, predict, x), dj.sample(raw, predict, x))
    assert np.max(np.abs(dj.sample(derived, predict, x, clip=1.0) - dj.sample(raw, predict, x, clip=1.0))) > 1e-2


def test_shape_and_metadata_of_a_table():
    steps = samplers.ddim(SCHEDULE, timesteps.trailing(1000, 10), eta=0.5)
    assert (steps.num_rows, steps.num_steps, steps.is_stochastic) == (10, 10, True)
    assert steps.grid.tolist() == timesteps.trailing(1000, 10).tolist()
    assert not samplers.ddim(SCHEDULE, [999, 400, -1]).is_stochastic
    assert all(np.asarray(c).dtype == np.float64 for c in (steps.a, steps.b, steps.c, steps.d, steps.signal))
    lines = str(steps).splitlines()
    assert len(lines) == 11
    assert len({len(line) for line in lines}) == 1


def test_repr_is_short():
    sampler = samplers.ddim(SCHEDULE, timesteps.trailing(1000, 50))
    assert repr(sampler) == "Sampler(50 rows, grid 999 … -1, deterministic)"
    assert repr(samplers.ddpm(SCHEDULE, timesteps.full(1000))) == "Sampler(1000 rows, grid 999 … -1, stochastic)"
    assert repr(dj.stack([sampler, sampler])) == "Sampler(columns of shape (2, 50))"
    seen = []
    jax.jit(lambda sampler: seen.append(repr(sampler)) or sampler.a)(sampler)
    assert seen == ["Sampler(columns of shape (50,))"]


@pytest.mark.parametrize(("num_steps", "num_lines"), [(10, 10), (30, 30), (31, 30), (1000, 30)])
def test_notebook_table_has_the_columns_of_the_printed_one(num_steps, num_lines):
    sampler = samplers.ddpm(SCHEDULE, timesteps.trailing(1000, num_steps), variance="learned_range")
    page = sampler._repr_html_()
    head, *lines = [re.findall("<t[hd]>(.*?)</t[hd]>", row) for row in re.findall("<tr>(.*?)</tr>", page)]
    printed = [line.split() for line in str(sampler).splitlines()]
    assert head[1:] == printed[0]
    assert len(lines) == num_lines
    for line in lines:
        if line[0] == "…":
            assert num_steps > 30
        else:
            assert line[1:] == printed[1 + int(line[0])]
    assert sum(line[0] == "…" for line in lines) == (num_steps > 30)
    assert [line[0] for line in (lines[0], lines[-1])] == ["0", str(num_steps - 1)]


def test_notebook_shows_a_stack_by_its_shape():
    sampler = samplers.ddim(SCHEDULE, timesteps.trailing(1000, 5))
    assert dj.stack([sampler, sampler])._repr_html_() == "Sampler(columns of shape (2, 5))"


def test_steps_of_equal_stride():
    # The same as the grid's own steps where those are equal, and as far below the start where they are not.
    leading = timesteps.leading(1000, 30)
    jax.tree.map(
        np.testing.assert_array_equal,
        samplers.ddim(SCHEDULE, leading, eta=0.5, stride_end=-1),
        samplers.ddim(SCHEDULE, leading, eta=0.5),
    )
    linspace = timesteps.linspace(1000, 10)
    assert samplers.ddim(SCHEDULE, linspace, stride_end=-1).t_to.tolist() == [*(linspace[:-2] - 100), -1]
    # A step from index 0 to index 0 calls the network, and mixes x̂0 and ε̂ again.
    last = jax.tree.map(lambda column: column[-1], samplers.ddim(SCHEDULE, leading, eta=1.0, stride_end=0))
    assert (last.t_net, last.t_from, last.t_to, last.d) == (0, 0, 0, 0.0)
    np.testing.assert_allclose([last.b**2, last.c**2], [SCHEDULE.alpha_bars[0], 1 - SCHEDULE.alpha_bars[0]])


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range", "learned"])
def test_noise_of_the_step_to_clean_data(variance):
    for grid, last in ((timesteps.trailing(1000, 50), 19), (timesteps.leading(1000, 50), 0)):
        quiet, noisy = (
            samplers.ddpm(SCHEDULE, grid, variance=variance, last_step_noise=added) for added in (False, True)
        )
        assert quiet.d[-1] == 0.0
        np.testing.assert_array_equal(noisy.d[:-1], quiet.d[:-1])
        beta = 1 - SCHEDULE.alpha_bars[last]
        expected = {"fixed_small": 1e-10, "fixed_large": np.sqrt(beta)}.get(variance, 1.0)
        np.testing.assert_allclose(noisy.d[-1], expected if last > 0 else 0.0)
        if variance == "learned_range" and last > 0:
            np.testing.assert_allclose(noisy.log_var[-1], np.log([1e-20, beta]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: samplers.ddim(SCHEDULE, timesteps.full(1000), eta=1.1), r"eta=1.1 must be within \[0, 1\]"),
        (lambda: samplers.ddim(SCHEDULE, timesteps.full(1000), eta=-0.1), "eta=-0.1"),
        (lambda: samplers.ddim(SCHEDULE, timesteps.full(1000), eta=float("nan")), "eta=nan"),
        (
            lambda: samplers.ddpm(SCHEDULE, timesteps.full(1000), variance="huge"),
            "'huge'.*'fixed_small', 'fixed_large'",
        ),
        (lambda: samplers.ddpm(SCHEDULE, [-1, 10, 999]), "grid=-1 … 999 must descend"),
        (lambda: samplers.ddim(SCHEDULE, [1000, -1]), "leaves -1 … 999"),
        (lambda: samplers.ddim(SCHEDULE, timesteps.full(1000), stride_end=1), "stride_end=1 is not one of None, -1"),
        (lambda: samplers.ddim(SCHEDULE, timesteps.quadratic(1000, 10), stride_end=-1), "stride_end=-1 needs equal"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(ValueError, match=words):
        make()
