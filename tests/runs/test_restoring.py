"""From a config to a task that restores images, and through training."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffjax as dj
from diffjax.data.pixels import to_float
from diffjax.errors import UserError
from diffjax.runs import build, resolve, saved
from diffjax.runs.run import Run
from diffjax.runs.train import examples, train
from diffjax.runs.train import initial_parts as initial_parts
from diffjax.training import ema, state
from diffjax.training.checkpoints import Checkpoints

TINY = {
    "schedule.num_timesteps": 20,
    "model.base_channels": 8,
    "model.channel_mults": (1,),
    "model.num_res_blocks": 1,
    "model.num_groups": 4,
    "model.attention_resolutions": (),
    "model.dropout": 0.0,
    "optimizer.warmup_steps": 2,
    "train.steps": 3,
    "train.batch_size": 8,
    "train.ema_decays": (0.995,),
    "train.sample_every": 2,
    "train.log_every": 1,
    "sample.num_steps": 5,
}
SR3 = {"task.name": "super_resolution", "data.degradation.kinds": ("area",), "data.degradation.factor": 2}
ODD = {
    "data.degradation.kinds": ("gaussian",), "data.image_shape": (7, 5, 1), "data.resize": "crop",
    "model.channel_mults": (1, 1), "train.loss_norm": "l1",
}  # fmt: skip
DEBLUR = {"task.name": "deblurring", "data.degradation.kinds": ("motion", "gaussian"), "train.loss_norm": "l1"}
REGRESSION = DEBLUR | {"task.name": "regression"}


def tiny_config(fields=None):
    """A config of the digits on a network that trains in seconds."""
    return resolve.override({}, TINY | (fields or {}))


@pytest.fixture
def refused(tmp_path, count_compilations):
    """A function: training with these fields is refused, in one line that says `words`, before anything is done."""

    def check(fields, words):
        with pytest.raises(UserError, match=words) as caught:
            train(tiny_config(fields), tmp_path / "run", progress=False)
        assert "\n" not in str(caught.value)
        assert count_compilations() == 0
        assert not (tmp_path / "run").exists()

    return check


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"task.name": "inpainting"}, "config.task.name: 'inpainting' must be one of .*'super_resolution'"),
        (SR3 | {"task.noise_conditioning": "gamma"}, "config.task.noise_conditioning: 'gamma' must be one of 't', 'sq"),
        (SR3 | {"task.noise_level_sampling": "t"}, "config.task.noise_level_sampling: 't' must be one of 'sqrt_alpha_"),
        (SR3 | {"task.noise_level_scale": 0.0}, "config.task.noise_level_scale: 0.0 must be a number > 0"),
        (SR3 | {"model.num_classes": 10}, "config.model.num_classes: 10 must be None for the task super_resolution"),
        (SR3 | {"train.vlb_weight": 0.1}, "config.train.vlb_weight: 0.1 must be 0.0 for the task super_resolution"),
        (SR3 | {"train.target": "v"}, "config.train.target: 'v' must be 'eps' for the task super_resolution, unless"),
        (SR3 | {"train.loss_weighting": "min_snr"}, "config.train.loss_weighting: 'min_snr' must be 'simple'"),
        (
            SR3 | {"train.timestep_sampling": "log_normal"},
            "config.train.timestep_sampling: 'log_normal' gives times between the timesteps, which a network that is not",
        ),
        (SR3 | {"train.offset_noise": 0.1}, "config.train.offset_noise: 0.1 must be 0"),
        (SR3 | {"data.degradation.kinds": ()}, r"config.data.degradation.kinds: \(\) must be one or more"),
        (
            SR3 | {"data.degradation.factor": 3},
            "config.data.degradation.factor: 3 must divide the height and width of ",
        ),
        (
            SR3 | {"sample.schedule.num_timesteps": 5, "sample.schedule.beta_end": 2.0},
            "config.sample.schedule.beta_start: .*beta_end=2.0 must satisfy",
        ),
        (
            SR3 | {"task.noise_conditioning": "t", "sample.schedule.beta_end": 0.1, "sample.schedule.num_timesteps": 5},
            "config.sample.schedule: must be None: a network that is conditioned on t",
        ),
        (
            {"sample.schedule.num_timesteps": 5},
            "config.sample.schedule: must be None: a network that is conditioned on",
        ),
        (
            {"data.degradation.kinds": ("area",)},
            r"config.data.degradation.kinds: \('area',\) must be \(\) for the task generation",
        ),
        (DEBLUR | {"model.attention_resolutions": (8,)}, r"config.model.attention_resolutions: \(8,\) must be \(\)"),
        (
            DEBLUR | {"data.degradation.sigma": (1.0, 2.0), "data.on_device": True},
            "config.data.degradation.kinds: .* is sampled at random, but",
        ),
        (SR3 | {"data.random_rot90": True, "data.on_device": True}, "config.data.random_rot90: True needs on_device=F"),
        (SR3 | {"task.frozen": True}, "config.task.frozen: True is given, but config.task has no such field of 'super"),
    ],
)
def test_bad_field(refused, fields, words):
    refused(fields, words)


def test_a_run_that_restores_does_not_generate():
    config = tiny_config(SR3)
    run = Run(config, build.task(config), params={})
    with pytest.raises(UserError, match="super-resolution needs image="):
        run.predictor()
    with pytest.raises(UserError, match="super-resolution needs image="):
        run.sample(1)
    config = tiny_config()
    with pytest.raises(UserError, match="generates images and restores none"):
        Run(config, build.task(config), params={}).restorer()


def test_inference_schedule():
    fields = {"num_timesteps": 7, "beta_start": 0.1, "beta_end": 0.7}
    config = tiny_config(SR3 | {f"sample.schedule.{name}": value for name, value in fields.items()})
    config = resolve.override(config, {"sample.num_steps": 7})
    task = build.task(config)
    how = build.sampling(config, task)
    assert task.schedule.num_timesteps == 20
    np.testing.assert_allclose(how.schedule.betas, np.linspace(0.1, 0.7, 7))
    np.testing.assert_allclose(how.sampler.signal, how.schedule.sqrt_alpha_bars[::-1])


def test_a_workdir_of_before_goes_on(tmp_path):
    """A config that was saved before there were such tasks, with the names of then, is the same config."""
    old = {
        "seed": 0,
        "data": {"source": "digits", "image_shape": [8, 8, 1], "fit": "exact", "flip": False, "resident": False},
        "schedule": {"name": "linear", "num_timesteps": 20, "offset": None},
        "model": {
            "channels": 8, "multipliers": [1], "num_res_blocks": 1, "groups": 4, "attention_resolutions": [],
            "dropout": 0.0,
        },
        "optimizer": {"warmup_steps": 2, "decay": "constant", "clip_norm": 1.0},
        "train": {
            "steps": 3, "batch_size": 8, "ema_decays": [0.995], "hybrid": 0.0, "loss": "l2", "steps_per_dispatch": 1,
            "sample_every": 2, "log_every": 1,
        },
        "sample": {"sampler": "ddim", "steps": 5, "grid": "trailing"},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(old))
    saved.save(tiny_config(), tmp_path)
    config = saved.load(tmp_path)
    assert build.training(config, build.task(config), 1).images.degrade is None
    with pytest.raises(UserError, match="config.task.name is 'super_resolution' but was 'generation'"):
        saved.save(tiny_config(SR3), tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(SR3 | {"data.on_device": True}, marks=pytest.mark.slow),
        pytest.param(ODD | {"task.name": "super_resolution"}, marks=pytest.mark.slow),
        SR3,
        pytest.param(ODD | {"task.name": "deblurring", "task.predictor_channels": 12}, marks=pytest.mark.slow),
    ],
)
def test_train_and_restore(tmp_path, fields):
    config = tiny_config(fields | {"data.holdout": 0.1})
    done = train(config, tmp_path, progress=False)
    assert np.isfinite([leaf.sum() for leaf in jax.tree.leaves(done.params)]).all()
    assert len(list((tmp_path / "samples").glob("*.png"))) == 1
    run = dj.runs.load(tmp_path)
    shown = examples(config, run.task, build.images(config))
    shape = (8, *config.data.image_shape)
    assert shown["condition"].shape == shown["image"].shape == shape
    image = run.restorer()(to_float(jnp.asarray(shown["condition"])), dj.sample_keys(0, 0, 8))
    assert image.shape == shape
    assert np.isfinite(image).all()


@pytest.fixture
def regression(tmp_path):
    """A workdir of a network whose average is not its parameters, and the average."""
    workdir = tmp_path / "regression"
    config = tiny_config(REGRESSION)
    shapes, rng = build.params_shape(build.task(config)), np.random.default_rng(0)
    params, average = (
        jax.tree.map(lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), leaf.dtype), shapes) for _ in range(2)
    )
    begun = state.create(lambda key: params, optax.identity(), jax.random.key(0), ema_decays=(0.995,))
    saved.save(config, workdir)
    with Checkpoints(workdir, keep=1) as checkpoints:
        checkpoints.save(begun.replace(ema_params={0.995: average}), {})
    return workdir, average


def equal(found, wanted):
    return all(np.array_equal(*pair) for pair in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True))


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_part_does_not_decay(frozen, regression):
    """Nor does its average change."""
    task = build.task(tiny_config(DEBLUR | {"task.frozen": frozen, "task.predictor_workdir": str(regression[0])}))
    params = {name: {"kernel": jnp.linspace(0.1, 1.7, 50)} for name in ("predictor", "denoiser")}
    optimizer = task.wrap_optimizer(optax.adamw(0.1, weight_decay=0.1))
    opt_state, moved, averages = optimizer.init(params), params, {0.9: params}
    for step in range(3):
        gradient = {"predictor": jax.tree.map(jnp.zeros_like, params["predictor"]), "denoiser": params["denoiser"]}
        updates, opt_state = optimizer.update(gradient, opt_state, moved)
        moved = optax.apply_updates(moved, updates)
        averages = ema.update(averages, moved, jnp.int32(step))
    assert equal(moved["predictor"], params["predictor"]) == frozen
    assert equal(averages[0.9]["predictor"], params["predictor"]) == frozen
    assert not equal(averages[0.9]["denoiser"], params["denoiser"])


def test_a_predictor_begins_as_the_average_of_a_regression(tmp_path, regression):
    workdir, average = regression
    task = build.task(tiny_config(DEBLUR | {"task.predictor_workdir": str(workdir)}))
    parts = initial_parts(task, tmp_path / "run")
    assert parts.keys() == {"predictor"}
    assert equal(parts["predictor"], average)
    shapes = jax.eval_shape(lambda key: task.init(key, **parts), jax.random.key(0))
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, build.params_shape(task))


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [True, False])
def test_training_from_a_trained_predictor(tmp_path, regression, frozen):
    """Frozen, it stays the regression's average, to the bit; otherwise it moves a little from there."""
    workdir, average = regression
    fields = {"task.predictor_workdir": str(workdir), "task.frozen": frozen, "optimizer.name": "adamw"}
    config = tiny_config(DEBLUR | fields)
    done = train(config, tmp_path / "run", progress=False)
    for found in (done.params["predictor"], done.ema_params[0.995]["predictor"]):
        assert equal(found, average) == frozen
        jax.tree.map(lambda new, old: np.testing.assert_allclose(new, old, rtol=0, atol=0.02), found, average)
    assert np.abs(done.params["denoiser"]["conv_out"]["bias"]).min() > 0
    # A run that resumes does not need the other run any more.
    workdir.rename(tmp_path / "elsewhere")
    assert initial_parts(build.task(config), tmp_path / "run") == {}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"task.frozen": True, "task.predictor_workdir": None},
            "config.task.frozen: True needs config.task.predictor_wo",
        ),
        ({"task.predictor_workdir": "nowhere"}, "config.task.predictor_workdir: nowhere does not exist; it must be"),
        ({"task.predictor_channels": 16}, "config.task.predictor_workdir: .* base_channels=8, must be 16$"),
        ({"model.num_groups": 8}, "config.task.predictor_workdir: .* num_groups=4, must be 8$"),
    ],
)
def test_a_predictor_that_does_not_fit(regression, refused, fields, words):
    refused(DEBLUR | {"task.predictor_workdir": str(regression[0])} | fields, words)


@pytest.fixture
def super_resolution(tmp_path):
    """A workdir of an untrained network of another task."""
    config = tiny_config(SR3)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), build.params_shape(build.task(config)))
    fresh = state.create(lambda key: zeros, optax.identity(), jax.random.key(0), ema_decays=(0.995,))
    saved.save(config, tmp_path / "sr3")
    with Checkpoints(tmp_path / "sr3", keep=1) as checkpoints:
        checkpoints.save(fresh, {})
    return tmp_path / "sr3"


def test_a_predictor_of_another_task(super_resolution, refused):
    fields = DEBLUR | {"task.predictor_workdir": str(super_resolution)}
    refused(fields, "holds a run of the task SuperResolution; it must be Regression")


def test_a_source_of_pairs_needs_no_degradation(tmp_path):
    for folder in ("sharp", "blur"):
        for n in range(3):
            dj.viz.save_png(tmp_path / folder / f"{n}.png", np.full((8, 8), 50 * n, np.uint8))
    source = {"data.source": "pairs", "data.path": str(tmp_path), "data.degradation.kinds": ()}
    assert build.images(tiny_config(DEBLUR | source)).degrade is None
