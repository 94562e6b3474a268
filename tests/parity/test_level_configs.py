"""Folders with diffusers' schedulers of EDM and of rectified flow, and with its inverse and parallel ones.

Every field: whole runs as diffusers makes them in float64, or one line.
"""

import dataclasses
import inspect
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")

from pinned_loops import Draws, drawing, in_precision  # noqa: E402

import diffjax as dj  # noqa: E402
from diffjax import interop, loop, models, samplers  # noqa: E402
from diffjax.errors import UserError  # noqa: E402
from diffjax.interop.diffusers_levels import FIELDS  # noqa: E402
from diffjax.runs import Run, build, resolve  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*is not as it was exported:UserWarning")  # the config of the scheduler

SHAPE = (2, 4, 4, 3)
STEPS = 10
EDM, DPM, FLOW = "EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "FlowMatchEulerDiscreteScheduler"
OF_EDM = [
    {},
    {"sigma_min": 0.01, "sigma_max": 40.0, "rho": 5.0},
    {"sigma_data": 0.8, "sigma_schedule": "exponential", "num_train_timesteps": 100},
    {"final_sigmas_type": "sigma_min"},
]
CASES = [
    *((EDM, config) for config in OF_EDM),
    *((DPM, config) for config in OF_EDM),
    *((DPM, {"solver_order": order, "solver_type": "heun"}) for order in (1, 2, 3)),
    (DPM, {"solver_order": 3, "final_sigmas_type": "sigma_min", "lower_order_final": False}),
    (DPM, {"final_sigmas_type": "sigma_min", "lower_order_final": False, "euler_at_final": True}),
    (DPM, {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.8}),
    (DPM, {"algorithm_type": "sde-dpmsolver++"}),
    (DPM, {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun", "sigma_schedule": "exponential"}),
    (FLOW, {}),
    (FLOW, {"shift": 3.0}),
    (FLOW, {"shift": 1.5, "num_train_timesteps": 400}),
    (FLOW, {"shift": 2.0, "shift_terminal": 0.1}),
    (FLOW, {"use_karras_sigmas": True, "shift": 3.0}),
    (FLOW, {"use_exponential_sigmas": True}),
    (FLOW, {"use_beta_sigmas": True, "shift_terminal": 0.05}),
    # These belong to dynamic shifting alone.
    (FLOW, {"base_shift": 0.1, "max_shift": 2.0, "base_image_seq_len": 1, "time_shift_type": "linear"}),
]
REFUSED = [
    (EDM, {"prediction_type": "v_prediction"}, "prediction_type='v_prediction' is not one of 'epsilon'"),
    (EDM, {"sigma_min": 90.0}, "sigma_min=90.0 must be below sigma_max=80.0"),
    (EDM, {"sigma_max": None}, "sigma_max=None must be a number within 1e-07"),
    (EDM, {"sigma_data": 0}, "sigma_data=0 must be a number within 0.001"),
    (EDM, {"sigma_schedule": "beta"}, "sigma_schedule='beta' is not one of 'karras', 'exponential'"),
    (EDM, {"rho": "7"}, "rho='7' must be a number within 0.001"),
    (EDM, {"num_train_timesteps": 1}, "num_train_timesteps=1 must be a whole number within 2"),
    (EDM, {"final_sigmas_type": "one"}, "final_sigmas_type='one' is not one of"),
    (DPM, {"solver_order": 4}, "solver_order=4 is not one of 1, 2, 3"),
    (DPM, {"algorithm_type": "deis"}, "algorithm_type='deis' is not one of 'dpmsolver"),
    (DPM, {"solver_type": "bh1"}, "solver_type='bh1' is not one of 'midpoint', 'heun'"),
    (DPM, {"euler_at_final": 1}, "euler_at_final=1 must be true or false"),
    (DPM, {"dynamic_thresholding_ratio": 2}, "dynamic_thresholding_ratio=2 must be a number"),
    (DPM, {"solver_order": 3, "algorithm_type": "sde-dpmsolver++"}, "solver_order=3 with algorithm_type='sde"),
    (FLOW, {"use_dynamic_shifting": True}, "use_dynamic_shifting=True is not one of False"),
    (FLOW, {"invert_sigmas": True}, "invert_sigmas=True is not one of False"),
    (FLOW, {"stochastic_sampling": True}, "stochastic_sampling=True is not one of False"),
    (FLOW, {"shift": 0.5}, "shift=0.5 must be a number within 1.0"),
    (FLOW, {"shift_terminal": 1.5}, "shift_terminal=1.5 must be null or a number within 0"),
    (FLOW, {"use_karras_sigmas": True, "use_beta_sigmas": True}, "use_karras_sigmas=True and use_beta_sigmas=True"),
    ("FlowMatchHeunDiscreteScheduler", {}, "_class_name='FlowMatchHeunDiscreteScheduler' is not one of"),
    ("DDIMInverseScheduler", {"timestep_spacing": "linspace"}, "timestep_spacing='linspace' is not one of 'leading'"),
    ("DDIMInverseScheduler", {"beta_schedule": "sigmoid"}, "beta_schedule='sigmoid' is not one of 'linear'"),
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
        (copy / "scheduler/scheduler_config.json").write_text(json.dumps({"_class_name": name} | config))
        return interop.load(copy)

    return load


def network(module, x, t):
    """The output of the network, of NumPy's kind or PyTorch's."""
    return 0.8 * module.sin(1.7 * x + 0.01 * t) + 0.6 * x


@jax.tree_util.Partial
def in_jax(x, t):
    return network(jnp, x, t.astype(x.dtype).reshape(-1, 1, 1, 1))


def predictor(run, monkeypatch):
    """The run's predictor, around the network of this test."""
    monkeypatch.setattr(models, "predictor", lambda *_, **__: in_jax)
    return run.predictor()


def start():
    return np.asarray(jax.random.normal(jax.random.key(1), SHAPE, jnp.float64))


def theirs(name, config, x):
    """Returns (what diffusers makes of x `[B, H, W, C]`, the z of each call), in float64."""
    kind = getattr(diffusers, name)
    module, draws = inspect.getmodule(kind), Draws(seed=0)
    with in_precision(module, "float64"), drawing(module, draws):
        made = kind(**config)
        made.set_timesteps(STEPS)
        x = torch.tensor(x).permute(0, 3, 1, 2) * getattr(made, "init_noise_sigma", 1.0)
        for t in made.timesteps:
            scaled = made.scale_model_input(x, t) if hasattr(made, "scale_model_input") else x
            x = made.step(network(torch, scaled, float(t)), t, x, return_dict=False)[0]
            draws.call += 1
    if name in (EDM, DPM):
        x = x / np.sqrt(1.0 + float(made.sigmas[-1]) ** 2)
    return x.permute(0, 2, 3, 1).numpy(), [z.transpose(0, 2, 3, 1) for _, z in sorted(draws.drawn.items())]


def difference(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "config"), CASES)
def test_whole_run(name, config, load, monkeypatch):
    run = load(name, config).with_options(num_steps=STEPS)
    expected, draws = theirs(name, config, start())
    keys = None
    if run.sampler.is_stochastic:
        rows = jnp.asarray(np.stack(draws))
        monkeypatch.setattr(loop, "sample_noise", lambda keys, row, shape, dtype: rows[row].astype(dtype))
        loop.scan.clear_cache()  # the noise is a constant of the compiled loop
        keys = dj.sample_keys(0, 0, len(start()))
    found = dj.sample(run.sampler, predictor(run, monkeypatch), jnp.asarray(start()), keys, clip=run.clip)
    assert difference(np.asarray(found), expected) < 1e-9


@pytest.mark.parametrize(("name", "config", "words"), REFUSED)
def test_refused(name, config, words, load):
    with pytest.raises(UserError, match=f"scheduler_config.json: .*{words}") as caught:
        load(name, config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_known(name):
    """Fails for a diffusers with another field: honour it, or let it have its default only."""
    known = inspect.signature(inspect.unwrap(getattr(diffusers, name).__init__)).parameters
    assert {field: parameter.default for field, parameter in known.items() if field != "self"} == FIELDS[name]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"beta_start": 1e-3, "beta_schedule": "scaled_linear", "clip_sample_range": 0.8},
        {"beta_schedule": "squaredcos_cap_v2", "clip_sample": False},
        {"trained_betas": np.linspace(1e-3, 0.05, 40).tolist(), "num_train_timesteps": 40},
        {"prediction_type": "v_prediction"},
        {"prediction_type": "sample", "timestep_spacing": "trailing", "set_alpha_to_one": False},
        {"steps_offset": 1, "set_alpha_to_one": False},
        {"set_alpha_to_one": False},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ],
)
def test_inverse_encodes_on_the_reversed_grid(config, load, monkeypatch):
    run = load("DDIMInverseScheduler", config).with_options(num_steps=STEPS)
    grid = run.sampler.grid[::-1].copy()
    grid[0] = -1 if config.get("set_alpha_to_one", True) else 0
    table = samplers.probability_flow(run.schedule, grid, network_at="destination")
    table = dataclasses.replace(table, rederive_eps=False)
    # The network's time is that of another level.
    predict = predictor(Run(run.config, run.task.at_level(), run.params), monkeypatch)
    found = dj.sample(table, predict, jnp.asarray(start()), clip=run.clip)
    expected, _ = theirs("DDIMInverseScheduler", config, start())
    assert difference(np.asarray(found), expected) < 1e-9
