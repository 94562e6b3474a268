"""The solvers in x̄ and σ̄: their order, their marginals, where they start and end, and their tables' shapes."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import diffjax as dj
from diffjax import parameterization, samplers, schedules, timesteps
from diffjax.noise import sample_noise

pytestmark = pytest.mark.usefixtures("x64")

SCHEDULE = schedules.linear()
MODES = np.array([[1.0, 0.6], [-0.8, 0.9], [-0.5, -1.0], [0.9, -0.7]])
SPREAD = 0.3
X = np.random.default_rng(0).normal(size=(16, 2))


def mixture_eps(x_bar, sigma, np=np):
    """Returns the exact ε̂ of four Gaussian modes of equal weight, at x̄ `[B, 2]` and σ̄."""
    variance = SPREAD**2 + sigma**2
    differences = x_bar[:, None] - MODES
    logits = -np.sum(differences**2, axis=-1) / (2 * variance)
    weights = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    weights = weights / np.sum(weights, axis=1, keepdims=True)
    return sigma * np.sum(weights[..., None] * differences, axis=1) / variance


def sigma_at(log_snr, t):
    low = jnp.floor(t).astype(jnp.int32)
    high = jnp.minimum(low + 1, len(log_snr) - 1)
    return jnp.exp(-0.5 * ((1 - t + low) * log_snr[low] + (t - low) * log_snr[high]))


@jax.tree_util.Partial
def mixture(x, t):
    sigma = sigma_at(jnp.asarray(SCHEDULE.log_snr), t[0])
    return mixture_eps(x * jnp.sqrt(1 + sigma**2), sigma, jnp)


@jax.tree_util.Partial
def gaussian(x, t):
    """The exact ε̂ of data of mean 0.3 and standard deviation 0.6."""
    sigma = sigma_at(jnp.asarray(SCHEDULE.log_snr), t[0].astype(x.dtype))
    return sigma * (x * jnp.sqrt(1 + sigma**2) - 0.3) / (0.36 + sigma**2)


@functools.cache
def flow(sigma_max, sigma_min):
    """Returns where the ODE dx̄/dσ̄ = ε̂ of the mixture takes x from σ_max to σ_min, as x."""
    x_bar = X * np.hypot(1, sigma_max)
    solution = solve_ivp(
        lambda sigma, y: mixture_eps(y.reshape(X.shape), sigma).ravel(),
        (sigma_max, sigma_min),
        x_bar.ravel(),
        method="DOP853",
        rtol=1e-12,
        atol=1e-12,
    )
    return solution.y[:, -1].reshape(X.shape) / np.hypot(1, sigma_min)


SIGMA_MAX, SIGMA_MIN = 20.0, 0.1
ORDERS = {
    "euler": (samplers.euler, 1),
    "heun": (samplers.heun, 2),
    "lms_1": (lambda s, g: samplers.lms(s, g, order=1), 1),
    "lms_2": (lambda s, g: samplers.lms(s, g, order=2), 2),
    "lms_3": (lambda s, g: samplers.lms(s, g, order=3), 3),
    "lms_4": (samplers.lms, 4),
    "er_sde_ode_1": (lambda s, g: samplers.er_sde(s, g, order=1, noise_scaling="ode"), 1),
    "er_sde_ode_2": (lambda s, g: samplers.er_sde(s, g, order=2, noise_scaling="ode"), 2),
    "er_sde_ode_3": (lambda s, g: samplers.er_sde(s, g, order=3, noise_scaling="ode"), 2),
    "dpm2": (samplers.dpm2, 2),
    "dpm_solver_pp_2s": (lambda s, g: samplers.dpm_solver_pp_2s_ancestral(s, g, eta=0.0), 2),
}


@pytest.mark.parametrize("name", ORDERS)
def test_order_of_convergence(name):
    make, order = ORDERS[name]
    counts, errors = [80, 160, 320, 640], []
    for count in counts:
        lam = np.linspace(np.log(SIGMA_MAX), np.log(SIGMA_MIN), count + 1)
        # Multistep methods of order k need starting steps of their order: here, of order 1 on h^{k/2}.
        h = lam[0] - lam[1]
        first = lam[0] - h ** (order / 2) * np.arange(1, order - 1) if name in ("lms_3", "lms_4") else []
        sigmas = np.exp(np.concatenate([lam[:1], first, lam[1:]]))
        table = make(SCHEDULE, timesteps.from_sigmas(SCHEDULE, sigmas))
        errors.append(np.max(np.abs(dj.sample(table, mixture, X) - flow(SIGMA_MAX, SIGMA_MIN))))
    slope = -np.polyfit(np.log2(counts), np.log2(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.15), errors


STOCHASTIC = {
    "euler": lambda g: samplers.euler(SCHEDULE, g, churn=8.0, churn_sigma_min=0.05, churn_sigma_max=50.0),
    "heun": lambda g: samplers.heun(SCHEDULE, g, churn=40.0, churn_sigma_min=0.05, churn_sigma_max=50.0),
    "er_sde": lambda g: samplers.er_sde(SCHEDULE, g),
    "restart": lambda g: samplers.restart(SCHEDULE, g, intervals=[(0.1, 0.5, 20, 2), (1.0, 3.0, 20, 1)]),
    "dpm2": lambda g: samplers.dpm2(SCHEDULE, g, eta=1.0),
    "dpm_solver_pp_2s_ancestral": lambda g: samplers.dpm_solver_pp_2s_ancestral(SCHEDULE, g),
    "dpm_solver_pp_sde": lambda g: samplers.dpm_solver_pp_sde(SCHEDULE, g),
}


@pytest.mark.parametrize("name", STOCHASTIC)
def test_moments_of_stochastic_solvers(name):
    num_steps = 400 if name == "euler" else 100  # of order 1
    table = STOCHASTIC[name](timesteps.log_snr(SCHEDULE, num_steps, sigma_max=80.0, sigma_min=0.1, end=0))
    keys = dj.sample_keys(0, 0, 500)
    x = table.signal[0] * (0.3 + 0.6 * dj.initial_noise(dj.sample_keys(1, 0, 500), (200,), jnp.float64))
    x = x + table.noise[0] * dj.initial_noise(keys, (200,), jnp.float64)
    x_bar = dj.sample(table, gaussian, x, keys) / table.signal_to[-1]
    assert np.sum(table.d > 0) >= (3 if name == "restart" else 50)
    assert np.mean(x_bar) == pytest.approx(0.3, abs=0.02)
    assert np.var(x_bar) == pytest.approx(0.36 + 0.01, rel=0.03)


def test_without_churn_euler_is_ddim_and_so_is_lms_of_order_1():
    for grid in (timesteps.trailing(1000, 20), timesteps.karras(SCHEDULE, 20)):
        expected = jax.tree.leaves(samplers.ddim(SCHEDULE, grid))
        for table in (samplers.euler(SCHEDULE, grid), samplers.lms(SCHEDULE, grid, order=1)):
            for one, other in zip(jax.tree.leaves(table), expected, strict=True):
                np.testing.assert_array_equal(one, other)


def test_euler_without_churn_encodes():
    grid = timesteps.trailing(1000, 20)[::-1]
    for one, other in zip(
        jax.tree.leaves(samplers.euler(SCHEDULE, grid)),
        jax.tree.leaves(samplers.probability_flow(SCHEDULE, grid)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("make", [samplers.euler, samplers.heun])
def test_churn_raises_levels_within_its_range_and_the_schedule(make):
    grid = timesteps.log_snr(SCHEDULE, 20)
    table = make(SCHEDULE, grid, churn=4.0, churn_sigma_min=0.5, churn_sigma_max=1e9)
    plain = make(SCHEDULE, grid)
    starts = np.flatnonzero(np.append(True, table.lands[:-1]))
    ratio = (table.noise / table.signal)[starts] / (plain.noise / plain.signal)[starts]
    sigmas = (plain.noise / plain.signal)[starts]
    highest = SCHEDULE.sigma_bars[-1]
    np.testing.assert_allclose(ratio, np.where(sigmas >= 0.5, np.minimum(1.2, highest / sigmas), 1.0), rtol=1e-10)
    np.testing.assert_allclose(table.signal_to[:-1], table.signal[1:], rtol=1e-14)
    # Of the noise γ allows at most √2 - 1.
    most = make(SCHEDULE, grid, churn=1e6)
    assert np.max((most.noise / most.signal) / (plain.noise / plain.signal)) == pytest.approx(np.sqrt(2), rel=1e-10)


def test_er_sde_of_order_1_is_ddim():
    keys = dj.sample_keys(0, 0, len(X))
    grid = timesteps.karras(SCHEDULE, 12)
    for scaling, eta in (("ode", 0.0), ("sde", 1.0)):
        ours = dj.sample(samplers.er_sde(SCHEDULE, grid, order=1, noise_scaling=scaling), mixture, X, keys)
        expected = dj.sample(samplers.ddim(SCHEDULE, grid, eta=eta), mixture, X, keys)
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


def test_er_sde_is_its_papers_recursion():
    """Order 3, with the integrals by an adaptive rule, and the noise of the table's rows."""
    from scipy.integrate import quad

    def phi(sigma):
        return sigma * (np.exp(sigma**0.3) + 10)

    keys = dj.sample_keys(0, 0, len(X))
    grid = timesteps.karras(SCHEDULE, 8)
    sigmas = np.sqrt(1 / SCHEDULE.alpha_bar_at(grid) - 1)
    x_bar, x0, slopes = X * np.hypot(1, sigmas[0]), [], []
    for i, (sigma, sigma_to) in enumerate(itertools.pairwise(sigmas[:-1])):
        x0.append(x_bar - sigma * mixture_eps(x_bar, sigma))
        r, h = phi(sigma_to) / phi(sigma), sigma_to - sigma
        x_bar = r * x_bar + (1 - r) * x0[-1]
        if i >= 1:
            slopes.append((x0[-1] - x0[-2]) / (sigma - sigmas[i - 1]))
            x_bar = x_bar + (h + phi(sigma_to) * quad(lambda s: 1 / phi(s), sigma_to, sigma)[0]) * slopes[-1]
        if i >= 2:
            second = (slopes[-1] - slopes[-2]) / ((sigma - sigmas[i - 2]) / 2)
            moment = quad(lambda s: (s - sigma) / phi(s), sigma_to, sigma)[0]  # noqa: B023
            x_bar = x_bar + (h**2 / 2 + phi(sigma_to) * moment) * second
        z = np.asarray(sample_noise(keys, i, (2,), jnp.float64))
        x_bar = x_bar + np.sqrt(sigma_to**2 - r**2 * sigma**2) * z
    x_bar = x_bar - sigmas[-2] * mixture_eps(x_bar, sigmas[-2])
    np.testing.assert_allclose(dj.sample(samplers.er_sde(SCHEDULE, grid), mixture, X, keys), x_bar, rtol=1e-8)


def test_restart_is_its_papers_algorithm():
    keys = dj.sample_keys(0, 0, len(X))
    grid = timesteps.karras(SCHEDULE, 9)
    sigmas = np.sqrt(1 / SCHEDULE.alpha_bar_at(grid) - 1)
    table = samplers.restart(SCHEDULE, grid, intervals=[(0.2, 1.5, 3, 2)], restart_noise=1.01)
    assert table.num_rows == 2 * 9 - 1 + 2 * 3 * 2
    at = int(np.argmin(np.abs(sigmas - 0.2)))
    rows = iter(np.flatnonzero(table.d))

    def down(x_bar, levels):
        for sigma, sigma_to in itertools.pairwise(levels):
            slope = mixture_eps(x_bar, sigma)
            if sigma_to > 0:
                slope = (slope + mixture_eps(x_bar + (sigma_to - sigma) * slope, sigma_to)) / 2
            x_bar = x_bar + (sigma_to - sigma) * slope
        return x_bar

    x_bar = down(X * np.hypot(1, sigmas[0]), sigmas[: at + 1])
    for _ in range(2):
        z = np.asarray(sample_noise(keys, next(rows), (2,), jnp.float64))
        x_bar = x_bar + 1.01 * np.sqrt(1.5**2 - sigmas[at] ** 2) * z
        x_bar = down(x_bar, np.linspace(1.5 ** (1 / 7), sigmas[at] ** (1 / 7), 4) ** 7)
    x_bar = down(x_bar, sigmas[at:])
    np.testing.assert_allclose(dj.sample(table, mixture, X, keys), x_bar, rtol=1e-8)


def test_restart_without_intervals_is_heun():
    grid = timesteps.trailing(1000, 20)
    table = samplers.restart(SCHEDULE, grid, intervals=())
    for one, other in zip(jax.tree.leaves(table), jax.tree.leaves(samplers.heun(SCHEDULE, grid)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


TWO_CALLS = [samplers.dpm2, samplers.dpm_solver_pp_2s_ancestral, samplers.dpm_solver_pp_sde]


@pytest.mark.parametrize(
    "make", [samplers.euler, samplers.heun, samplers.lms, samplers.restart, samplers.er_sde, *TWO_CALLS]
)
def test_whole_timesteps_stay_whole(make):
    options = {"churn": 5.0} if make in (samplers.euler, samplers.heun) else {}
    for grid in (timesteps.trailing(1000, 20), timesteps.full(1000)[-12:]):
        table = make(SCHEDULE, grid, **options)
        assert table.t_net.dtype == table.t_from.dtype == table.t_to.dtype == np.int32
        np.testing.assert_allclose(table.signal, np.sqrt(SCHEDULE.alpha_bar_at(table.t_from)), rtol=1e-12)
        assert all(np.all(np.isfinite(column)) for column in jax.tree.leaves(table))


@pytest.mark.parametrize("num_steps", [4, 20])
@pytest.mark.parametrize(
    "make", [samplers.dpm2, lambda s, g: samplers.dpm_solver_pp_2s_ancestral(s, g, eta=0.0), samplers.lms]
)
def test_the_first_step_of_a_cosine_schedule_multiplies_no_error(make, num_steps):
    """As in tests/test_solvers.py for Heun's: Gaussian data of standard deviation 0.5 around 0."""
    schedule = schedules.cosine(1000)
    table = make(schedule, timesteps.trailing(1000, num_steps))

    def exact(x, t):
        alpha_bar = jnp.asarray(schedule.alpha_bars)[t][:, None]
        return x * jnp.sqrt(1 - alpha_bar) / (1 - 0.75 * alpha_bar)

    x = dj.sample(table, exact, jnp.linspace(-3.0, 3.0, 101)[:, None])
    assert 0.3 < np.max(np.abs(x)) / 3.0 < 0.6


def test_lms_starts_without_signal():
    schedule = schedules.zero_terminal_snr(SCHEDULE)
    table = samplers.lms(schedule, timesteps.trailing(1000, 50))

    @jax.tree_util.Partial
    def exact_v(x, t):
        alpha_bar = jnp.asarray(schedule.alpha_bars)[t][:, None]
        signal, noise = jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar)
        x0 = 0.3 + 0.36 * signal * (x - 0.3 * signal) / (0.36 * alpha_bar + 1 - alpha_bar)
        eps = noise * (x - 0.3 * signal) / (0.36 * alpha_bar + 1 - alpha_bar)
        return signal * eps - noise * x0

    x = jnp.linspace(-2.0, 2.0, 9)[:, None]
    result = dj.sample(table, parameterization.from_v(exact_v, schedule), x)
    np.testing.assert_allclose(result, 0.3 + 0.6 * x, atol=0.02)


def test_new_values_of_options_compile_nothing(count_compilations):
    x, keys = jnp.asarray(X), dj.sample_keys(0, 0, len(X))
    tables = {}
    for sigma_max in (10.0, 40.0, 100.0):
        for sigma_min in (0.03, 0.1):
            grid = timesteps.karras(SCHEDULE, 6, sigma_max=sigma_max, sigma_min=sigma_min)
            for eta in (0.0, 0.3, 1.0):
                for make in TWO_CALLS:
                    tables.setdefault(make, []).append(make(SCHEDULE, grid, eta=eta))
            tables.setdefault("er_sde", []).extend(
                samplers.er_sde(SCHEDULE, grid, noise_scaling=scaling) for scaling in ("ode", "sde", "er_sde_5")
            )
            tables.setdefault("restart", []).extend(
                samplers.restart(SCHEDULE, grid, intervals=[(low, 5 * low, 2, 2)], restart_noise=factor)
                for low in (0.3, 1.0)
                for factor in (0.0, 1.0)
            )
            for churn in (0.0, 1.0, 10.0):
                for make in (samplers.euler, samplers.heun):
                    tables.setdefault(make, []).append(
                        make(SCHEDULE, grid, churn=churn, churn_noise=1.0 + churn / 1000)
                    )
    for several in tables.values():
        dj.sample(several[0], mixture, x, keys)
        count_compilations()
        for table in several[1:]:
            dj.sample(table, mixture, x, keys)
        assert count_compilations() == 0
        dj.stack(several)


JSD = schedules.jsd(10)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: samplers.lms(SCHEDULE, [9, 4], order=5), "order=5 is not one of 1, 2, 3, 4"),
        (lambda: samplers.lms(SCHEDULE, [9, 4, 4, -1]), "grid repeats time 4"),
        (lambda: samplers.lms(SCHEDULE, [-1, 9]), "must descend"),
        (lambda: samplers.dpm2(SCHEDULE, [9, 4], eta=1.5), r"eta=1.5 must be within \[0, 1\]"),
        (lambda: samplers.dpm2(SCHEDULE, [-1, 9]), "must descend"),
        (lambda: samplers.dpm2(JSD, timesteps.full(10)), "divides by alpha_bar, which is 0"),
        (lambda: samplers.dpm_solver_pp_2s_ancestral(SCHEDULE, [9, 4], eta=-0.1), "eta=-0.1 must be within"),
        (lambda: samplers.dpm_solver_pp_2s_ancestral(JSD, timesteps.full(10)), "divides by alpha_bar, which is 0"),
        (lambda: samplers.dpm_solver_pp_sde(SCHEDULE, [9, 4], eta=np.nan), "eta=nan must be within"),
        (lambda: samplers.dpm_solver_pp_sde(SCHEDULE, [9, 4, 4, -1]), "grid repeats time 4"),
        (lambda: samplers.plms(SCHEDULE, [9, 4], average="x0"), "average='x0' is not one of 'eps', 'v'"),
        (lambda: samplers.pndm(SCHEDULE, timesteps.trailing(1000, 5), average="x"), "average='x' is not one of"),
        (lambda: samplers.er_sde(SCHEDULE, [9, 4], order=4), "order=4 is not one of 1, 2, 3"),
        (lambda: samplers.er_sde(SCHEDULE, [9, 4], noise_scaling="er"), "noise_scaling='er' is not one of 'ode'"),
        (lambda: samplers.er_sde(SCHEDULE, [9, 4, 4]), "grid repeats time 4"),
        (lambda: samplers.restart(SCHEDULE, [9, -1]), "has sigma_max below the grid's levels"),
        (lambda: samplers.restart(SCHEDULE, [9, 4], intervals=[(0.5, 0.1, 2, 2)]), "0 < sigma_min < sigma_max ≤ 157"),
        (lambda: samplers.restart(SCHEDULE, [9, 4], intervals=[(0.05, 0.1, 0, 2)]), "at least 1 step"),
        (lambda: samplers.restart(SCHEDULE, [9, 4], intervals=[(0.05, 0.1)]), "must have .sigma_min"),
        (lambda: samplers.restart(SCHEDULE, [9, 4], intervals=[(0.01, 1.0, 2, 2)] * 2), "at the same point"),
        (lambda: samplers.restart(SCHEDULE, [9, 4], restart_noise=-1.0), "restart_noise=-1.0 must be ≥ 0"),
        (lambda: samplers.euler(SCHEDULE, [9, 4], churn=-1.0), "churn=-1.0 must be ≥ 0"),
        (lambda: samplers.euler(SCHEDULE, [9, 4], churn_sigma_min=-1.0), "churn_sigma_min=-1.0 must be ≥ 0"),
        (lambda: samplers.euler(SCHEDULE, [9, 4], churn_noise=np.nan), "churn_noise=nan must be ≥ 0"),
        (
            lambda: samplers.heun(SCHEDULE, [9, 4], churn_sigma_min=2.0, churn_sigma_max=1.0),
            "churn_sigma_max=1.0 must be ≥",
        ),
        (lambda: samplers.heun(SCHEDULE, [-1, 9], churn=1.0), "churn=1.0 must be 0 on a grid that ascends"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(ValueError, match=words):
        make()
