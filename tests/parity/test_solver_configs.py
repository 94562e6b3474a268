"""Every field of the configs of diffusers' solvers: whole runs as diffusers makes them in float64, or one line.

A folder with the config is loaded, and sampled by the sampler, grid, network times and clipping that it is loaded with.
"""

import inspect
import json
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")

from pinned_loops import Draws, drawing, in_precision  # noqa: E402

import diffjax as dj  # noqa: E402
from diffjax import interop, loop, parameterization  # noqa: E402
from diffjax.errors import UserError  # noqa: E402
from diffjax.interop.diffusers_solvers import SOLVERS  # noqa: E402
from diffjax.runs import Run, build, resolve  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*is not as it was exported:UserWarning")  # the config of the scheduler

SHAPE = (2, 4, 4, 3)
OF_SIGMA = ("Euler", "EulerAncestral", "Heun", "LMS", "KDPM2", "KDPM2Ancestral", "DPMSolverSDE")
BETAS = np.linspace(1e-3, 0.05, 40).tolist()

SCHEDULES = [
    {"num_train_timesteps": 400, "beta_end": 0.03},
    {"beta_start": 1e-3, "beta_schedule": "scaled_linear"},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"trained_betas": BETAS, "num_train_timesteps": 40},
    {"prediction_type": "v_prediction"},
    {"prediction_type": "sample"},
]
# With the cosine schedule this library's methods of two calls begin with one, where diffusers' numbers explode.
TWO_CALLS = [case for case in SCHEDULES[:-1] if case.get("beta_schedule") != "squaredcos_cap_v2"]
SPACED = [
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "linspace", "steps_offset": 3},
]
THRESHOLDS = [
    {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.8},
    {"thresholding": True, "sample_max_value": 0.7},
]
KARRAS, LOG_SNR, BETA = ({f"use_{name}_sigmas": True} for name in ("karras", "exponential", "beta"))
V = {"prediction_type": "v_prediction"}
CASES = {
    "DPMSolverMultistep": [
        *({"solver_order": 3, **more} for more in SCHEDULES),
        *SPACED,
        *THRESHOLDS,
        *({"solver_order": order, "solver_type": kind} for order in (1, 2, 3) for kind in ("midpoint", "heun")),
        *({"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "solver_order": o} for o in (1, 2, 3)),
        {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
        {"euler_at_final": True, "lower_order_final": False},
        *({**levels, **more} for levels in (KARRAS, LOG_SNR, BETA, {"use_lu_lambdas": True}) for more in ({}, V)),
        {"lambda_min_clipped": -5.1, "beta_schedule": "squaredcos_cap_v2"},
        {**KARRAS, "beta_schedule": "squaredcos_cap_v2"},
    ],
    "DPMSolverSinglestep": [
        *SCHEDULES,
        *THRESHOLDS,
        *({"solver_order": order, "solver_type": "midpoint"} for order in (1, 2, 3)),
        {"solver_type": "heun", "lower_order_final": True},
        {"final_sigmas_type": "sigma_min", "algorithm_type": "dpmsolver"},
        {**KARRAS, "final_sigmas_type": "sigma_min"},
        {**LOG_SNR, "lambda_min_clipped": -3.0},
        {**BETA, **V},
    ],
    "UniPCMultistep": [
        *({"solver_order": 3, **more} for more in SCHEDULES),
        *SPACED,
        *THRESHOLDS,
        *({"solver_order": o, "solver_type": k, "final_sigmas_type": "sigma_min"} for o in (1, 2) for k in ("bh1", "bh2")),
        {"predict_x0": False, "final_sigmas_type": "sigma_min"},
        {"disable_corrector": [0, 1]},
        {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
        *({**levels, "final_sigmas_type": final} for levels in (KARRAS, LOG_SNR) for final in ("zero", "sigma_min")),
        {**BETA, **V},
        {**KARRAS, "sigma_min": 0.05, "sigma_max": 30.0},
    ],
    "DEISMultistep": [*SCHEDULES, *SPACED, *THRESHOLDS, {"solver_order": 3}, {"lower_order_final": False}, KARRAS, LOG_SNR],
    "SASolver": [
        *SCHEDULES, *SPACED, *THRESHOLDS, {"predictor_order": 3, "corrector_order": 2}, {"predictor_order": 1},
        {"lower_order_final": False}, KARRAS, LOG_SNR, {"lambda_min_clipped": -3.0},
    ],
    "EulerDiscrete": [
        *SCHEDULES, *SPACED, *({**levels, **more} for levels in (KARRAS, LOG_SNR, BETA) for more in ({}, V)),
        {"final_sigmas_type": "sigma_min"}, {**KARRAS, "sigma_min": 0.05, "sigma_max": 30.0},
    ],
    "EulerAncestralDiscrete": [*SCHEDULES[:-1], *SPACED],
    "HeunDiscrete": [
        *TWO_CALLS, *SPACED, KARRAS, LOG_SNR, BETA, {"beta_schedule": "exp"},
        {"clip_sample": True, "clip_sample_range": 0.8},
    ],
    "LMSDiscrete": [*SCHEDULES, *SPACED, KARRAS, LOG_SNR, BETA],
    "KDPM2Discrete": [*TWO_CALLS, *SPACED, KARRAS, LOG_SNR, BETA],
    "KDPM2AncestralDiscrete": [*TWO_CALLS, *SPACED, KARRAS, LOG_SNR, BETA],
    "DPMSolverSDE": [*TWO_CALLS, *SPACED, KARRAS, LOG_SNR],
    "PNDM": [*SCHEDULES[:-1], {"set_alpha_to_one": True, "steps_offset": 1}, {"skip_prk_steps": True, "steps_offset": 1}],
}  # fmt: skip
REFUSED = [
    ("DPMSolverMultistep", {"use_flow_sigmas": True}, "use_flow_sigmas=True is not one of False"),
    ("DPMSolverMultistep", {"solver_order": 4}, "solver_order=4 is not one of 1, 2, 3"),
    ("DPMSolverMultistep", {"algorithm_type": "dpmsolver"}, "final_sigmas_type='zero' needs algorithm_type 'dpmsolver"),
    ("DPMSolverMultistep", {"variance_type": "learned_range"}, "variance_type='learned_range' is not one of None"),
    ("DPMSolverMultistep", {**KARRAS, **LOG_SNR}, "use_karras_sigmas=True and use_exponential_sigmas=True exclude"),
    ("DPMSolverMultistep", {"lower_order_final": 1}, "lower_order_final=1 must be true or false"),
    ("UniPCMultistep", {"solver_p": {}}, "solver_p={} is not one of None"),
    ("UniPCMultistep", {"disable_corrector": "all"}, "disable_corrector='all' must be a list"),
    ("UniPCMultistep", {**KARRAS, "sigma_min": "low"}, "sigma_min='low' must be a number"),
    ("DEISMultistep", {"solver_type": "midpoint"}, "solver_type='midpoint' is not one of 'logrho'"),
    ("SASolver", {"algorithm_type": "noise_prediction"}, "algorithm_type='noise_prediction' is not one of"),
    ("EulerDiscrete", {"interpolation_type": "log_linear"}, "interpolation_type='log_linear' is not one of 'linear'"),
    ("EulerDiscrete", {"timestep_type": "continuous"}, "timestep_type='continuous' is not one of 'discrete'"),
    ("EulerDiscrete", {"beta_schedule": "laplace"}, "beta_schedule='laplace' is not one of 'linear'"),
    ("UniPCMultistep", {"rescale_betas_zero_snr": True, **V}, "rescale_betas_zero_snr=True is not one of False"),
    ("HeunDiscrete", {"prediction_type": "sample"}, "prediction_type='sample' is not one of 'epsilon', 'v_prediction'"),
    ("PNDM", {"timestep_spacing": "trailing"}, "timestep_spacing='trailing' is not one of 'leading'"),
    ("PNDM", {"skip_prk_steps": True, **V}, "skip_prk_steps=True with prediction_type='v_prediction'"),
    ("LCM", {}, "_class_name='LCMScheduler' is not one of"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a small UNet."""
    model = {"base_channels": 4, "channel_mults": (1,), "num_res_blocks": 1, "attention_levels": (), "num_groups": 2}
    task = build.task(config := resolve.resolve({"model": model, "data": {"image_shape": SHAPE[1:]}}))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), build.params_shape(task))
    return interop.export(tmp_path_factory.mktemp("net") / "net", Run(config, task, params))


@pytest.fixture
def load(folder, tmp_path):
    """A function: the class and the config of a scheduler → the run of a folder with it."""

    def load(name, config):
        copy = tmp_path / "net"
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        full = {"_class_name": f"{name}Scheduler"} | config
        (copy / "scheduler/scheduler_config.json").write_text(json.dumps(full))
        return interop.load(copy)

    return load


def network(module, x, t):
    """The output of the network, of NumPy's kind or PyTorch's."""
    return 0.8 * module.sin(1.7 * x + 0.01 * t) + 0.6 * x


@jax.tree_util.Partial
def in_jax(x, t):
    return network(jnp, x, t.astype(x.dtype).reshape(-1, 1, 1, 1))


def theirs(name, config, num_steps, x):
    """Returns (what diffusers makes of x, the z of each call), in float64."""
    kind = getattr(diffusers, f"{name}Scheduler")
    module, draws = inspect.getmodule(kind), Draws(seed=0)
    with in_precision(module, "float64"), drawing(module, draws), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = kind(**config, **({"noise_sampler_seed": 0} if name == "DPMSolverSDE" else {}))
        made.set_timesteps(num_steps)
        x = torch.tensor(x).permute(0, 3, 1, 2)
        of_sigma = name.removesuffix("Discrete") in OF_SIGMA
        x = x * made.init_noise_sigma
        for t in made.timesteps:
            scaled = made.scale_model_input(x, t) if of_sigma else x
            x = made.step(network(torch, scaled, float(t)), t, x, return_dict=False)[0]
            draws.call += 1
        last = float(made.sigmas[-1]) if of_sigma else 0.0
    x = x / np.sqrt(1 + last**2) if of_sigma else x
    return x.permute(0, 2, 3, 1).numpy(), {row: z.transpose(0, 2, 3, 1) for row, z in draws.drawn.items()}


def ours(run, num_steps, x, draws, monkeypatch):
    """Returns what the run makes of the same noise."""
    run = run.with_options(num_steps=num_steps)
    target, exact = run.task.objective.target, run.config.sample.network_times == "exact"
    predict = in_jax
    if target != "eps":
        convert = {"v": parameterization.from_v, "x0": parameterization.from_x0}[target]
        predict = convert(in_jax, run.schedule) if exact else convert(in_jax)
    table = run.sampler
    zeros = np.zeros((1, *x.shape))
    rows = jnp.asarray(
        np.concatenate([zeros if row not in draws else draws[row][None] for row in range(table.num_rows)])
    )
    monkeypatch.setattr(loop, "sample_noise", lambda keys, row, shape, dtype: rows[row].astype(dtype))
    keys = None
    if table.is_stochastic:
        loop.scan.clear_cache()  # the noise is a constant of the compiled loop
        keys = dj.sample_keys(0, 0, len(x))
    return np.asarray(dj.sample(table, predict, jnp.asarray(x), keys, clip=run.clip))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "config"),
    [pytest.param(n, c, id=f"{n}-{i}") for n, cases in CASES.items() for i, c in enumerate([{}, *cases])],
)
def test_whole_run(name, config, load, monkeypatch):
    run = load(name, config)
    x = np.asarray(jax.random.normal(jax.random.key(1), SHAPE, jnp.float64))
    expected, draws = theirs(name, config, 10, x)
    table = run.with_options(num_steps=10).sampler
    start = x
    if name.removesuffix("Discrete") in OF_SIGMA:
        sigma = table.noise[0] / table.signal[0]
        known = config.get("timestep_spacing", "linspace") in ("linspace", "trailing")
        start = x * table.signal[0] * (sigma if known else np.sqrt(1 + sigma**2))
    if name == "DPMSolverSDE":
        draws = own_draws(table, draws)
    found = ours(run, 10, start, draws, monkeypatch)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-9


def own_draws(table, increments):
    """Returns each row's own z from the increments of a Brownian motion, both of which begin where a step begins."""
    draws = dict(increments)
    for row in range(1, table.num_rows, 2):
        here, middle = (table.noise[k] / table.signal[k] for k in (row - 1, row))
        part = (here - middle) / (here - table.noise_to[row] / table.signal_to[row])
        draws[row] = (increments[row] - np.sqrt(part) * increments[row - 1]) / np.sqrt(1 - part)
    return draws


def test_options_of_one_solver_are_not_those_of_another(load):
    run = load("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3})
    assert run.config.sample.eta == run.with_options(num_steps=10).config.sample.eta == 1.0
    changed = run.with_options(sampler="unipc")  # whose solver_type is another option
    assert (changed.config.sample.solver_type, changed.config.sample.order) == ("bh2", 2)


@pytest.mark.parametrize(("name", "config", "words"), REFUSED)
def test_refused(name, config, words, load):
    with pytest.raises(UserError, match=f"scheduler_config.json: .*{words}") as caught:
        load(name, config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SOLVERS)
def test_every_field_is_known(name):
    """Fails for a diffusers with another field: honour it, or let it have its default only."""
    known = inspect.signature(inspect.unwrap(getattr(diffusers, name).__init__)).parameters
    defaults = {field: parameter.default for field, parameter in known.items() if field != "self"}
    ours = dict(SOLVERS[name].fields)
    if "kwargs" in defaults:  # DPMSolverSDE, behind a decorator that hides its signature
        pytest.skip("diffusers hides the signature of this class")
    assert defaults == ours
