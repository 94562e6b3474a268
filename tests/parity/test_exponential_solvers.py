"""DPM-Solver, UniPC, DEIS and SA-Solver against diffusers in float64, along whole runs with the same noise."""

import inspect
import warnings
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")

from pinned_loops import in_precision  # noqa: E402 (it needs PyTorch)

import diffjax as dj  # noqa: E402
from diffjax import samplers, schedules  # noqa: E402
from diffjax.noise import sample_noise  # noqa: E402

pytestmark = pytest.mark.usefixtures("x64")

SHAPE = (2, 3, 4)
MULTI, SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
INVERSE, UNIPC = "DPMSolverMultistepInverseScheduler", "UniPCMultistepScheduler"
DEIS, SA = "DEISMultistepScheduler", "SASolverScheduler"
PP, SDE_PP = {"algorithm_type": "dpmsolver++"}, {"algorithm_type": "sde-dpmsolver++"}
EPS, SDE_EPS = {"algorithm_type": "dpmsolver"}, {"algorithm_type": "sde-dpmsolver"}
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
TRAILING = {"timestep_spacing": "trailing"}
AT_END = {"lower_order_final": True, "euler_at_final": False}
NOT_AT_END = {"lower_order_final": False}
pp, eps = samplers.dpm_solver_pp, samplers.dpm_solver
pp_single, eps_single = samplers.dpm_solver_pp_singlestep, samplers.dpm_solver_singlestep


def case(name, config, sampler, steps=(10, 25), **options):
    return [pytest.param(name, config, partial(sampler, **options), n, id=f"{_words(config, name)}-{n}") for n in steps]


def _words(config, name):
    values = (getattr(value, "__name__", str(value)) for value in config.values())
    return "-".join([name.removesuffix("Scheduler"), *values])


def six_tenths(t):
    return 0.6


CASES = []
for order in (1, 2, 3):
    for kind in ("midpoint", "heun")[: 1 if order == 1 else 2]:
        config, options = {"solver_order": order, "solver_type": kind}, {"order": order, "solver_type": kind}
        CASES += case(MULTI, config | PP | TRAILING | AT_END, pp, **options, lower_order_final=True)
        CASES += case(MULTI, config | PP | SIGMA_MIN | NOT_AT_END, pp, **options)
        CASES += case(MULTI, config | EPS | SIGMA_MIN | NOT_AT_END, eps, **options)
        CASES += case(INVERSE, config | PP | NOT_AT_END, pp, **options)
        CASES += case(INVERSE, config | EPS | AT_END, eps, **options, lower_order_final=True)
        CASES += case(SINGLE, config | PP, pp_single, (10, 12, 25), **options)
        if 25 % order == 0 or order == 3:
            steps = (24,) if order == 3 else (10, 25)
            CASES += case(
                SINGLE, config | PP | SIGMA_MIN | NOT_AT_END, pp_single, steps, **options, lower_order_final=False
            )
        CASES += case(SINGLE, config | EPS | SIGMA_MIN | {"lower_order_final": True}, eps_single, (24,), **options)
        if order < 3:  # of order 3, diffusers has the wrong sign of 1/2 (test_dpm_solver_pp_3m_sde is its own rewrite)
            CASES += case(MULTI, config | SDE_PP | TRAILING, pp, **options, eta=1.0, lower_order_final=True)
            CASES += case(MULTI, config | SDE_EPS | SIGMA_MIN | NOT_AT_END, eps, **options, eta=1.0)
            CASES += case(SINGLE, config | SDE_PP, pp_single, (12, 25), **options, eta=1.0)
    for kind in ("bh1", "bh2"):
        config, options = {"solver_order": order, "solver_type": kind}, {"order": order, "solver_type": kind}
        at_0 = config | SIGMA_MIN  # diffusers' step to clean data is NaN with bh1
        CASES += case(UNIPC, at_0, samplers.unipc, **options)
        CASES += case(UNIPC, at_0 | NOT_AT_END, samplers.unipc, **options, lower_order_final=False)
        CASES += case(UNIPC, at_0 | {"predict_x0": False}, samplers.unipc, **options, predict_x0=False)
    config = {"solver_order": order}
    CASES += case(UNIPC, config | TRAILING, samplers.unipc, order=order)
    CASES += case(
        UNIPC, config | {"disable_corrector": [0, 1, 4]}, samplers.unipc, order=order, disable_corrector=[0, 1, 4]
    )
    CASES += case(UNIPC, config | {"disable_corrector": range(25)}, samplers.unipc, order=order, corrector=False)
    CASES += case(DEIS, {"solver_order": order} | NOT_AT_END, samplers.deis, order=order)
    CASES += case(DEIS, {"solver_order": order}, samplers.deis, order=order, lower_order_final=True)
CASES += case(MULTI, {"solver_order": 2, "euler_at_final": True} | NOT_AT_END | SIGMA_MIN, pp, euler_at_final=True)
CASES += case(SINGLE, {"solver_order": 3, "solver_type": "midpoint"} | SDE_PP, pp_single, order=3, eta=1.0)
for predictor, corrector in ((1, 1), (2, 2), (3, 4), (3, 1), (1, 3), (2, 4), (4, 4)):
    config = {"predictor_order": predictor, "corrector_order": corrector}
    orders = {"predictor_order": predictor, "corrector_order": corrector}
    CASES += case(SA, config, samplers.sa_solver, **orders, tau_interval=(200, 800))
    CASES += case(
        SA,
        config | NOT_AT_END | {"tau_func": six_tenths},
        samplers.sa_solver,
        **orders,
        tau=0.6,
        lower_order_final=False,
    )
    noise = {"algorithm_type": "noise_prediction"}
    CASES += case(SA, config | noise, samplers.sa_solver, **orders, tau_interval=(200, 800), predict_x0=False)


@pytest.mark.parametrize(("name", "config", "sampler", "num_steps"), CASES)
def test_whole_runs(name, config, sampler, num_steps):
    keys = dj.sample_keys(0, 0, SHAPE[0])
    x = np.array(dj.initial_noise(keys, SHAPE[1:], jnp.float64))
    grid, alpha_bars, theirs = run_diffusers(name, config, x, keys, num_steps)
    table = sampler(schedules.from_alpha_bars(alpha_bars), grid)
    ours = np.asarray(dj.sample_trajectory(table, predict, x, keys).x)
    errors = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(ours, theirs, strict=True)]
    assert np.max(errors) <= 1e-9
    assert table.num_rows == num_steps


def network(sin, x, t):
    return 0.6 * sin(2 * x) + 0.3 * x + t / 2000


@jax.tree_util.Partial
def predict(x, t):
    return network(jnp.sin, x, t[:, None, None].astype(x.dtype))


def run_diffusers(name, config, x, keys, num_steps):
    """The grid, ᾱ and x at every point of a run by diffusers with float64 tables and formulas."""
    kind = getattr(diffusers, name)
    module = inspect.getmodule(kind)
    row = 0

    def normal(shape, **_):
        return torch.tensor(np.array(sample_noise(keys, row, shape[1:], jnp.float64)))

    with in_precision(module, "float64"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = kind(**config)
        scheduler.set_timesteps(num_steps)
        passed = [torch.tensor(x)]
        with mock.patch.object(module, "randn_tensor", normal, create=True):
            for row, t in enumerate(scheduler.timesteps):  # noqa: B007 (of `normal`)
                step = scheduler.step(network(torch.sin, passed[-1], t), t, passed[-1])
                passed.append(step.prev_sample)
    last = 999 if name == INVERSE else -1 if scheduler.sigmas[-1] == 0 else 0
    return [*scheduler.timesteps.tolist(), last], scheduler.alphas_cumprod.numpy(), [one.numpy() for one in passed]
