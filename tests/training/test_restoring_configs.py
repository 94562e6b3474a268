"""From a config to a task that restores, and through training."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffjax as dj
from diffjax import data
from diffjax.errors import UserError
from diffjax.tasks.generation import normalize
from diffjax.training import ema, restoration, run_config, setup, state, trained
from diffjax.training.checkpoints import Checkpoints
from diffjax.training.loop import train

SR3 = {"task__name": "super_resolution", "data__degradation.kinds": ("area",), "data__degradation.factor": 2}
ODD = {
    "data__degradation.kinds": ("gaussian",), "data__image_shape": (7, 5, 1), "data__fit": "crop",
    "model__multipliers": (1, 1), "train__loss": "l1",
}  # fmt: skip
DEBLUR = {"task__name": "deblurring", "data__degradation.kinds": ("motion", "gaussian"), "train__loss": "l1"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"task__name": "inpainting"}, "config.task.name: 'inpainting' is not one of 'generation', 'super_resolution'"),
        (SR3 | {"task__told": "gamma"}, "config.task.told: 'gamma' is not one of 't', 'sqrt_alpha_bar'"),
        (SR3 | {"task__drawn": "t"}, "config.task.drawn: 't' is not one of 'sqrt_alpha_bar', 'alpha_bar'"),
        (SR3 | {"task__level_scale": 0.0}, "config.task.level_scale: 0.0 must be > 0"),
        (
            SR3 | {"model__num_classes": 10},
            "config.model.num_classes: 10 must be None: super_resolution knows no classes",
        ),
        (SR3 | {"train__hybrid": 0.1}, "config.train.hybrid: 0.1 must be 0"),
        (SR3 | {"train__target": "v"}, "config.train.target: 'v' must be 'eps' for super_resolution"),
        (SR3 | {"train__weighting": "min_snr"}, "config.train.weighting: 'min_snr' must be 'simple'"),
        (SR3 | {"train__offset_noise": 0.1}, "config.train.offset_noise: 0.1 must be 0"),
        (SR3 | {"data__degradation.kinds": ()}, r"config.data.degradation: kinds=\(\) must name one or more"),
        (
            SR3 | {"data__degradation.factor": 3},
            "config.data.degradation: an image of 8×8 cannot be made 3 times smaller",
        ),
        (SR3 | {"sample__num_timesteps": 5}, "config.sample.beta_end: None, but num_timesteps is set: give all three"),
        (SR3 | {"task__told": "t", "sample__beta_end": 0.1}, "config.sample.beta_end: 0.1 must be None: a network"),
        ({"sample__beta_end": 0.1}, "config.sample.beta_end: 0.1 must be None: a network that is told t"),
        (
            {"data__degradation.kinds": ("area",)},
            r"config.data.degradation.kinds: \('area',\) must be \(\): generation",
        ),
        (DEBLUR | {"model__attention_resolutions": (8,)}, r"config.model.attention_resolutions: \(8,\) must be \(\)"),
        (
            DEBLUR | {"data__degradation.sigma": (1.0, 2.0), "data__resident": True},
            "config.data.degradation: kinds=.* leaves something to chance",
        ),
        (SR3 | {"data__turn": True, "data__resident": True}, "config.data: turn=True needs resident=False"),
    ],
)
def test_bad_field(refused, fields, words):
    refused(fields, words)


def test_generation_is_refused_a_network_that_restores(tiny_config):
    experiment = setup.experiment(tiny_config(**SR3))
    with pytest.raises(UserError, match="experiments/restore.py asks it"):
        setup.predictor(experiment, {})


def test_inference_schedule(tiny_config):
    fields = {"sample__num_timesteps": 7, "sample__beta_start": 0.1, "sample__beta_end": 0.7, "sample__steps": 7}
    experiment = setup.experiment(tiny_config(**SR3, **fields))
    assert experiment.schedule.num_timesteps == 20
    np.testing.assert_allclose(experiment.sampled.betas, np.linspace(0.1, 0.7, 7))
    np.testing.assert_allclose(experiment.steps.signal, experiment.sampled.sqrt_alpha_bars[::-1])


def test_a_workdir_of_before_goes_on(tiny_config, tmp_path):
    """A config that was saved without the fields of these tasks is the same config."""
    run_config.save(tiny_config(), tmp_path)
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    for section, fields in (("data", ("turn", "cached", "degradation", "conditions")), ("sample", ("num_timesteps",))):
        for field in fields:
            del saved[section][field]
    del saved["task"]
    path.write_text(json.dumps(saved))
    run_config.save(tiny_config(), tmp_path)
    config = run_config.load(tmp_path)
    experiment = setup.experiment(config)
    setup.objective(config, experiment)
    assert setup.training(config, experiment.image_shape, 1).degrade is None
    with pytest.raises(UserError, match="config.task.name is 'super_resolution' but was None|but was 'generation'"):
        run_config.save(tiny_config(**SR3), tmp_path)


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize(
    "fields",
    [
        SR3 | {"data__resident": True},
        ODD | {"task__name": "super_resolution"},
        pytest.param(ODD | {"task__name": "deblurring", "task__predictor_channels": 12}, marks=pytest.mark.slow),
    ],
)
def test_train_and_restore(tiny_config, tmp_path, fields):
    config = tiny_config(**fields, train__steps=3, train__sample_every=2, data__holdout=0.1)
    done = train(config, tmp_path, progress=False)
    assert np.isfinite([leaf.sum() for leaf in jax.tree.leaves(done.params)]).all()
    assert len(list((tmp_path / "samples").glob("*.png"))) == 1
    experiment = setup.experiment(config)
    training = setup.training(config, experiment.image_shape, 8)
    shown = restoration.examples(config, training)
    shape = (8, *config.data.image_shape)
    assert shown["condition"].shape == shown["image"].shape == shape
    restore = restoration.restorer(experiment, done.params)
    image = restore(normalize(jnp.asarray(shown["condition"])), dj.sample_keys(0, 0, 8))
    assert image.shape == shape
    assert np.isfinite(image).all()


@pytest.fixture
def regression(tiny_config, tmp_path):
    """A workdir of a network whose average is not its parameters, and the average."""
    workdir = tmp_path / "regression"
    config = tiny_config(**DEBLUR | {"task__name": "regression"})
    experiment = setup.experiment(config)
    shapes, rng = experiment.params_shape, np.random.default_rng(0)
    params, average = (
        jax.tree.map(lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), leaf.dtype), shapes) for _ in range(2)
    )
    begun = state.create(lambda key: params, optax.identity(), jax.random.key(0), ema_decays=(0.995,))
    run_config.save(config, workdir)
    with Checkpoints(workdir, keep=1) as checkpoints:
        checkpoints.save(begun.replace(ema_params={0.995: average}), {})
    return workdir, average


def equal(found, wanted):
    return all(np.array_equal(*pair) for pair in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True))


def test_a_predictor_begins_as_the_average_of_a_regression(tiny_config, tmp_path, regression):
    workdir, average = regression
    config = tiny_config(**DEBLUR, task__predictor_workdir=str(workdir))
    experiment = setup.experiment(config)
    found = trained.predictor(config, experiment, tmp_path / "run")
    assert equal(found, average)
    shapes = jax.eval_shape(lambda key: setup.init(experiment, key, predictor=found), jax.random.key(0))
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, experiment.params_shape)


@pytest.mark.parametrize("frozen", [True, False])
def test_what_is_frozen_does_not_decay(tiny_config, frozen):
    """Nor does its average drift."""
    config = tiny_config(**DEBLUR, task__frozen=frozen)
    params = {name: {"kernel": jnp.linspace(0.1, 1.7, 50)} for name in ("predictor", "denoiser")}
    optimizer = restoration.freeze(config, optax.adamw(0.1, weight_decay=0.1))
    opt_state, moved, averages = optimizer.init(params), params, {0.9: params}
    for step in range(3):
        gradient = {"predictor": jax.tree.map(jnp.zeros_like, params["predictor"]), "denoiser": params["denoiser"]}
        updates, opt_state = optimizer.update(gradient, opt_state, moved)
        moved = optax.apply_updates(moved, updates)
        averages = ema.update(averages, moved, jnp.int32(step))
    assert equal(moved["predictor"], params["predictor"]) == frozen
    assert equal(averages[0.9]["predictor"], params["predictor"]) == frozen
    assert not equal(averages[0.9]["denoiser"], params["denoiser"])


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("frozen", [True, False])
def test_training_from_a_trained_predictor(tiny_config, tmp_path, regression, frozen):
    """Frozen, it stays what the regression's average was, to the bit; else it moves a little from there."""
    workdir, average = regression
    fields = DEBLUR | {"task__predictor_workdir": str(workdir), "task__frozen": frozen, "optimizer__name": "adamw"}
    config = tiny_config(**fields, train__steps=3)
    done = train(config, tmp_path / "run", progress=False)
    for found in (done.params["predictor"], done.ema_params[0.995]["predictor"]):
        assert equal(found, average) == frozen
        jax.tree.map(lambda new, old: np.testing.assert_allclose(new, old, rtol=0, atol=0.02), found, average)
    assert np.abs(done.params["denoiser"]["conv_out"]["bias"]).min() > 0
    # What goes on needs it no longer.
    workdir.rename(tmp_path / "elsewhere")
    assert trained.predictor(config, setup.experiment(config), tmp_path / "run") is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            DEBLUR | {"task__frozen": True, "task__predictor_workdir": ""},
            "config.task.frozen: True needs config.task.pr",
        ),
        (
            DEBLUR | {"task__predictor_workdir": "nowhere"},
            "config.task.predictor_workdir: nowhere/config.json is not t",
        ),
        (SR3, "config.task.predictor_workdir: '.*' must be None: super_resolution has no predictor"),
        (DEBLUR | {"task__predictor_channels": 16, "model__groups": 8}, "channels=8, must be 16, groups=4, must be 8$"),
    ],
)
def test_a_predictor_that_does_not_fit(tiny_config, tmp_path, refused, fields, words):
    run_config.save(tiny_config(**DEBLUR | {"task__name": "regression"}), tmp_path / "regression")
    refused({"task__predictor_workdir": str(tmp_path / "regression")} | fields, words)


def test_a_predictor_of_another_task(tiny_config, tmp_path, refused):
    run_config.save(tiny_config(**SR3), tmp_path / "sr3")
    fields = DEBLUR | {"task__predictor_workdir": str(tmp_path / "sr3")}
    refused(fields, "holds super_resolution; it must be a regression")


def test_a_source_of_pairs_needs_no_degradation(tiny_config):
    config = tiny_config(**DEBLUR | {"data__degradation.kinds": ()})
    image = np.zeros((8, 8, 1), np.uint8)
    assert restoration.degrade(config, {"image": image, "label": 0, "condition": image}, data.prepare) is None
