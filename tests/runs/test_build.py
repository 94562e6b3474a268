"""From a config to objects: a bad value ends in one line that names the field, before any device work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffjax import data, process
from diffjax.errors import UserError
from diffjax.runs import build
from diffjax.runs import train as training
from diffjax.runs.run import Run
from diffjax.runs.train import train

GUIDED = {"model__num_classes": 10, "train__label_dropout": 0.1}
LEARNED = {"train__vlb_weight": 0.001, "sample__sampler": "ddpm"}


@pytest.fixture
def refused(tiny_config, tmp_path, count_compilations):
    """A function: training with these fields is refused, in one line that says `words`, before anything is done."""

    def check(fields, words):
        with pytest.raises(UserError, match=words) as caught:
            train(tiny_config(**fields), tmp_path / "run", progress=False)
        assert "\n" not in str(caught.value)
        assert count_compilations() == 0
        assert not (tmp_path / "run").exists()

    return check


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"schedule__name": "lineer"}, "config.schedule.name: 'lineer' must be one of 'linear', .* or an import path 'package"),
        ({"schedule__beta_start": 0.1, "schedule__beta_end": 0.05}, "config.schedule.beta_start: 0.1, beta_end=0.05 must satisfy"),
        ({"schedule__name": "cosine", "schedule__beta_end": 0.05}, "config.schedule.beta_end: 0.05 is given, .* no such field of 'cosine'"),
        ({"schedule__num_timesteps": 0}, "config.schedule.num_timesteps: 0 must be a whole number within 1 … 1000000"),
        ({"schedule__name": "jsd"}, "config.train.target: 'eps' does not determine x0 where alpha_bar = 0"),
        ({"schedule__name": "flow"}, "config.train.target: 'eps' does not determine x0 .* 'x0', 'v', 'flow' or 'edm' do"),
        ({"schedule__name": "flow", "schedule__shift": 0.0, "train__target": "flow"}, "config.schedule.shift: 0.0 must be > 0"),
        ({"schedule__name": "edm", "schedule__sigma_max": 0.001}, "config.schedule.sigma_min: 0.002, sigma_max=0.001 must satisfy"),
        ({"train__target": "edm", "train__sigma_data": 0.0}, "config.train.sigma_data: 0.0 must be a number ≥ 0.001"),
        ({"train__target": "edm", "train__vlb_weight": 0.1}, "config.train.vlb_weight: 0.1 must be 0 for the target 'edm'"),
        ({"train__level_mean": 0.0}, "config.train.level_mean: 0.0 is given, .* no such field of 'simple', 'uniform'"),
        ({"train__timestep_sampling": "log_normal", "train__level_std": 0.0}, "config.train.level_std: 0.0 must be > 0"),
        (
            {"train__timestep_sampling": "log_normal", "train__vlb_weight": 0.1},
            "config.train.timestep_sampling: 'log_normal' gives times between the timesteps, which a learned variance does",
        ),
        ({"schedule__zero_terminal_snr": True}, "config.train.target: 'eps' does not determine x0 where alpha_bar = 0"),
        ({"data__image_shape": (8, 8)}, r"config.data.image_shape: \(8, 8\) must be a tuple of 3 whole numbers"),
        ({"sample__sampler": "dpm"}, "config.sample.sampler: 'dpm' must be one of 'ddpm', 'ddim', '"),
        ({"sample__timestep_spacing": "log"}, "config.sample.timestep_spacing: 'log' must be one of 'full', 'leading'"),
        ({"sample__num_steps": 21}, "config.sample.num_steps: 21 is out of range: allowed is 1 … 20"),
        ({"sample__eta": 2.0}, r"config.sample.eta: 2.0 must be within \[0, 1\]"),
        ({"sample__variance": "learned"}, "config.sample.variance: 'learned' is given, .* no such field of 'ddim'"),
        ({"sample__clip": "percentile"}, "config.sample.clip: 'percentile' is not one of 'clip', 'dynamic'"),
        ({"sample__schedule": {"name": "linear"}}, "config.sample.schedule: must be None: a network that is conditioned on t"),
        ({"model__num_groups": 5}, "config.model.num_groups: 5 must divide base_channels=8"),
        ({"model__attention_resolutions": (5,)}, r"config.model.attention_resolutions: \(5,\) must be heights of levels, which are 8"),
        ({"model__dtype": "flaot32"}, "config.model.dtype: 'flaot32' must be one of 'float32'"),
        ({"model__dtype": "float64"}, "config.model.dtype: 'float64' must be 'float32', or JAX_ENABLE_X64=1 be set"),
        ({"model__dtype": "float16"}, "config.model.dtype: 'float16' cannot be trained on the CPU"),
        ({"model__channels": 8}, "config.model.channels: 8 is given, .*; nearest: .*config.model.base_channels"),
        ({"data__source": "cats"}, "config.data.source: 'cats' must be one of 'digits'"),
        ({"data__image_shape": (16, 16, 1)}, r"config.data.image_shape: \(16, 16, 1\) does not match an image of shape \(8, 8, 1\)"),
        ({"data__resize": "stretch"}, "config.data.resize: 'stretch' must be one of 'exact', 'pad'"),
        ({"data__num_workers": -1}, "config.data.num_workers: -1 must be a whole number ≥ 0"),
        ({"data__on_device": True, "data__crop": "random"}, "config.data.crop: 'random' needs on_device=False"),
        ({"data__path": "x.npz"}, "config.data.path: 'x.npz' is given, but config.data has no such field of 'digits'"),
        ({"data__source": "npz", "data__path": "x.npz"}, "config.data.path: 'x.npz' must be an existing file"),
        ({"data__source": "folder", "data__path": "x"}, "config.data.path: 'x' must be an existing folder"),
        ({"data__source": "npz"}, "config.data.path: missing; it must be a string"),
        ({"data__holdout": 0.9999}, "config.data.holdout: 0.9999 must leave at least one of the 1797"),
        ({"data__holdout": 1.5}, "config.data.holdout: 1.5 must be a number ≥ 0 and < 1"),
        ({"data__classes": (3, 10)}, r"config.data.classes: \(3, 10\): label 10 is not in the source; it has 0 … 9"),
        ({"data__degradation__kinds": ("bicubic",)}, r"config.data.degradation.kinds: \('bicubic',\) must be \(\) for the task gen"),
        ({"optimizer__name": "lion"}, "config.optimizer.name: 'lion' must be one of 'adam', 'adamw'"),
        ({"optimizer__lr_schedule": "poly"}, "config.optimizer.lr_schedule: 'poly' must be one of 'constant', 'cosine'"),
        ({"optimizer__learning_rate": -1.0}, "config.optimizer.learning_rate: -1.0 must be a number > 0"),
        ({"optimizer__warmup_steps": 12}, "config.optimizer.warmup_steps: 12 must be within 0 … 11"),
        ({"train__batch_size": 12}, "config.train.batch_size: 12 must be a positive multiple of the 8 devices"),
        ({"train__batch_size": 1800}, "config.train.batch_size: 1800 is more than the 1797 images there are"),
        ({"train__loss_norm": "l3"}, "config.train.loss_norm: 'l3' must be one of 'l2'"),
        ({"train__ema_decays": (0.9, 1.0)}, r"config.train.ema_decays: \(0.9, 1.0\) must be a tuple of numbers"),
        ({"train__ema_decays": (0.9, 0.9)}, r"config.train.ema_decays: \(0.9, 0.9\) must be different numbers"),
        ({"train__ema_decays": ()}, r"config.train.ema_decays: \(\) must be .*at least 1"),
        ({"train__target": "score"}, "config.train.target: 'score' must be one of 'eps', 'x0', 'v'"),
        ({"train__loss_weighting": "snrr"}, "config.train.loss_weighting: 'snrr' must be one of 'simple', 'snr'"),
        ({"train__gamma": 5.0}, "config.train.gamma: 5.0 is given, but config.train has no such field of 'simple'"),
        ({"train__huber_delta": 0.0}, "config.train.huber_delta: 0.0 must be a number > 0"),
        ({"train__vlb_weight": -0.001}, "config.train.vlb_weight: -0.001 must be a number ≥ 0"),
        ({"train__offset_noise": -0.1}, "config.train.offset_noise: -0.1 must be a number ≥ 0"),
        ({"train__label_dropout": 0.1}, r"config.train.label_dropout: 0.1 needs a network with classes"),
        ({"train__label_dropout": 1.0, "model__num_classes": 10}, "config.train.label_dropout: 1.0 must be a number ≥ 0 and < 1"),
        ({"model__num_classes": 5}, r"config.model.num_classes: 5, but the label of image 5 is 5 \(.* labels are outside 0 … 4"),
        ({"model__num_classes": 5, "data__cache_in_memory": True}, "config.model.num_classes: 5, but the label of image 5 is 5"),
        ({"sample__guidance_scale": 2.0}, "config.sample.guidance_scale: 2.0 needs a network with classes"),
        ({"sample__guidance_scale": 2.0, "model__num_classes": 10}, r"config.sample.guidance_scale: 2.0 needs .*\(config.train.label_dropout is 0\)"),
        ({"sample__guidance_scale": -1.0, **GUIDED}, "config.sample.guidance_scale: -1.0 must be a number ≥ 0 .*or None"),
        ({"sample__guidance_rescale": 0.5, **GUIDED}, "config.sample.guidance_rescale: 0.5 has no effect while config.sample.guidance_scale"),
        ({"sample__guidance_scale": 2.0, "sample__guidance_interval": (3.0, 1.0), **GUIDED}, r"guidance_interval: \(3.0, 1.0\) must be two noise levels"),
        ({"sample__guidance_scale": 2.0, "sample__guidance_interval": (3.0,), **GUIDED}, r"guidance_interval: \(3.0,\) must be a tuple of 2 numbers"),
        ({"sample__sampler": "ddpm", "sample__variance": "learned"}, "config.sample.variance: 'learned' needs a network that predicts it"),
        (LEARNED | {"sample__variance": "learned"}, "config.sample.variance: 'learned' is not what .* 'learned_range'"),
        ({"train__timestep_sampling": "random"}, "config.train.timestep_sampling: 'random' must be one of 'uniform', 'antith"),
        ({"train__grad_accumulation_steps": 0}, "config.train.grad_accumulation_steps: 0 must be a whole number ≥ 1"),
        ({"train__grad_accumulation_steps": 2}, "config.train.batch_size: 8 must be a positive multiple of the 8 devices times"),
        ({"train__steps_per_call": 8}, "config.train.steps: 12 must be a multiple of config.train.steps_per_call=8"),
        ({"train__max_nonfinite_steps": -1}, "config.train.max_nonfinite_steps: -1 must be a whole number ≥ 0"),
        ({"train__log_every": 0}, "config.train.log_every: 0 must be a whole number ≥ 1"),
    ],
)  # fmt: skip
def test_bad_field(refused, fields, words):
    refused(fields, words)


def test_the_digits_config_is_valid(tiny_config):
    config = tiny_config()
    task = build.task(config)
    assert task.schedule.num_timesteps == 20
    assert build.sampling(config, task).sampler.num_steps == 5
    assert build.training(config, task, 8).images.source[0]["image"].shape == (8, 8, 1)


def random_run(config, last_bias=None):
    """A run with random parameters; with `last_bias` its network's output is that everywhere, `[…, C]`."""
    task = build.task(config)
    leaves, tree = jax.tree.flatten(build.params_shape(task))
    rng = np.random.default_rng(0)
    params = tree.unflatten([rng.normal(scale=0.2, size=leaf.shape).astype(np.float32) for leaf in leaves])
    if last_bias is not None:
        params["conv_out"]["kernel"] *= 0
        params["conv_out"]["bias"] = np.asarray(last_bias, np.float32)
    return Run(config, task, params)


def test_samplers_get_the_same_prediction_whatever_the_target(tiny_config):
    x, t = jnp.full((2, 8, 8, 1), 0.3), jnp.array([4, 4])

    def prediction(config, bias):
        return jax.jit(random_run(config, bias).predictor())(x, t)

    schedule = random_run(tiny_config()).schedule
    eps = prediction(tiny_config(), [0.5])
    np.testing.assert_allclose(eps, 0.5)
    x0 = process.predict_x0(schedule, x, 4, eps)
    v = process.predict_v(schedule, x0, 4, eps)
    for target, value in (("eps", 0.5), ("x0", float(x0[0, 0, 0, 0])), ("v", float(v[0, 0, 0, 0]))):
        learned = prediction(tiny_config(train__target=target, train__vlb_weight=0.001), [value, 0.4])
        np.testing.assert_allclose(learned.log_var_frac, 0.7, rtol=1e-6)
        parts = [learned]
        if target != "eps":
            parts.append(prediction(tiny_config(train__target=target), [value]))
        for part in parts:
            np.testing.assert_allclose(part.eps, 0.5, rtol=1e-4)
            np.testing.assert_allclose(part.x0, x0, rtol=1e-4)


def test_learned_variance_can_be_sampled_with_and_without(tiny_config):
    learned = tiny_config(**LEARNED, sample__variance="learned_range")
    assert build.sampling(learned, build.task(learned)).sampler.log_var is not None
    assert build.task(tiny_config(**LEARNED)).network.out_channels == 2


def test_samples_are_conditioned_on_their_classes_and_guided(tiny_config):
    """With random parameters: scale 0 is the network without a label, 1 that with the label."""

    def eps(numbers, chosen=None, **sample):
        fields = {f"sample__{name}": value for name, value in sample.items()}
        run = random_run(tiny_config(**GUIDED, train__vlb_weight=0.001, train__target="v", **fields))
        labels = run.task.labels(np.array(numbers), chosen)
        predict = run.task.predictor(run.params, guidance=run.sampling.guidance, **labels)
        x = jnp.full((len(numbers), 8, 8, 1), 0.3)
        prediction = jax.jit(predict)(x, jnp.full(len(numbers), 4))
        assert prediction.log_var_frac is not None
        return np.asarray(prediction.eps)

    plain, one = eps([0, 3, 13, 2]), eps([0, 1, 2, 3], [0, 3, 3, 2], guidance_scale=1.0)
    np.testing.assert_allclose(plain[1], plain[2], rtol=1e-5, atol=1e-6)
    assert np.max(np.abs(plain[0] - plain[1])) > 1e-3
    np.testing.assert_allclose(one, plain, rtol=1e-4, atol=1e-5)
    none, more = eps([0, 1, 2, 3], guidance_scale=0.0), eps([0, 3, 13, 2], guidance_scale=3.0)
    np.testing.assert_allclose(none, np.broadcast_to(none[0], none.shape), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(more, none + 3 * (plain - none), rtol=1e-3, atol=1e-4)
    outside = eps([0, 3, 13, 2], guidance_scale=3.0, guidance_interval=(50.0, 60.0))
    np.testing.assert_allclose(outside, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("schedule", [{"schedule__name": "jsd"}, {"schedule__zero_terminal_snr": True}])
def test_v_networks_may_start_where_alpha_bar_is_0(tiny_config, schedule):
    task = build.task(tiny_config(**schedule, train__target="v", train__loss_weighting="min_snr"))
    assert task.schedule.alpha_bars[-1] == 0
    assert np.isfinite(task.objective.weights).all()


def test_classes_need_labels(tiny_config, tmp_path):
    np.savez(tmp_path / "images.npz", images=np.zeros((20, 8, 8, 1), np.uint8))
    fields = {"data__source": "npz", "data__path": str(tmp_path / "images.npz"), "data__image_key": "images"}
    config = tiny_config(**fields)
    build.training(config, build.task(config), 1)
    config = tiny_config(**fields, model__num_classes=10)
    with pytest.raises(
        UserError,
        match="config.model.num_classes: 10 needs a label of every image, but 20 of 20 have none, such as image 0$",
    ):
        build.training(config, build.task(config), 1)


@pytest.fixture
def classes(tmp_path, refused):
    """A function: the fields of a config with two classes and a folder of images; a name is `CLASS/FILE`."""

    def make(*names, **fields):
        for name in names:
            (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8)).save(tmp_path / "images" / name)
        return {"data__source": "folder", "data__path": str(tmp_path / "images"), "model__num_classes": 2, **fields}

    return make


FILES = [f"{name}/{n}.png" for name in "ab" for n in range(5)]


@pytest.mark.parametrize("fields", [{}, {"data__holdout": 0.3}, {"data__cache_in_memory": True}])
@pytest.mark.parametrize("name", ["0.png", "z.png"])
def test_every_image_needs_a_label_wherever_it_is(classes, refused, name, fields):
    words = rf"^config.model.num_classes: 2 needs a label of every image, but 1 of 11 have none, such as image \d+ \(\S*{name}\)$"
    refused(classes(*FILES, name, **fields), words)


def test_every_label_must_be_a_class(classes, refused):
    words = r"^config.model.num_classes: 2, but the label of image 10 \(\S*c/0.png\) is 2 \(1 of 11 labels are outside 0 … 1\)$"
    refused(classes(*FILES, "c/0.png"), words)


def test_images_of_two_classes_are_accepted(classes, tiny_config):
    config = tiny_config(**classes(*FILES))
    assert len(build.training(config, build.task(config), 1).images.source) == 10


class Unlisted:
    """Digits whose labels are seen only in its examples; the last one is out of range."""

    def __init__(self):
        self.source = data.digits()

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return self.source[index] | {"label": 10 if index == 19 else index % 10}


def unlisted():
    return Unlisted()


def declared():
    source = Unlisted()
    source.num_classes = 11
    return source


def test_a_declared_number_of_classes_is_checked(refused):
    fields = {"data__source": f"{__name__}:declared", "model__num_classes": 10}
    for cached in (False, True):
        refused(
            fields | {"data__cache_in_memory": cached},
            "^config.model.num_classes: 10 must be ≥ 11, the number of classes of",
        )


def test_labels_that_are_seen_late_are_refused_too(tiny_config):
    fields = {"data__source": f"{__name__}:unlisted", "model__num_classes": 10, "train__batch_size": 16}
    for on_device in (False, True):
        config = tiny_config(**fields, data__on_device=on_device)
        task = build.task(config)
        images = build.training(config, task, 1).images
        with pytest.raises(UserError, match=r"^config.model.num_classes: 10, but the label of image \d+.* is 10"):
            next(training._feed(config, task, images, None))  # reads two batches, so all of the 20 images


def test_chosen_classes_are_counted_from_0(tiny_config):
    config = tiny_config(data__classes=(7, 3), model__num_classes=2)
    source = build.training(config, build.task(config), 1).images.source
    assert {source[n]["label"] for n in range(20)} == {0, 1}
