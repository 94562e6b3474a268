"""DPM-Solver, UniPC, DEIS and SA-Solver: orders, moments, identities between them, and the ends of a grid."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax import process, samplers, schedules, timesteps
from diffjax.noise import sample_noise
from diffjax.samplers import (
    deis,
    dpm_solver,
    dpm_solver_pp,
    dpm_solver_pp_singlestep,
    dpm_solver_singlestep,
    sa_solver,
    unipc,
)

pytestmark = pytest.mark.usefixtures("x64")

SCHEDULE = schedules.linear()
X = np.random.default_rng(0).normal(size=(16, 2))
TRAILING = timesteps.trailing(1000, 20)
MODES = np.array([[0.7, 0.7], [0.7, -0.7], [-0.7, 0.7], [-0.7, -0.7]])
WEIGHTS = np.array([0.4, 0.3, 0.2, 0.1])

no_lower = {"lower_order_final": False}
ORDERS = {
    "dpm_solver_pp 1": (partial(dpm_solver_pp, order=1), 1),
    "dpm_solver_pp 2": (dpm_solver_pp, 2),
    "dpm_solver_pp 2 heun": (partial(dpm_solver_pp, solver_type="heun"), 2),
    "dpm_solver_pp 3": (partial(dpm_solver_pp, order=3), 2),  # half the second difference, as in the authors' code
    "dpm_solver 1": (partial(dpm_solver, order=1), 1),
    "dpm_solver 2": (dpm_solver, 2),
    "dpm_solver 3": (partial(dpm_solver, order=3), 2),
    "dpm_solver_pp_singlestep 2": (partial(dpm_solver_pp_singlestep, order=2, **no_lower), 2),
    "dpm_solver_pp_singlestep 3": (partial(dpm_solver_pp_singlestep, order=3, **no_lower), 3),
    "dpm_solver_pp_singlestep 3 heun": (
        partial(dpm_solver_pp_singlestep, order=3, solver_type="heun", **no_lower), 3
    ),
    "dpm_solver_singlestep 2": (partial(dpm_solver_singlestep, order=2, **no_lower), 2),
    "dpm_solver_singlestep 3": (partial(dpm_solver_singlestep, order=3, **no_lower), 3),
    "unipc 1, no corrector": (partial(unipc, order=1, corrector=False, **no_lower), 1),
    "unipc 1": (partial(unipc, order=1, **no_lower), 2),
    "unipc 2, no corrector": (partial(unipc, order=2, corrector=False, **no_lower), 2),
    "unipc 2": (partial(unipc, order=2, **no_lower), 3),
    "unipc 2 bh1": (partial(unipc, order=2, solver_type="bh1", **no_lower), 3),
    "unipc 2 of eps": (partial(unipc, order=2, predict_x0=False, **no_lower), 3),
    "unipc 3, no corrector": (partial(unipc, order=3, corrector=False, **no_lower), 3),
    "deis 1": (partial(deis, order=1), 1),
    "deis 2": (deis, 2),
    "deis 3 of x0": (partial(deis, order=3, predict_x0=True), 3),
    "sa_solver 1, 0": (partial(sa_solver, predictor_order=1, corrector_order=0, tau=0.0, **no_lower), 1),
    "sa_solver 2, 2": (partial(sa_solver, tau=0.0, **no_lower), 2),
    "sa_solver 2, 3": (partial(sa_solver, predictor_order=2, corrector_order=3, tau=0.0, **no_lower), 3),
}  # fmt: skip


def mixture_eps(std, x, t):
    """E[ε | x_t] for data from four Gaussians of the given deviation."""
    signal, noise = process.scales_at(SCHEDULE, x, t)
    variance = signal**2 * std**2 + noise**2
    distance = x[:, None] - signal[:, None] * MODES
    share = jax.nn.softmax(jnp.log(WEIGHTS) - 0.5 * jnp.sum(distance**2, -1) / variance, -1)
    return noise / variance * jnp.sum(share[..., None] * distance, 1)


def wavy(x, t):
    return 0.6 * jnp.sin(2 * x) + 0.3 * x + t[:, None].astype(x.dtype) / 2000


def run(table, predict=wavy, x=X, keys=None):
    return np.asarray(dj.sample(table, predict, x, keys))


def rms(difference):
    return np.sqrt(np.mean(difference**2))


@pytest.fixture(scope="module")
def exact_on_log_snr():
    with jax.enable_x64(True):
        grid = timesteps.log_snr(SCHEDULE, 3000, sigma_max=80.0, sigma_min=0.1, end=0)
        return run(unipc(SCHEDULE, grid, order=3, lower_order_final=False), jax.tree_util.Partial(mixture_eps, 0.4))


@pytest.mark.parametrize("name", ORDERS)
def test_order_of_convergence(name, exact_on_log_snr):
    make, order = ORDERS[name]
    counts, errors = (60, 240), []
    for count in counts:
        grid = timesteps.log_snr(SCHEDULE, count, sigma_max=80.0, sigma_min=0.1, end=0)
        result = run(make(SCHEDULE, grid), jax.tree_util.Partial(mixture_eps, 0.4))
        errors.append(rms(result - exact_on_log_snr))
    slope = np.log2(errors[0] / errors[1]) / 2
    assert slope == pytest.approx(order, abs=0.15)


def test_dpm_solver_pp_2_on_trailing_steps_stalls_and_on_a_log_snr_grid_does_not():
    predict = jax.tree_util.Partial(mixture_eps, 0.02)
    exact = run(deis(SCHEDULE, timesteps.log_snr(SCHEDULE, 3000), order=3, predict_x0=True), predict)
    counts = (40, 160)
    trailing, uniform = (
        [rms(run(dpm_solver_pp(SCHEDULE, grid(count)), predict) - exact) for count in counts]
        for grid in (partial(timesteps.trailing, 1000), partial(timesteps.log_snr, SCHEDULE))
    )
    assert trailing[0] < 2.5 * trailing[1]  # 1.4e-2, 1.1e-2, 6.9e-3 with 40, 80, 160 steps
    assert uniform[0] > 8 * uniform[1]  # 8.0e-4, 3.1e-4, 9.2e-5
    assert uniform[0] < trailing[0] / 10


STOCHASTIC = {
    "dpm_solver_pp 1": partial(dpm_solver_pp, order=1, eta=1.0),
    "dpm_solver_pp 2": partial(dpm_solver_pp, eta=1.0),
    "dpm_solver_pp 2 heun": partial(dpm_solver_pp, solver_type="heun", eta=0.5),
    "dpm_solver_pp 3": partial(dpm_solver_pp, order=3, eta=1.0),
    "dpm_solver 2": partial(dpm_solver, eta=1.0),
    "dpm_solver_pp_singlestep 2": partial(dpm_solver_pp_singlestep, order=2, eta=1.0),
    "dpm_solver_pp_singlestep 3": partial(dpm_solver_pp_singlestep, order=3, solver_type="heun", eta=1.0),
    "sa_solver": sa_solver,
    "sa_solver 3, 4": partial(sa_solver, predictor_order=3, corrector_order=4, tau=0.7),
    "sa_solver of eps": partial(sa_solver, predict_x0=False),
    "sa_solver in an interval": partial(sa_solver, tau_interval=(200, 800)),
}


def gaussian_moments(table, mean, std):
    """The exact mean and variance that a table ends with on Gaussian data: each x is an affine function of all noise.

    Row 0 is the constant, row 1 x at the start in units of its deviation, the others the z of each row.
    """
    x = np.zeros(2 + table.num_rows)
    x[:2] = table.signal[0] * mean, np.sqrt((table.signal[0] * std) ** 2 + table.noise[0] ** 2)
    x0s, all_eps = [], []
    for i in range(table.num_rows):
        centre = x - np.eye(len(x))[0] * table.signal[i] * mean
        eps = table.noise[i] / ((table.signal[i] * std) ** 2 + table.noise[i] ** 2) * centre
        x0 = (x - table.noise[i] * eps) / table.signal[i]
        x = table.a[i] * x + table.b[i] * x0 + table.c[i] * eps + table.d[i] * np.eye(len(x))[2 + i]
        for column, past in ((table.x0_history, x0s), (table.eps_history, all_eps)):
            x = x + sum((w * m for w, m in zip(column[i], reversed(past), strict=False)), np.zeros(len(x)))
        x0s.append(x0)
        all_eps.append(eps)
    return x[0], np.sum(x[1:] ** 2)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_moments_of_stochastic_solvers(name):
    mean, std, errors = 0.3, 0.6, []
    for count in (30, 120, 480):
        grid = timesteps.log_snr(SCHEDULE, count, sigma_min=0.05, end=0)
        table = STOCHASTIC[name](SCHEDULE, grid)
        assert table.is_stochastic
        signal, noise = table.signal_to[-1], table.noise_to[-1]
        found, variance = gaussian_moments(table, mean, std)
        errors.append(max(abs(found - signal * mean), abs(variance / ((signal * std) ** 2 + noise**2) - 1)))
    assert errors[2] < errors[1] / 2 < errors[0] / 4
    assert errors[2] < 0.05


def by_predictions(table):
    """The rows with x as √ᾱ·x̂0 + √(1-ᾱ)·ε̂: `[R, 11]`, the same for equal methods in x̂0 and in ε̂."""
    columns = [table.b + table.a * table.signal, table.c + table.a * table.noise, table.d]
    for history in (table.x0_history, table.eps_history):
        columns += list(np.pad(history, ((0, 0), (0, 4 - history.shape[1]))).T)
    return np.stack(columns, axis=1)


ALL_ROWS, AFTER_ORDER_2, OF_FULL_ORDER = slice(None), slice(2, None), slice(4, -3)


@pytest.mark.parametrize("grid", [TRAILING, timesteps.log_snr(SCHEDULE, 20, sigma_max=20.0)], ids=["int", "float"])
@pytest.mark.parametrize(
    ("one", "other", "rows"),
    [
        (partial(dpm_solver_pp, order=1, eta=1.0), partial(samplers.ddim, eta=1.0), ALL_ROWS),
        (partial(dpm_solver, order=1), samplers.ddim, ALL_ROWS),
        (partial(deis, order=1), samplers.ddim, ALL_ROWS),
        (partial(dpm_solver_pp_singlestep, order=1), samplers.ddim, ALL_ROWS),
        (partial(unipc, corrector=False), dpm_solver_pp, ALL_ROWS),
        (partial(unipc, corrector=False, predict_x0=False), dpm_solver, ALL_ROWS),
        (partial(unipc, disable_corrector=range(20)), partial(unipc, corrector=False), ALL_ROWS),
        (deis, partial(dpm_solver, solver_type="heun"), ALL_ROWS),
        (partial(deis, predict_x0=True), partial(dpm_solver_pp, solver_type="heun"), ALL_ROWS),
        (partial(sa_solver, predictor_order=1, tau=0.0), partial(unipc, order=1, solver_type="bh1"), ALL_ROWS),
        (partial(sa_solver, tau_interval=(-1, 999)), sa_solver, ALL_ROWS),
        (partial(sa_solver, tau_interval=(2000, 3000)), partial(sa_solver, tau=0.0), ALL_ROWS),
        (partial(sa_solver, predictor_order=1, corrector_order=0), partial(samplers.ddim, eta=1.0), ALL_ROWS),
        (
            partial(unipc, order=3, corrector=False, **no_lower),
            partial(deis, order=3, predict_x0=True),
            AFTER_ORDER_2,
        ),
        (partial(sa_solver, predictor_order=3, corrector_order=4, tau=0.0), partial(unipc, order=3), OF_FULL_ORDER),
    ],
)
def test_identities_between_solvers(one, other, rows, grid):
    tables = [by_predictions(make(SCHEDULE, grid))[rows] for make in (one, other)]
    np.testing.assert_allclose(*tables, rtol=1e-9, atol=1e-12)


def test_dpm_solver_pp_3m_sde_is_the_recursion_of_k_diffusion():
    eta, grid = 0.8, timesteps.log_snr(SCHEDULE, 12, sigma_max=20.0)
    table = dpm_solver_pp(SCHEDULE, grid, order=3, eta=eta)
    keys = dj.sample_keys(0, 0, len(X))
    sigmas = np.append(table.noise / table.signal, 0.0)
    x = X / table.signal[0]  # sample_dpmpp_3m_sde: x without the factor √ᾱ
    denoised_1 = denoised_2 = h_1 = h_2 = None
    for i, (sigma, sigma_to) in enumerate(itertools.pairwise(sigmas)):
        scaled = jnp.asarray(x * table.signal[i])
        denoised = x - sigma * np.asarray(wavy(scaled, jnp.full(len(X), grid[i])))
        if sigma_to == 0:
            x = denoised
            break
        h = np.log(sigma) - np.log(sigma_to)
        h_eta = h * (eta + 1)
        x = np.exp(-h_eta) * x - np.expm1(-h_eta) * denoised
        if h_2 is not None:
            r0, r1 = h_1 / h, h_2 / h
            d1_0, d1_1 = (denoised - denoised_1) / r0, (denoised_1 - denoised_2) / r1
            d1 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1)
            d2 = (d1_0 - d1_1) / (r0 + r1)
            phi_2 = np.expm1(-h_eta) / h_eta + 1
            phi_3 = phi_2 / h_eta - 0.5
            x = x + phi_2 * d1 - phi_3 * d2
        elif h_1 is not None:
            # There the second step weights the difference exactly; in diffusers and here by (1 - e^{-h})/2.
            x = x - 0.5 * np.expm1(-h_eta) * (denoised - denoised_1) * h / h_1
        z = np.asarray(sample_noise(keys, i, (2,), jnp.float64))
        x = x + z * sigma_to * np.sqrt(-np.expm1(-2 * h * eta))
        denoised_1, denoised_2, h_1, h_2 = denoised, denoised_1, h, h_1
    np.testing.assert_allclose(run(table, keys=keys), x, rtol=1e-10, atol=1e-11)


ALL = {
    "dpm_solver_pp": partial(dpm_solver_pp, order=3),
    "dpm_solver_pp sde": partial(dpm_solver_pp, order=3, eta=1.0),
    "dpm_solver_pp_singlestep": partial(dpm_solver_pp_singlestep, order=3),
    "unipc": partial(unipc, order=3),
    "unipc to the end": partial(unipc, order=3, lower_order_final=False),
    "deis": partial(deis, order=4, predict_x0=True),
    "sa_solver": partial(sa_solver, predictor_order=3, corrector_order=4),
}


@pytest.mark.parametrize("name", ALL)
def test_levels_without_signal_repeated_levels_and_few_steps(name):
    keys = dj.sample_keys(0, 0, len(X))
    ending = schedules.jsd(100)
    for schedule, grid in (
        (ending, timesteps.trailing(100, 10)),
        (SCHEDULE, np.array([900, 500, 500, 100, 3, 3, 3, -1])),
        (SCHEDULE, np.array([600, -1])),
        (SCHEDULE, np.array([600, 300])),
    ):
        table = ALL[name](schedule, grid)
        assert all(np.all(np.isfinite(column)) for column in jax.tree.leaves(table))
        if table.signal[0] > 0:
            assert np.all(np.isfinite(run(table, keys=keys)))
        if grid[-1] == -1:
            assert (table.a[-1], table.b[-1], table.d[-1]) == (0, 1, 0)
    first = ALL[name](ending, timesteps.trailing(100, 10))
    by_ddim = samplers.ddim(ending, timesteps.trailing(100, 10), eta=1.0 if first.is_stochastic else 0.0)
    x0_and_eps = first.b[0] + first.a[0] * first.signal[0], first.c[0] + first.a[0] * first.noise[0]
    np.testing.assert_allclose(x0_and_eps, (by_ddim.b[0], by_ddim.c[0]), atol=1e-12)


@pytest.mark.parametrize("make", [dpm_solver_pp, dpm_solver])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_encoding(make, order):
    grid = timesteps.log_snr(SCHEDULE, 200)[::-1]
    table = make(SCHEDULE, grid, order=order)
    flow = samplers.probability_flow(SCHEDULE, grid)
    if order == 1:
        np.testing.assert_allclose(run(table), run(flow), rtol=1e-10)
    predict = jax.tree_util.Partial(mixture_eps, 0.4)
    data = 0.7 + 0.2 * X
    back = run(make(SCHEDULE, grid[::-1], order=order), predict, run(table, predict, data))
    assert rms(back - data) < {1: 0.1, 2: 3e-3, 3: 3e-3}[order]


CHANGES = {
    "dpm_solver_pp": [
        partial(dpm_solver_pp, solver_type=kind, eta=eta, lower_order_final=final, euler_at_final=euler)
        for kind in ("midpoint", "heun") for eta in (0.0, 1.0) for final in (True, False) for euler in (True, False)
    ],
    "dpm_solver_pp_singlestep": [
        partial(dpm_solver_pp_singlestep, solver_type=kind, eta=eta) for kind in ("midpoint", "heun") for eta in (0.0, 0.5)
    ],
    "unipc": [
        partial(unipc, solver_type=kind, corrector=corrector, disable_corrector=disabled, lower_order_final=final)
        for kind in ("bh1", "bh2") for corrector in (True, False) for disabled in ((), (0, 1)) for final in (True, False)
    ],
    "deis": [partial(deis, lower_order_final=final) for final in (True, False)],
    "sa_solver": [
        partial(sa_solver, tau=tau, tau_interval=interval, lower_order_final=final)
        for tau in (0.0, 1.0) for interval in (None, (200, 800)) for final in (True, False)
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_other_options_and_grids_compile_nothing(name, count_compilations):
    keys = dj.sample_keys(0, 0, len(X))
    grids = [
        timesteps.log_snr(SCHEDULE, 10),
        timesteps.log_snr(SCHEDULE, 10, sigma_max=20.0, sigma_min=0.1, end=0),
        timesteps.karras(SCHEDULE, 10),
        timesteps.karras(SCHEDULE, 10, rho=3.0, sigma_max=50.0),
    ]
    tables = [make(SCHEDULE, grid) for make in CHANGES[name] for grid in grids]
    run(tables[0], keys=keys)
    count_compilations()
    for table in tables[1:]:
        run(table, keys=keys)
    assert count_compilations() == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (partial(dpm_solver_pp, order=4), "order=4 is not one of 1, 2, 3"),
        (partial(dpm_solver_pp, solver_type="bh1"), "solver_type='bh1' is not one of 'midpoint', 'heun'"),
        (partial(dpm_solver_pp, eta=-0.5), "eta=-0.5 must be ≥ 0 and finite"),
        (partial(dpm_solver, eta=np.nan), "eta=nan must be ≥ 0 and finite"),
        (partial(dpm_solver_pp_singlestep, order=3, **no_lower), "lower_order_final=False needs .* order=3, not 20"),
        (partial(unipc, order=0), "order=0 is not one of 1, 2, 3"),
        (partial(unipc, solver_type="midpoint"), "solver_type='midpoint' is not one of 'bh1', 'bh2'"),
        (partial(unipc, disable_corrector=(20,)), "disable_corrector=20 is out of range: allowed is 0 … 19"),
        (partial(deis, order=5), "order=5 is not one of 1, 2, 3, 4"),
        (partial(sa_solver, predictor_order=0), "predictor_order=0 is not one of"),
        (partial(sa_solver, corrector_order=5), "corrector_order=5 is not one of 0, 1, 2, 3, 4"),
        (partial(sa_solver, tau=-1.0), "tau=-1.0 must be ≥ 0 and finite"),
        (partial(sa_solver, tau_interval=(800, 200)), r"tau_interval=\(800, 200\) must be two numbers"),
    ],
)
def test_bad_options(make, words):
    with pytest.raises(ValueError, match=words):
        make(SCHEDULE, TRAILING)


@pytest.mark.parametrize("make", [partial(dpm_solver_pp, eta=1.0), dpm_solver_pp_singlestep, unipc, deis, sa_solver])
def test_what_encodes_no_images_refuses_an_ascending_grid(make):
    with pytest.raises(ValueError, match="must descend"):
        make(SCHEDULE, TRAILING[::-1])


@pytest.mark.parametrize("make", [dpm_solver, dpm_solver_singlestep, deis, partial(unipc, predict_x0=False)])
def test_methods_in_eps_refuse_a_level_without_signal(make):
    with pytest.raises(ValueError, match="divides by alpha_bar, which is 0"):
        make(schedules.jsd(10), timesteps.full(10))
