"""Higher-order solvers and the variants of DDIM and DDPM, on Gaussian data where the answers are known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax import samplers, sampling, schedules, timesteps

MEAN, STD = 0.3, 0.6
SCHEDULE = schedules.linear()
X = np.linspace(-2, 2, 5)[:, None]
TRAILING = timesteps.trailing(1000, 20)

pytestmark = pytest.mark.usefixtures("x64")


def optimal_eps(alpha_bars, x, t):
    ab = alpha_bars[t].reshape(-1, 1)
    return jnp.sqrt(1 - ab) * (x - jnp.sqrt(ab) * MEAN) / (ab * STD**2 + 1 - ab)


def optimal(schedule):
    return jax.tree_util.Partial(optimal_eps, jnp.asarray(schedule.alpha_bars))


def wavy(x, t):
    return 0.6 * jnp.sin(2 * x) + 0.3 * x + t[:, None] / 2000


def flow(schedule, x, t, s):
    """Where the probability-flow ODE of this data takes x from level t to level s: it keeps (x - mean)/std."""
    (mean_t, std_t), (mean_s, std_s) = (
        (np.sqrt(ab) * MEAN, np.sqrt(ab * STD**2 + 1 - ab)) for ab in schedule.alpha_bar_at([t, s])
    )
    return mean_s + std_s / std_t * (x - mean_t)


SOLVERS = {
    "euler": (samplers.probability_flow, 1),
    "euler_eq15": (lambda s, g: samplers.probability_flow(s, g, form="eq15"), 1),
    "heun": (samplers.heun, 2),
    "dpm_solver_pp_1": (lambda s, g: samplers.dpm_solver_pp(s, g, order=1), 1),
    "dpm_solver_pp_2": (samplers.dpm_solver_pp, 2),
    "plms_2": (lambda s, g: samplers.plms(s, g, order=2), 2),
    "plms_4": (samplers.plms, 2),  # its first step, of order 1, leaves a local error of order 2
    "pndm": (samplers.pndm, 2),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_order_of_convergence(name):
    schedule = schedules.linear(16_000, per_thousand=True)
    make, order = SOLVERS[name]
    end, errors = 639, []  # 4 % of T: below, the last step's own error takes over
    for count in (40, 80, 160, 320, 640):
        grid = np.arange(15_999, end - 1, -(15_999 - end) // count)[: count + 1]
        assert (len(grid), grid[-1]) == (count + 1, end)
        result = dj.sample(make(schedule, grid), optimal(schedule), X)
        errors.append(np.max(np.abs(result - flow(schedule, X, 15_999, end))))
    slope = -np.polyfit(np.log2([40, 80, 160, 320, 640]), np.log2(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("make", [samplers.probability_flow, samplers.heun], ids=["euler", "heun"])
def test_encoding_converges_to_the_flow(make):
    errors = []
    for count in (50, 200):
        grid = timesteps.trailing(1000, count)[::-1]
        z = dj.sample(make(SCHEDULE, grid), optimal(SCHEDULE), X)
        errors.append(np.max(np.abs(z - flow(SCHEDULE, X, -1, 999))))
    assert errors[1] < errors[0] / 2.5
    assert errors[1] < 0.1


def test_eq13_is_ddim_0_and_euler_in_sigma_bar():
    flow_table, ddim = samplers.probability_flow(SCHEDULE, TRAILING), samplers.ddim(SCHEDULE, TRAILING)
    for a, b in zip(jax.tree.leaves(flow_table), jax.tree.leaves(ddim), strict=True):
        np.testing.assert_array_equal(a, b)
    # x̄' = x̄ + (σ̄' - σ̄)·ε̂ (k-diffusion's sample_euler, with σ̄ for its sigmas)
    x_bar = X / np.sqrt(SCHEDULE.alpha_bars[999])
    for t, s in itertools.pairwise(TRAILING):
        ab_t, ab_s = SCHEDULE.alpha_bar_at([t, s])
        eps = wavy(jnp.asarray(x_bar * np.sqrt(ab_t)), jnp.full(5, t))
        x_bar = x_bar + (np.sqrt((1 - ab_s) / ab_s) - np.sqrt((1 - ab_t) / ab_t)) * eps
    np.testing.assert_allclose(dj.sample(ddim, wavy, X), x_bar, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("eta", [0.2, 0.5, 1.0])
def test_ddim_is_euler_ancestral_in_sigma_bar(eta):
    # k-diffusion's get_ancestral_step: σ_up = min(σ', η·√(σ'²(σ² - σ'²)/σ²)), σ_down = √(σ'² - σ_up²).
    keys = dj.sample_keys(0, 0, 5)
    x_bar = X / np.sqrt(SCHEDULE.alpha_bars[999])
    for i, (t, s) in enumerate(itertools.pairwise(TRAILING)):
        ab_t, ab_s = SCHEDULE.alpha_bar_at([t, s])
        sigma, sigma_to = np.sqrt((1 - ab_t) / ab_t), np.sqrt((1 - ab_s) / ab_s)
        up = min(sigma_to, eta * np.sqrt(sigma_to**2 * (sigma**2 - sigma_to**2) / sigma**2))
        down = np.sqrt(sigma_to**2 - up**2)
        eps = wavy(jnp.asarray(x_bar * np.sqrt(ab_t)), jnp.full(5, t))
        z = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, i), (1,)))(keys)  # noqa: B023
        x_bar = x_bar + (down - sigma) * eps + up * z
    result = dj.sample(samplers.ddim(SCHEDULE, TRAILING, eta=eta), wavy, X, keys)
    np.testing.assert_allclose(result, x_bar, rtol=1e-11, atol=1e-11)


def test_eq15_is_eq13_times_a_known_ratio():
    # Its increment is (σ̄_t + σ̄_s)/(2σ̄_t) of DDIM's.
    for t, s, ratio in ((1, 0, 0.837), (10, 9, 0.965), (100, 99, 0.995), (500, 400, 0.796)):
        tables = [samplers.probability_flow(SCHEDULE, [t, s], form=form) for form in ("eq13", "eq15")]
        scale = np.sqrt(SCHEDULE.alpha_bars[s] / SCHEDULE.alpha_bars[t])
        moves = [dj.sample(table, lambda x, t: jnp.ones_like(x), jnp.zeros((1, 1))).item() for table in tables]
        assert tables[1].a[0] == pytest.approx(scale, rel=1e-14)
        expected = (SCHEDULE.sigma_bars[t] + SCHEDULE.sigma_bars[s]) / (2 * SCHEDULE.sigma_bars[t])
        assert moves[1] / moves[0] == pytest.approx(expected, rel=1e-12)
        assert expected == pytest.approx(ratio, abs=6e-4)


def test_dpm_solver_pp_of_order_1_is_ddim_0():
    for clip in (None, 0.7):
        tables = samplers.dpm_solver_pp(SCHEDULE, TRAILING, order=1), samplers.ddim(SCHEDULE, TRAILING)
        runs = [dj.sample(table, wavy, X, clip=clip) for table in tables]
        np.testing.assert_allclose(*runs, rtol=1e-11, atol=1e-11)


def test_dpm_solver_pp_2m_is_its_papers_recursion():
    x, previous, h_previous = X, None, None
    for t, s in itertools.pairwise(TRAILING):
        ab_t, ab_s = SCHEDULE.alpha_bar_at([t, s])
        x0 = (x - np.sqrt(1 - ab_t) * wavy(jnp.asarray(x), jnp.full(5, t))) / np.sqrt(ab_t)
        if s == -1:
            x = x0
            break
        h = 0.5 * (np.log(ab_s / (1 - ab_s)) - np.log(ab_t / (1 - ab_t)))
        mixed = x0 if previous is None else x0 + (x0 - previous) * h / (2 * h_previous)
        x = np.sqrt((1 - ab_s) / (1 - ab_t)) * x - np.sqrt(ab_s) * np.expm1(-h) * mixed
        previous, h_previous = x0, h
    np.testing.assert_allclose(
        dj.sample(samplers.dpm_solver_pp(SCHEDULE, TRAILING), wavy, X), x, rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("grid", [TRAILING, TRAILING[:-1], TRAILING[::-1]], ids=["to_clean", "above", "encode"])
def test_heun_is_the_averaged_slope(grid):
    x_bar = X / np.sqrt(SCHEDULE.alpha_bar_at(grid[0]))
    for t, s in itertools.pairwise(grid):
        (root_t, sigma_t), (root_s, sigma_s) = (
            (np.sqrt(ab), np.sqrt((1 - ab) / ab)) for ab in SCHEDULE.alpha_bar_at([t, s])
        )
        slope = wavy(jnp.asarray(x_bar * root_t), jnp.full(5, max(t, 0)))
        if s != -1:
            slope = (slope + wavy(jnp.asarray((x_bar + (sigma_s - sigma_t) * slope) * root_s), jnp.full(5, s))) / 2
        x_bar = x_bar + (sigma_s - sigma_t) * slope
    steps = samplers.heun(SCHEDULE, grid)
    assert steps.num_rows == 2 * steps.num_steps - (grid[-1] == -1)
    assert steps.grid.tolist() == grid.tolist()
    expected = x_bar * np.sqrt(SCHEDULE.alpha_bar_at(grid[-1]))
    np.testing.assert_allclose(dj.sample(steps, wavy, X), expected, rtol=1e-11, atol=1e-11)


def phi(x, eps, t, s):
    """PNDM's transfer part, in the form of the paper's Eq. 11."""
    ab_t, ab_s = SCHEDULE.alpha_bar_at([t, s])
    denominator = np.sqrt(ab_t) * (np.sqrt((1 - ab_s) * ab_t) + np.sqrt((1 - ab_t) * ab_s))
    return np.sqrt(ab_s / ab_t) * x - (ab_s - ab_t) / denominator * eps


@pytest.mark.parametrize("runge_kutta", [True, False])
def test_pndm_and_plms_are_their_papers_recursions(runge_kutta):
    grid = timesteps.trailing(1000, 12)
    weights = {1: [1], 2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}

    def ask(x, t):
        return wavy(jnp.asarray(x), jnp.full(5, t))

    x, slopes = X, []
    for n, (t, s) in enumerate(itertools.pairwise(grid)):
        first = ask(x, t)
        slopes.insert(0, first)
        if runge_kutta and n < 3:
            middle = (t + s) // 2
            second = ask(phi(x, first, t, middle), middle)
            third = ask(phi(x, second, t, middle), middle)
            fourth = ask(phi(x, third, t, s), s)
            mean = (first + 2 * second + 2 * third + fourth) / 6
        else:
            mean = sum(w * e for w, e in zip(weights[min(len(slopes), 4)], slopes, strict=False))
        x = phi(x, mean, t, s)
    steps = samplers.pndm(SCHEDULE, grid) if runge_kutta else samplers.plms(SCHEDULE, grid)
    assert steps.num_rows == 12 + 9 * runge_kutta
    assert steps.grid.tolist() == grid.tolist()
    np.testing.assert_allclose(dj.sample(steps, wavy, X), x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("num_steps", [4, 10, 20, 100])
@pytest.mark.parametrize("make", [samplers.heun, samplers.pndm], ids=["heun", "pndm"])
def test_the_first_step_of_a_cosine_schedule_multiplies_no_error(make, num_steps):
    """At T-1, √ᾱ is 5e-5: a second-order step from there multiplies the differences of ε̂ by hundreds.

    Gaussian data of standard deviation 0.5, whose ε̂ is exact; Runge-Kutta steps gave 1.4e8 to 19, Heun's 69 to 0.504.
    """
    schedule = schedules.cosine(1000)
    table = make(schedule, timesteps.trailing(1000, num_steps))
    assert (table.t_from[0], table.t_to[0]) == tuple(table.grid[:2])
    assert table.num_rows == {samplers.heun: 2 * num_steps - 2, samplers.pndm: num_steps + 6}[make]

    def exact(x, t):
        alpha_bar = jnp.asarray(schedule.alpha_bars)[t][:, None]
        return x * jnp.sqrt(1 - alpha_bar) / (1 - 0.75 * alpha_bar)

    x = dj.sample(table, exact, jnp.linspace(-3.0, 3.0, 101)[:, None])
    factor = np.max(np.abs(x)) / 3.0
    assert 0.4 < factor < 0.505


def test_sigma_hat_inflates_the_variance_by_a_known_amount():
    # With the oracle ε, σ̂ in place of σ adds σ̂² - σ² at each step, carried on by the affine map.
    x0, grid = 0.8, timesteps.trailing(1000, 20)
    steps = samplers.ddim(SCHEDULE, grid, sigma_hat=True)
    keys = dj.sample_keys(0, 0, 40_000)
    ab = SCHEDULE.alpha_bars
    x_T = np.sqrt(ab[999]) * x0 + np.sqrt(1 - ab[999]) * dj.initial_noise(keys, (1,), jnp.float64)

    def oracle(x, t):
        root = jnp.asarray(SCHEDULE.sqrt_alpha_bars)[t][:, None]
        return (x - root * x0) / jnp.sqrt(1 - root**2)

    variance = 1 - ab[999]
    for t, s in itertools.pairwise(grid[:-1]):
        small = (1 - ab[s]) / (1 - ab[t]) * (1 - ab[t] / ab[s])
        variance = (1 - ab[s] - small) * variance / (1 - ab[t]) + (1 - ab[t] / ab[s])
    frames = dj.sample_trajectory(steps, oracle, x_T, keys, every=19)
    assert frames.t[-2] == grid[-2]
    assert np.var(frames.x[-2]) == pytest.approx(variance, rel=0.03)
    assert variance > 1.3 * (1 - ab[grid[-2]])
    np.testing.assert_allclose(frames.x[-1], x0, rtol=1e-9)  # no noise on the last step


def test_sigma_hat_is_the_ancestral_mean_with_the_larger_noise():
    # DDIM's own code for that row of its tables: the posterior mean from the clipped x̂0, and σ̂ = √(1-ᾱ_t/ᾱ_s).
    keys, x = dj.sample_keys(0, 0, 5), X
    for i, (t, s) in enumerate(itertools.pairwise(TRAILING)):
        ab_t, ab_s = SCHEDULE.alpha_bar_at([t, s])
        x0 = np.clip((x - np.sqrt(1 - ab_t) * wavy(jnp.asarray(x), jnp.full(5, t))) / np.sqrt(ab_t), -1, 1)
        beta = 1 - ab_t / ab_s
        mean = (np.sqrt(ab_s) * beta * x0 + np.sqrt(1 - beta) * (1 - ab_s) * x) / (1 - ab_t)
        z = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, i), (1,)))(keys)  # noqa: B023
        x = mean + (s != -1) * np.sqrt(beta) * z
    steps = samplers.ddim(SCHEDULE, TRAILING, sigma_hat=True)
    np.testing.assert_allclose(dj.sample(steps, wavy, X, keys, clip=1.0), x, rtol=1e-11, atol=1e-11)


def test_single_steps_of_equivalent_samplers_agree_to_the_last_digits():
    for t, s in ((999, 998), (999, 500), (20, 3), (1, 0)):
        pair, key = [t, s], jax.random.key(0)
        euler = samplers.probability_flow(SCHEDULE, pair)
        ddpm, ddim = samplers.ddpm(SCHEDULE, pair), samplers.ddim(SCHEDULE, pair, eta=1.0)
        results = [dj.sample(steps, wavy, X, key, clip=1.0) for steps in (ddpm, ddim)]
        np.testing.assert_allclose(*results, rtol=1e-12, atol=1e-12)
        others = [samplers.ddim(SCHEDULE, pair), samplers.plms(SCHEDULE, pair), samplers.dpm_solver_pp(SCHEDULE, pair)]
        for steps in others:
            np.testing.assert_allclose(dj.sample(steps, wavy, X), dj.sample(euler, wavy, X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("steps", "std"), [(10, 0.321), (20, 0.170), (50, 0.076), (100, 0.044), (1000, 0.010)])
def test_final_noise_is_the_published_amount(steps, std):
    grid = timesteps.trailing(1000, steps)
    assert samplers.ddim(SCHEDULE, grid, sigma_hat=True, final_noise=True).d[-1] == pytest.approx(std, abs=6e-4)
    assert samplers.ddim(SCHEDULE, grid, sigma_hat=True).d[-1] == 0


def test_explicit_sigma_is_eta():
    eta = samplers.ddim(SCHEDULE, TRAILING, eta=0.4)
    given = samplers.ddim(SCHEDULE, TRAILING, sigma=eta.d)
    for a, b in zip(jax.tree.leaves(eta), jax.tree.leaves(given), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_learned_range_interpolates_in_log_space():
    grid = timesteps.trailing(1000, 10)
    learned = samplers.ddpm(SCHEDULE, grid, variance="learned_range")
    small, large = (samplers.ddpm(SCHEDULE, grid, variance=v) for v in ("fixed_small", "fixed_large"))
    np.testing.assert_allclose(np.exp(learned.log_var[:-1] / 2), np.stack([small.d, large.d], 1)[:-1], rtol=1e-12)
    assert learned.log_var[-1, 0] == pytest.approx(learned.log_var[-2, 0])  # the step before stands in
    assert learned.d.tolist() == [1.0] * 9 + [0.0]
    keys = dj.sample_keys(0, 0, 5)
    for frac, table in ((0.0, small), (1.0, large)):

        def predict(x, t, frac=frac):
            eps = wavy(x, t)
            root = jnp.asarray(SCHEDULE.sqrt_alpha_bars)[t][:, None]
            return dj.Prediction((x - jnp.sqrt(1 - root**2) * eps) / root, eps, jnp.full_like(x, frac))

        expected = dj.sample(table, wavy, X, keys, clip=1.0)
        np.testing.assert_allclose(dj.sample(learned, predict, X, keys, clip=1.0), expected, rtol=1e-9, atol=1e-9)


def test_learned_range_on_the_full_grid_ends_at_the_usual_log_variance():
    learned = samplers.ddpm(SCHEDULE, timesteps.full(1000), variance="learned_range")
    np.testing.assert_allclose(learned.log_var[::-1, 0], SCHEDULE.posterior_log_variance, rtol=1e-9)
    np.testing.assert_allclose(learned.log_var[::-1, 1], np.log(SCHEDULE.betas), rtol=1e-9)


def test_learned_range_after_a_repeated_index():
    table = samplers.ddpm(SCHEDULE, [999, 19, 19, -1], variance="learned_range")
    assert table.log_var[-1, 0] == table.log_var[0, 0]
    assert np.all(np.isfinite(table.log_var))


def test_learned_takes_the_log_variance_itself():
    learned = samplers.ddpm(SCHEDULE, TRAILING, variance="learned")
    keys = dj.sample_keys(0, 0, 5)
    predict = jax.tree_util.Partial(lambda x, t: dj.Prediction(jnp.zeros_like(x), x, jnp.full_like(x, np.log(0.09))))
    one = jax.tree.map(lambda column: column[:1], learned)
    z = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 0), (1,)))(keys)
    np.testing.assert_allclose(dj.sample(one, predict, X, keys), one.a[0] * X + 0.3 * z, rtol=1e-10)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpm_solver_pp", "heun", "learned_range"])
def test_a_repeated_index_changes_nothing(name):
    make = {
        "learned_range": lambda s, g: samplers.ddpm(s, g, variance="learned_range"),
        "ddim": lambda s, g: samplers.ddim(s, g, eta=0.5),
    }.get(name) or getattr(samplers, name)
    grid = np.array([999, 500, 500, 100, -1])
    steps = make(SCHEDULE, grid)
    row = int(np.flatnonzero((steps.t_from == 500) & (steps.t_to == 500) & steps.lands)[-1])
    step = jax.tree.map(lambda column: column[row : row + 1], steps)

    def predict(x, t):
        eps = wavy(x, t)
        root = jnp.asarray(SCHEDULE.sqrt_alpha_bars)[t][:, None]
        return dj.Prediction((x - jnp.sqrt(1 - root**2) * eps) / root, eps, jnp.full_like(x, 0.5))

    np.testing.assert_allclose(dj.sample(step, predict, X, jax.random.key(0)), X, rtol=1e-12)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(steps))


def test_stack_runs_a_sweep_in_one_go():
    tables = [samplers.ddim(SCHEDULE, TRAILING, eta=eta) for eta in (0.0, 0.5, 1.0)]
    key = jax.random.key(0)
    together = jax.vmap(lambda table: dj.sample(table, wavy, X, key))(dj.stack(tables))
    for table, result in zip(tables, together, strict=True):
        np.testing.assert_allclose(dj.sample(table, wavy, X, key), result, rtol=1e-11)
    with pytest.raises(ValueError, match="samplers can be stacked if"):
        dj.stack([tables[0], samplers.ddim(SCHEDULE, timesteps.trailing(1000, 5))])
    with pytest.raises(ValueError, match="samplers can be stacked if"):
        dj.stack([])


def test_refinement_starts_below():
    grid = timesteps.starting_at(timesteps.trailing(1000, 10), 450)
    x = dj.sample(samplers.ddim(SCHEDULE, grid), optimal(SCHEDULE), X)
    assert np.all(np.isfinite(x))
    assert samplers.ddim(SCHEDULE, grid).grid[0] == 450


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: samplers.ddim(SCHEDULE, [9, -1], sigma=[0.1]),
            r"sigma\[0\]=0.1 must be within 0 … .* = 0.0, on step 9 → -1",
        ),
        (lambda: samplers.ddim(SCHEDULE, [9, 4], sigma=[0.9]), r"sigma\[0\]=0.9 .* on step 9 → 4"),
        (lambda: samplers.ddim(SCHEDULE, [9, 4], sigma=[np.nan]), r"sigma\[0\]=nan"),
        (lambda: samplers.ddim(SCHEDULE, [9, 4], sigma=[0.1, 0.1]), r"sigma of shape \(2,\)"),
        (lambda: samplers.ddim(SCHEDULE, [9, 4], eta=0.5, sigma=[0.1]), "eta=0.5 must be 0 if sigma"),
        (lambda: samplers.ddim(SCHEDULE, [9, 4], eta=0.5, sigma_hat=True), "eta=0.5 must be 0 if sigma"),
        (lambda: samplers.ddim(SCHEDULE, [9, 4], sigma=[0.0], sigma_hat=True), "sigma_hat=True excludes sigma"),
        (lambda: samplers.ddim(SCHEDULE, [9, 4], final_noise=True), "final_noise=True needs sigma_hat=True"),
        (lambda: samplers.probability_flow(SCHEDULE, [9, -1], form="eq15"), "stays above -1"),
        (lambda: samplers.probability_flow(SCHEDULE, [-1, 9], form="eq15"), "stays above -1"),
        (lambda: samplers.probability_flow(SCHEDULE, [9, 4], form="eq14"), "form='eq14' is not one of"),
        (lambda: samplers.probability_flow(SCHEDULE, [9, 4], network_at="middle"), "network_at='middle' is not one of"),
        (lambda: samplers.heun(schedules.jsd(10), timesteps.full(10)[::-1]), "divides by alpha_bar, which is 0"),
        (
            lambda: samplers.plms(schedules.jsd(10), timesteps.full(10), average="v"),
            "divides by alpha_bar, which is 0",
        ),
        (lambda: samplers.pndm(schedules.jsd(10), timesteps.full(10)), "divides by alpha_bar, which is 0"),
        (lambda: samplers.probability_flow(schedules.jsd(10), [9, 5], form="eq15"), "divides by alpha_bar, which is 0"),
        (lambda: samplers.dpm_solver_pp(SCHEDULE, [9, 4], order=4), "order=4 is not one of 1, 2, 3"),
        (lambda: samplers.dpm_solver_pp(SCHEDULE, [-1, 9], eta=1.0), "must descend"),
        (lambda: samplers.plms(SCHEDULE, [9, 4], order=5), "order=5 is not one of"),
        (lambda: samplers.pndm(SCHEDULE, [9, 4, 2, -1]), "num_steps=3 must be ≥ 4 for pndm"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_plms_with_a_first_step_of_two_calls():
    """Latent diffusion's PLMS: the first step takes the mean of ε̂ at both ends, and the rest goes on from its first."""
    grid = np.array([80, 60, 40, 20, 10, -1])
    levels = np.append(SCHEDULE.alpha_bars, 1.0)[grid]
    x, outputs = np.array([[0.7, -1.2]]), []
    weights = [None, [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]
    for n, (ab_t, ab_s) in enumerate(itertools.pairwise(levels)):
        a = np.sqrt(ab_s / ab_t)
        c = np.sqrt(1 - ab_s) - a * np.sqrt(1 - ab_t)
        outputs.insert(0, np.sin(x) * (1 + grid[n] / 50))
        if n == 0:
            arrived = a * x + c * outputs[0]
            x = a * x + c * (outputs[0] + np.sin(arrived) * (1 + grid[1] / 50)) / 2
        else:
            x = a * x + c * sum(w * output for w, output in zip(weights[min(n, 3)], outputs, strict=False))
    table = samplers.plms(SCHEDULE, grid, first_step="heun")
    assert table.num_rows == 6
    assert table.grid.tolist() == grid.tolist()
    start = jnp.array([[0.7, -1.2]])
    np.testing.assert_allclose(
        sampling.sample(table, lambda x, t: jnp.sin(x) * (1 + t[:, None].astype(float) / 50), start), x, rtol=1e-12
    )
    with pytest.raises(ValueError, match="num_steps ≥ 2"):
        samplers.plms(SCHEDULE, [50, -1], first_step="heun")
    with pytest.raises(ValueError, match="first_step='rk4'"):
        samplers.plms(SCHEDULE, [50, -1], first_step="rk4")
