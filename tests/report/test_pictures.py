"""Pictures of networks whose images are known."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import diffjax as dj
from diffjax.report import pictures

SCHEDULE = dj.schedules.linear(20)
SHAPE = (8, 8, 1)


def recording(function, calls):
    def recorded(*args, **options):
        calls.append((args, options))
        return function(*args, **options)

    return recorded


def run_of(predict, shape=SHAPE):
    """A run whose network is `predict(numbers of the samples)`, an image's class its number."""
    task = SimpleNamespace(
        labels=lambda numbers: {"label": numbers}, predictor=lambda params, *, guidance, label: predict(label)
    )
    return SimpleNamespace(
        schedule=SCHEDULE, image_shape=shape, clip=1.0, params=None, task=task, sampling=SimpleNamespace(guidance=None)
    )


@pytest.fixture
def laid_out(monkeypatch):
    """Calls of the functions of `viz` that lay pictures out, by name."""
    calls = {}
    for name in ("table", "grid", "captioned", "animation_frames"):
        module = dj.viz.animation if name == "animation_frames" else dj.viz.pixels

        recorded = recording(getattr(module, name), calls.setdefault(name, []))
        monkeypatch.setattr(module, name, recorded)
        monkeypatch.setattr(dj.viz, name, recorded)
    return calls


def timesteps(numbers):
    """A network whose x̂0 is its t, as a shade: t/T·2 - 1."""
    return jax.tree_util.Partial(
        lambda x, t: dj.Prediction(x0=jnp.broadcast_to(t.reshape(-1, 1, 1, 1) / 10.0 - 1.0, x.shape), eps=0.0 * x)
    )


def classes(numbers):
    """A network whose x̂0 is the label that it is conditioned on, the sample's number, as a shade."""
    return jax.tree_util.Partial(
        lambda label, x, t: dj.Prediction(x0=jnp.broadcast_to(label.reshape(-1, 1, 1, 1) / 10, x.shape), eps=0.0 * x),
        jnp.asarray(numbers, jnp.float32),
    )


@pytest.mark.parametrize("frames", [21, 6])
def test_frames_are_labelled_with_the_level_they_were_predicted_from(laid_out, tmp_path, frames):
    paths = pictures.denoising(run_of(timesteps), tmp_path, frames=frames, num=2)
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    ((_, labels), _), ((x0, labels_x0), options) = laid_out["captioned"]
    assert labels == labels_x0
    assert labels[-1] == "clean"
    assert len(labels) == frames
    assert options["columns"] == 16
    for image, label in zip(x0[:-1], labels[:-1], strict=True):
        t = int(re.fullmatch(r"t=(\d+)", label)[1])
        np.testing.assert_allclose(image.astype(int), dj.viz.to_uint8(t / 10 - 1), atol=1)  # of 6 a level
    with Image.open(paths[-1]) as file:
        assert file.n_frames == frames
    (t, x, shown), _ = laid_out["animation_frames"][0]
    assert [dj.viz.level(level) for level in t] == labels
    np.testing.assert_allclose(shown[:-1, :, 0, 0, 0], (np.asarray(t[:-1]) / 10 - 1)[:, None] * np.ones(2), rtol=1e-5)
    np.testing.assert_array_equal(x[-1], shown[-1])


def test_consistency_has_a_row_a_noise_and_a_column_a_number(laid_out, tmp_path):
    def predict(numbers):
        return jax.tree_util.Partial(lambda x, t: 0.1 * jnp.sin(x))

    path = pictures.consistency(run_of(predict), tmp_path / "c.png", num=2, counts=(2, 5), seed=3)
    ((images,), options) = laid_out["table"][0]
    assert options == {"columns": ["S = 2", "S = 5"], "rows": ["noise 0", "noise 1"]}
    noise = dj.initial_noise(dj.sample_keys(3, 0, 2), SHAPE)
    for k, count in enumerate((2, 5)):
        wanted = dj.latents.decode(SCHEDULE, predict(None), noise, num_steps=count, clip=1.0)
        np.testing.assert_array_equal(images[:, k], dj.viz.to_uint8(wanted))
    assert path.exists()
    with pytest.raises(ValueError, match="num_steps=21"):
        pictures.consistency(run_of(predict), path, counts=(5, 21))


def test_networks_with_classes_are_conditioned_on_those_of_the_samples(laid_out, tmp_path):
    pictures.consistency(run_of(classes), tmp_path / "c.png", num=3, counts=(4,))
    ((images,), _) = laid_out["table"][0]
    np.testing.assert_array_equal(images[:, 0, 0, 0, 0], dj.viz.to_uint8(np.arange(3) / 10))
    pictures.slerps(run_of(classes), tmp_path / "s.png", size=2, num_steps=4)
    ((images,), options) = laid_out["grid"][0]
    assert options == {"columns": 2}
    assert np.all(images == 128)


def test_slerps_have_the_noises_images_in_the_corners(laid_out, tmp_path):
    def predict(numbers):
        return jax.tree_util.Partial(lambda x, t: 0.9 * x)

    pictures.slerps(run_of(predict), tmp_path / "s.png", size=3, num_steps=5, seed=1)
    ((images,), _) = laid_out["grid"][0]
    noise = dj.initial_noise(dj.sample_keys(1, 0, 4), SHAPE)
    wanted = dj.viz.to_uint8(dj.latents.decode(SCHEDULE, predict(None), noise, num_steps=5, clip=1.0))
    np.testing.assert_allclose(images[[0, 2, 6, 8]].astype(int), wanted.astype(int), atol=1)
    assert len(images) == 9


def test_large_images_are_shown_small(laid_out, tmp_path):
    def predict(numbers):
        return jax.tree_util.Partial(lambda x, t: 0.9 * x)

    pictures.consistency(run_of(predict, (96, 96, 3)), tmp_path / "c.png", num=1, counts=(2,))
    assert laid_out["table"][0][0][0].shape == (1, 1, 48, 48, 3)
