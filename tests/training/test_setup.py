"""Bad configs: one clear line that names the field, before any device work."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import process
from diffjax.errors import UserError
from diffjax.training import run_config, setup

GUIDED = {"model__num_classes": 10, "train__label_dropout": 0.1}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"schedule__name": "lineer"}, r"config.schedule: name='lineer' is not one of 'linear', 'cosine'"),
        ({"schedule__beta_start": 0.1, "schedule__beta_end": 0.05}, "config.schedule: .*beta_end=0.05: beta_end must exceed"),
        ({"schedule__name": "cosine", "schedule__beta_end": 0.05}, "config.schedule: beta_end=0.05 means nothing to 'cosine'"),
        ({"schedule__num_timesteps": 0}, "config.schedule: num_timesteps=0"),
        ({"schedule__name": "jsd"}, "config.schedule: 'jsd' ends at alpha_bar = 0"),
        ({"data__image_shape": (8, 8)}, r"config.data.image_shape: \(8, 8\) must be \(height, width, channels\)"),
        ({"sample__sampler": "dpm"}, "config.sample: sampler='dpm' is not one of 'ddpm', 'ddim', '"),
        ({"sample__grid": "log"}, "config.sample: grid='log'"),
        ({"sample__steps": 21}, "config.sample.steps: num_steps=21 is out of range: allowed is 1 … 20"),
        ({"sample__eta": 2.0}, "config.sample: eta=2.0"),
        ({"sample__variance": "learned"}, "config.sample: variance='learned' means nothing to 'ddim'"),
        ({"model__groups": 5}, "config.model: groups=5 does not divide 8 channels"),
        ({"data__source": "cats"}, "config.data: source='cats' is not one of 'digits'"),
        ({"data__image_shape": (16, 16, 1)}, r"config.data: with fit='exact', an image of shape \(8, 8, 1\) cannot be image_shape=\(16, 16, 1\)"),
        ({"data__fit": "stretch"}, "config.data: fit='stretch' is not one of 'exact', 'pad'"),
        ({"data__workers": -1}, "config.data: workers=-1 must be ≥ 0"),
        ({"data__resident": True, "data__crop": "random"}, "config.data: crop='random' needs resident=False"),
        ({"data__path": "x.npz"}, "config.data: path='x.npz' means nothing to 'digits': set it to None"),
        ({"data__source": "npz", "data__path": "x.npz"}, "config.data: path='x.npz' is no file"),
        ({"data__source": "folder", "data__path": "x", "data__images": ""}, "config.data: path='x' is no folder"),
        ({"data__source": "npz"}, "config.data: path=None: 'npz' needs it"),
        ({"sample__sampler": "ddpm", "sample__variance": "learned"}, "config.sample.variance: 'learned' needs a network"),
        ({"model__dtype": "flaot32"}, "config.model: dtype='flaot32' is not one of 'float32'"),
        ({"data__holdout": 0.9999}, "config.data: holdout=0.9999 leaves none of the 1797"),
        ({"data__holdout": 1.5}, "config.data: holdout=1.5"),
        ({"optimizer__name": "lion"}, "config.optimizer: name='lion' is not one of 'adam', 'adamw'"),
        ({"optimizer__decay": "poly"}, "config.optimizer: decay='poly'"),
        ({"optimizer__learning_rate": -1.0}, "config.optimizer: learning_rate=-1.0"),
        ({"train__batch_size": 12}, "config.train.batch_size: batch_size=12 must be a positive multiple of the 8 devices"),
        ({"train__batch_size": 1800}, "config.train.batch_size: batch_size=1800 exceeds the source's 1797 images"),
        ({"train__loss": "l3"}, "config.train.loss: loss='l3'"),
        ({"train__ema_decays": (0.9, 1.0)}, r"config.train.ema_decays: \(0.9, 1.0\)"),
        ({"train__ema_decays": (0.9, 0.9)}, r"config.train.ema_decays: \(0.9, 0.9\) must be one or more different"),
        ({"train__ema_decays": ()}, r"config.train.ema_decays: \(\)"),
        ({"train__target": "score"}, "config.train.target: target='score' is not one of 'eps', 'x0', 'v'"),
        ({"train__weighting": "snrr"}, "config.train.weighting: weighting='snrr' is not one of 'simple', 'snr'"),
        ({"train__weighting_gamma": 5.0}, "config.train.weighting: gamma=5.0"),
        ({"train__huber_delta": 0.0}, "config.train.huber_delta: 0.0 must be > 0"),
        ({"train__hybrid": -0.001}, "config.train.hybrid: -0.001 must be ≥ 0"),
        ({"train__offset_noise": -0.1}, "config.train.offset_noise: -0.1 must be ≥ 0"),
        ({"train__label_dropout": 0.1}, r"config.train.label_dropout: 0.1 needs classes \(config.model.num_classes is None\)"),
        ({"train__label_dropout": 1.0, "model__num_classes": 10}, r"config.train.label_dropout: 1.0 must be within \[0, 1\)"),
        ({"sample__guidance": 2.0}, r"config.sample.guidance: 2.0 needs classes \(config.model.num_classes is None\)"),
        ({"sample__guidance": 2.0, "model__num_classes": 10}, r"config.sample.guidance: 2.0 needs .*\(config.train.label_dropout is 0\)"),
        ({"sample__guidance": -1.0, **GUIDED}, "config.sample.guidance: -1.0 must be ≥ 0"),
        ({"sample__guidance_rescale": 0.5, **GUIDED}, "config.sample.guidance_rescale: 0.5 means nothing while config.sample.guidance is"),
        ({"sample__guidance": 2.0, "sample__guidance_interval": (3.0, 1.0), **GUIDED}, r"config.sample.guidance: interval=\(3.0, 1.0\)"),
        ({"sample__guidance": 2.0, "sample__guidance_interval": (3.0,), **GUIDED}, r"guidance_interval: \(3.0,\) must be two noise levels"),
        ({"train__timesteps": "random"}, "config.train.timesteps: timesteps='random' is not one of 'uniform', 'antith"),
        ({"train__accumulate": 0}, "config.train.accumulate: 0 must be a whole number ≥ 1"),
        ({"train__accumulate": 2}, "config.train.batch_size: batch_size=8 must be a positive multiple of the 8 devices times"),
        ({"train__steps_per_dispatch": 8}, "config.train.steps: 12 must be a multiple of config.train.steps_per_dispatch=8"),
        ({"train__max_skipped": -1}, "config.train.max_skipped: -1 must be a whole number ≥ 0"),
        ({"train__hybrid": 0.001, "sample__sampler": "ddpm", "sample__variance": "learned"}, "allowed for this one are .*'learned_range'"),
        ({"train__log_every": 0}, "config.train.log_every: 0 must be a whole number ≥ 1"),
    ],
)  # fmt: skip
def test_bad_field(refused, fields, words):
    refused(fields, words)


def test_the_default_config_is_good(tiny_config):
    experiment = setup.experiment(tiny_config())
    assert experiment.schedule.num_timesteps == 20
    assert experiment.steps.num_steps == 5
    assert setup.training(tiny_config(), experiment.image_shape, 8).source[0]["image"].shape == (8, 8, 1)


def answer(config, images):
    """What samplers hear of a network whose last layer gives `images` `[…, C]` everywhere."""
    experiment = setup.experiment(config)
    params = setup.init_params(experiment.model, experiment.image_shape, jax.random.key(0))
    params["conv_out"]["kernel"] *= 0
    params["conv_out"]["bias"] = jnp.asarray(images)
    predict = setup.predictor(experiment, params)
    x, t = jnp.full((2, 8, 8, 1), 0.3), jnp.array([4, 4])
    return experiment.schedule, x, predict(x, t)


def test_samplers_hear_the_same_of_every_kind_of_network(tiny_config):
    schedule, x, eps = answer(tiny_config(), [0.5])
    np.testing.assert_allclose(eps, 0.5)
    x0 = process.predict_x0(schedule, x, 4, eps)
    v = process.predict_v(schedule, x0, 4, eps)
    for target, value in (("eps", 0.5), ("x0", float(x0[0, 0, 0, 0])), ("v", float(v[0, 0, 0, 0]))):
        _, _, learned = answer(tiny_config(train__target=target, train__hybrid=0.001), [value, 0.4])
        np.testing.assert_allclose(learned.log_var_frac, 0.7, rtol=1e-6)
        parts = [learned]
        if target != "eps":
            parts.append(answer(tiny_config(train__target=target), [value])[2])
        for part in parts:
            np.testing.assert_allclose(part.eps, 0.5, rtol=1e-4)
            np.testing.assert_allclose(part.x0, x0, rtol=1e-4)


def test_learned_variance_can_be_sampled_with_and_without(tiny_config):
    fields = {"train__hybrid": 0.001, "sample__sampler": "ddpm"}
    assert setup.experiment(tiny_config(**fields, sample__variance="learned_range")).steps.log_var is not None
    assert setup.experiment(tiny_config(**fields)).model.out_channels == 2
    config = tiny_config(**fields)
    config.model.out_channels = 1
    with pytest.raises(UserError, match="config.model: out_channels=1 must be 2, or None"):
        setup.experiment(config)


@pytest.mark.usefixtures("quick_compilation")
def test_samples_are_told_their_classes_and_guided(tiny_config):
    """Of a network that gives the embedding of its class: scale 0 is that of none, 1 that of the class."""

    def told(numbers, chosen=None, **sample):
        fields = {f"sample__{name}": value for name, value in sample.items()}
        config = tiny_config(**GUIDED, train__hybrid=0.001, train__target="v", **fields)
        config.model.update(num_res_blocks=1, multipliers=(1,))
        experiment = setup.experiment(config)
        leaves, tree = jax.tree.flatten(experiment.params_shape)
        rng = np.random.default_rng(0)
        params = tree.unflatten([rng.normal(scale=0.2, size=leaf.shape).astype(np.float32) for leaf in leaves])
        predict = setup.sample_predictor(experiment, params, np.array(numbers), chosen)
        x = jnp.full((len(numbers), 8, 8, 1), 0.3)
        answer = jax.jit(predict)(x, jnp.full(len(numbers), 4))
        assert answer.log_var_frac is not None
        return np.asarray(answer.eps)

    plain, one = told([0, 3, 13, 2]), told([0, 1, 2, 3], [0, 3, 3, 2], guidance=1.0)
    np.testing.assert_allclose(plain[1], plain[2], rtol=1e-5, atol=1e-6)
    assert np.max(np.abs(plain[0] - plain[1])) > 1e-3
    np.testing.assert_allclose(one, plain, rtol=1e-4, atol=1e-5)
    none, more = told([0, 1, 2, 3], guidance=0.0), told([0, 3, 13, 2], guidance=3.0)
    np.testing.assert_allclose(none, np.broadcast_to(none[0], none.shape), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(more, none + 3 * (plain - none), rtol=1e-3, atol=1e-4)
    outside = told([0, 3, 13, 2], guidance=3.0, guidance_interval=(50.0, 60.0))
    np.testing.assert_allclose(outside, plain, rtol=1e-4, atol=1e-5)


def test_v_networks_may_start_where_alpha_bar_is_0(tiny_config):
    config = tiny_config(schedule__name="jsd", train__target="v", train__weighting="min_snr")
    experiment = setup.experiment(config)
    assert experiment.schedule.alpha_bars[-1] == 0
    setup.objective(config, experiment)


def test_classes_need_labels(tiny_config, tmp_path):
    np.savez(tmp_path / "images.npz", images=np.zeros((20, 8, 8, 1), np.uint8))
    data = {"data__source": "npz", "data__path": str(tmp_path / "images.npz"), "data__images": "images"}
    setup.training(tiny_config(**data), (8, 8, 1), 1)
    with pytest.raises(UserError, match="config.model.num_classes: 10, but the first image's label is -1"):
        setup.training(tiny_config(**data, model__num_classes=10), (8, 8, 1), 1)


def test_config_comes_back_from_the_workdir(tiny_config, tmp_path):
    run_config.save(tiny_config(), tmp_path)
    loaded = setup.experiment(run_config.load(tmp_path))
    original = setup.experiment(tiny_config())
    assert loaded.model == original.model
    assert jax.tree.structure(loaded.steps) == jax.tree.structure(original.steps)


def test_another_config_in_the_same_workdir(tiny_config, tmp_path):
    run_config.save(tiny_config(), tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match="config.model.channels is 16 but was 8; config.seed is 3 but was 0"):
        run_config.save(tiny_config(model__channels=16, seed=3), tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before


def test_what_may_change_when_a_run_goes_on(tiny_config, tmp_path):
    run_config.save(tiny_config(), tmp_path)
    run_config.save(tiny_config(train__log_every=3, sample__steps=7), tmp_path)
    with pytest.raises(UserError, match="config.train.steps is 20 but was 12"):
        run_config.save(tiny_config(train__steps=20), tmp_path)
    # With a constant rate, training on is the same run.
    run_config.save(tiny_config(optimizer__decay="constant"), tmp_path / "b")
    run_config.save(tiny_config(optimizer__decay="constant", train__steps=20), tmp_path / "b")


def test_a_run_older_than_a_field_goes_on_while_the_field_is_off(tiny_config, tmp_path):
    run_config.save(tiny_config(model__num_classes=10), tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved["train"]["label_dropout"], saved["sample"]["guidance"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    old = setup.experiment(run_config.load(tmp_path))
    assert (old.label_dropout, old.guide) == (0.0, None)
    with pytest.raises(UserError, match="config.train.label_dropout is 0.1 but was None"):
        run_config.save(tiny_config(**GUIDED), tmp_path)
    run_config.save(tiny_config(model__num_classes=10), tmp_path)


def test_a_workdir_that_is_not_one(tmp_path):
    with pytest.raises(UserError, match=r"config.json is not there: --workdir must be"):
        run_config.load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="cannot read .*config.json: it holds a list"):
        run_config.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot read .*config.json"):
        run_config.load(tmp_path)
