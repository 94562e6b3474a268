"""Every field of diffusers' DDPM and DDIM configs: the same trajectory as diffusers in float64, or one line.

The network is one function on both sides; schedule, timesteps, variance and clipping come from the config alone.
"""

import inspect
import itertools
import json
import shutil
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")

import diffjax as dj  # noqa: E402
from diffjax import interop, parameterization, timesteps  # noqa: E402
from diffjax.errors import UserError  # noqa: E402
from diffjax.noise import sample_noise  # noqa: E402
from diffjax.runs import Run, build, resolve  # noqa: E402

SHAPE = (2, 4, 4, 3)
KEYS = dj.sample_keys(0, 0, 2)
RUNS = ("DDIM", "DDIM keeping eps", "DDIM eta=0.5", "DDPM")
BETAS = np.linspace(1e-3, 0.05, 40).tolist()

# The values of each field, and the other fields that they need to have an effect.
FIELDS = {
    "num_train_timesteps": [{"num_train_timesteps": total} for total in (10, 37, 1000, 4000)],
    "beta_start": [{"beta_start": 1e-3}],
    "beta_end": [{"beta_end": 0.05}],
    "beta_schedule": [{"beta_schedule": name} for name in ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")],
    "trained_betas": [{"trained_betas": BETAS, "num_train_timesteps": 40}],
    "variance_type": [
        {"variance_type": variance, **spacing}
        for variance in ("fixed_small", "fixed_small_log", "fixed_large", "learned_range")
        for spacing in ({}, {"timestep_spacing": "trailing"}, {"steps_offset": 1}, {"timestep_spacing": "linspace"})
    ],
    "clip_sample": [{"clip_sample": clip} for clip in (True, False)],
    "clip_sample_range": [{"clip_sample_range": limit} for limit in (0.5, 2)],
    "prediction_type": [{"prediction_type": target} for target in ("epsilon", "sample", "v_prediction")],
    "thresholding": [
        {"thresholding": True},
        {"thresholding": True, "sample_max_value": 1.5, "clip_sample_range": 0.1},
        {"thresholding": True, "sample_max_value": 1.5, "clip_sample": False},
    ],
    "dynamic_thresholding_ratio": [
        {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": ratio}
        for ratio in (0.3, 0.9, 1.0)
    ],
    "sample_max_value": [{"thresholding": True, "sample_max_value": largest} for largest in (0.5, 1.2, 100, 1e39)],
    "timestep_spacing": [
        {"timestep_spacing": spacing, "num_train_timesteps": total}
        for spacing in ("leading", "trailing", "linspace")
        for total in (1000, 37)
    ],
    "steps_offset": [
        {"steps_offset": offset, "timestep_spacing": spacing}
        for offset in (1, 5, 99)
        for spacing in ("leading", "trailing", "linspace")
    ],
    "set_alpha_to_one": [
        {"set_alpha_to_one": False, "timestep_spacing": spacing, "steps_offset": offset}
        for spacing in ("leading", "trailing", "linspace")
        for offset in (0, 1)
    ],
    "rescale_betas_zero_snr": [
        {"rescale_betas_zero_snr": True, "timestep_spacing": spacing, "prediction_type": target}
        for spacing, target in (
            ("leading", "epsilon"),
            ("leading", "v_prediction"),
            ("trailing", "v_prediction"),
            ("trailing", "sample"),
            ("linspace", "v_prediction"),
        )
    ],
}
REFUSED = [
    ({"num_train_timesteps": 1000.5}, "num_train_timesteps=1000.5 must be a whole number"),
    ({"num_train_timesteps": 50, "trained_betas": BETAS}, "num_train_timesteps=50 must be the number of trained_betas"),
    ({"beta_start": 0.03}, "beta_start=0.03, beta_end=0.02"),
    ({"beta_end": None}, "beta_end=None must be a number within 0.0 … 1.0"),
    ({"beta_schedule": "laplace"}, "beta_schedule='laplace' is not one of 'linear'"),
    ({"trained_betas": {}}, "float"),
    ({"trained_betas": [0.1, 2.0], "num_train_timesteps": 2}, "betas"),
    ({"variance_type": "fixed_large_log"}, "variance_type='fixed_large_log' is not one of"),
    ({"variance_type": "learned"}, "variance_type='learned' is not one of"),
    ({"clip_sample": "yes"}, "clip_sample='yes' must be true or false"),
    ({"clip_sample_range": 0}, "clip_sample_range=0 must be a number"),
    ({"prediction_type": "flow"}, "prediction_type='flow' is not one of 'epsilon'"),
    ({"thresholding": 1}, "thresholding=1 must be true or false"),
    ({"dynamic_thresholding_ratio": 99.5}, "dynamic_thresholding_ratio=99.5 must be a number within 0.0 … 1.0"),
    ({"sample_max_value": 0}, "sample_max_value=0 must be a number within 1e-06"),
    ({"timestep_spacing": "karras"}, "timestep_spacing='karras' is not one of 'leading'"),
    ({"steps_offset": -1}, "steps_offset=-1 must be a whole number"),
    ({"set_alpha_to_one": None}, "set_alpha_to_one=None must be true or false"),
    ({"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, "rescale_betas_zero_snr=True .* 'v_prediction'"),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of a small UNet that predicts one image, and of one that also predicts a variance."""
    model = {"base_channels": 4, "channel_mults": (1,), "num_res_blocks": 1, "attention_levels": (), "num_groups": 2}
    made = {}
    for learned in (False, True):
        sections = {"model": model, "data": {"image_shape": SHAPE[1:]}, "train": {"vlb_weight": 0.001 * learned}}
        task = build.task(config := resolve.resolve(sections))
        params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), build.params_shape(task))
        made[learned] = interop.export(tmp_path_factory.mktemp("net") / "net", Run(config, task, params))
    return made


@pytest.fixture
def load(folders, tmp_path):
    """A function: a scheduler's config → the run of a folder with it."""

    def load(config):
        folder = tmp_path / "net"
        shutil.copytree(folders[config.get("variance_type") == "learned_range"], folder, dirs_exist_ok=True)
        (folder / "scheduler/scheduler_config.json").write_text(json.dumps({"_class_name": "DDIMScheduler"} | config))
        return interop.load(folder)

    return load


def network(module, x, t):
    """The output of the network, of NumPy's kind or PyTorch's."""
    return 0.8 * module.sin(1.7 * x + 0.01 * t) + 0.6 * x


def variance(module, x, t):
    return module.cos(2.0 * x - 0.02 * t)


@jax.tree_util.Partial
def in_jax(x, t):
    return network(jnp, x, t.reshape(-1, 1, 1, 1))


@jax.tree_util.Partial
def in_jax_with_variance(x, t):
    t = t.reshape(-1, 1, 1, 1)
    return jnp.concatenate([network(jnp, x, t), variance(jnp, x, t)], axis=-1)


def ours(run, kind, num_steps):
    """The result of a run from the given noise, sampled as `kind` describes."""
    sampler = kind.split()[0].lower()
    options = {"sampler": sampler, "num_steps": num_steps}
    options |= {"rederive_eps": False} if "keeping" in kind else {}
    options |= {"eta": 0.5} if "eta" in kind else {}
    run = run.with_options(**options)
    predict = in_jax_with_variance if run.task.variance else in_jax
    predict = parameterization.from_target(predict, run.schedule, run.task.objective.target, variance=run.task.variance)
    return np.asarray(dj.sample(run.sampler, predict, start(), KEYS, clip=run.clip))


def theirs(config, kind, num_steps):
    """The same by diffusers, with its formulas in float64."""
    parallel = "Parallel" * ("Parallel" in config.get("_class_name", ""))
    made = scheduler(f"{'DDPM' if kind == 'DDPM' else 'DDIM'}{parallel}Scheduler", config)
    made.set_timesteps(num_steps)
    x = torch.tensor(np.asarray(start())).permute(0, 3, 1, 2)
    learned = config.get("variance_type") == "learned_range"
    for row, t in enumerate(made.timesteps):
        noise = torch.tensor(np.asarray(sample_noise(KEYS, row, SHAPE[1:], jnp.float64))).permute(0, 3, 1, 2)
        output = network(torch, x, float(t))
        if kind == "DDPM":
            output = torch.cat([output, variance(torch, x, float(t))], dim=1) if learned else output
            with mock.patch.object(inspect.getmodule(type(made)), "randn_tensor", return_value=noise):
                x = made.step(output, t, x).prev_sample
        else:
            eta, kept = 0.5 if "eta" in kind else 0.0, "keeping" in kind
            x = made.step(output, t, x, eta=eta, use_clipped_model_output=not kept, variance_noise=noise).prev_sample
    return x.permute(0, 2, 3, 1).numpy()


class Float64:
    """`torch`, in which float32 is float64."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def scheduler(name, config):
    """A scheduler of diffusers with tables in float64, which it would otherwise round to float32."""
    kind = getattr(diffusers, name)
    known = inspect.signature(kind).parameters
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with mock.patch.object(inspect.getmodule(kind), "torch", Float64()):
            return kind(**{field: value for field, value in config.items() if field in known})
    finally:
        torch.set_default_dtype(before)


def start():
    return jax.random.normal(jax.random.key(1), SHAPE, jnp.float64)


def difference(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def check_trajectories(run, config, num_steps=10, kinds=RUNS):
    for kind in kinds:
        if kind != "DDPM" and config.get("beta_schedule") in ("sigmoid", "laplace"):
            continue  # only DDPM's schedulers have them
        assert difference(ours(run, kind, num_steps), theirs(config, kind, num_steps)) < 1e-9, kind


def test_every_field_of_the_installed_diffusers_is_decided():
    """Fails for a diffusers with another field: add its values above, and read it in `interop`."""
    kinds = (diffusers.DDPMScheduler, diffusers.DDIMScheduler)
    assert set(FIELDS) == {name for kind in kinds for name in inspect.signature(kind).parameters}
    assert set(FIELDS) == {name for fields, _ in REFUSED for name in fields} - {"_class_name"}
    defaults = {name: p.default for kind in kinds for name, p in inspect.signature(kind).parameters.items()}
    assert defaults == interop.diffusers.schedulers.DEFAULTS


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "config", [pytest.param(c, id=f"{f}-{i}") for f, cs in FIELDS.items() for i, c in enumerate(cs)]
)
def test_field(config, load):
    check_trajectories(load(config), config)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "config",
    [
        {"_class_name": "DDPMScheduler", "beta_schedule": "laplace"},
        {
            "_class_name": "DDPMParallelScheduler",
            "beta_schedule": "laplace",
            "variance_type": "fixed_large",
            "steps_offset": 1,
        },
        {"_class_name": "DDIMParallelScheduler", "set_alpha_to_one": False, "clip_sample_range": 0.5},
        {"_class_name": "DDIMParallelScheduler", "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    ],
)
def test_parallel_schedulers_and_the_laplace_schedule(config, load):
    check_trajectories(load(config), config, kinds=("DDIM", "DDPM"))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("field", FIELDS)
def test_every_field_matters(field, load):
    """A trajectory changes with each field, so that the comparison above would find one that is ignored."""
    differences = []
    for config in FIELDS[field]:
        rest = {name: value for name, value in config.items() if name != field}
        rest |= {"num_train_timesteps": 40} if field == "trained_betas" else {}
        for kind in ("DDIM keeping eps", "DDPM"):
            if config.get("beta_schedule") != "sigmoid" or kind == "DDPM":
                differences.append(difference(theirs(config, kind, 10), theirs(rest, kind, 10)))
    assert max(differences) > 1e-6


@pytest.mark.parametrize(("config", "words"), REFUSED)
def test_refused(config, words, load):
    with pytest.raises(UserError, match=rf"scheduler_config.json: .*{words}") as caught:
        load(config)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("num_steps", [1, 7, 10, 23, 40])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps(spacing, num_steps, load):
    for offset, to_one, clip in itertools.product((0, 1, 3), (True, False), (True, False)):
        config = {
            "num_train_timesteps": 40,
            "timestep_spacing": spacing,
            "steps_offset": offset,
            "set_alpha_to_one": to_one,
            "clip_sample": clip,
        }
        run = load(config)
        try:
            theirs(config, "DDIM", num_steps)
        except IndexError:  # the offset leads beyond T - 1
            with pytest.raises(UserError, match=rf"config.sample.offset: {offset} puts index"):
                run.with_options(num_steps=num_steps)
            continue
        check_trajectories(run, config, num_steps, ("DDIM", "DDIM keeping eps", "DDPM"))


def test_numbers_of_steps_that_diffusers_exceeds_are_refused(load):
    run, refused = load({"num_train_timesteps": 1000, "timestep_spacing": "trailing"}), 0
    made = scheduler("DDIMScheduler", {"num_train_timesteps": 1000, "timestep_spacing": "trailing"})
    for num_steps in range(1, 1001):
        made.set_timesteps(num_steps)
        if len(made.timesteps) == num_steps:
            grid = timesteps.trailing(1000, num_steps, as_diffusers=True)
            assert grid[:-1].tolist() == made.timesteps.tolist()
            continue
        refused += 1
        with pytest.raises(ValueError, match=f"^num_steps={num_steps} makes {len(made.timesteps)} steps in diffusers"):
            timesteps.trailing(1000, num_steps, as_diffusers=True)
    assert refused == 62
    with pytest.raises(
        UserError, match="^config.sample.num_steps: 61 makes 62 steps in diffusers, the last from index"
    ):
        run.with_options(num_steps=61)
    assert run.with_options(num_steps=61, as_diffusers=False).sampler.num_rows == 61
