"""Generation: the network's inputs in training, labels, and grids of samples."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax.data.pixels import to_float
from diffjax.models import NO_LABEL
from diffjax.tasks import previews
from diffjax.tasks.base import Objective
from diffjax.tasks.generation import Generation

SCHEDULE = dj.schedules.linear(50)


def generation(network, shape=(4, 4, 1), **objective):
    return Generation(network=network, schedule=SCHEDULE, image_shape=shape, objective=Objective(**objective))


class Recorder:
    """A network that predicts 0 and records its inputs."""

    def __init__(self, num_classes=None):
        self.seen, self.num_classes = [], num_classes

    def apply(self, variables, x, t, label=None, *, train, rngs):
        assert train
        inputs = (x, t) if label is None else (x, t, label)
        jax.debug.callback(lambda *inputs: self.seen.append([np.asarray(part) for part in inputs]), *inputs)
        return jnp.zeros_like(x)


def noised(count, image, seed=0, num_classes=None, **objective):
    """(the network's inputs, loss of each example) of one batch, at t = 0 … 49 again and again."""
    network = Recorder(num_classes)
    per_example = generation(network, **objective).loss()
    keys = dj.sample_keys(seed, 0, count)
    t = np.arange(count, dtype=np.int32) % 50
    batch = {
        "image": np.broadcast_to(np.asarray(image, np.uint8), (count, 4, 4, 1)),
        "label": np.arange(count, dtype=np.int32) % 7,
    }
    losses = jax.jit(lambda keys: per_example({}, batch, t, keys, jax.random.key(0)))(keys)
    jax.effects_barrier()
    return *network.seen[0], np.asarray(losses)


@pytest.mark.parametrize(("kind", "level"), [("flow", lambda s: s / (1 + s)), ("edm", lambda s: np.log(s) / 4)])
def test_a_network_that_is_conditioned_on_the_noise_level(kind, level):
    network = Recorder()
    task = dataclasses.replace(generation(network), noise_conditioning=kind, timestep_scale=3.0)
    t, keys = np.array([0, 20, 49], np.int32), dj.sample_keys(0, 0, 3)
    task.loss()({}, {"image": np.zeros((3, 4, 4, 1), np.uint8)}, t, keys, jax.random.key(0))
    jax.effects_barrier()
    np.testing.assert_allclose(network.seen[0][1], 3.0 * level(SCHEDULE.sigma_bars[t]), rtol=1e-4)


def test_images_are_minus_one_to_one():
    assert to_float(jnp.array([0, 255], jnp.uint8)).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("image", [0, 255])
def test_x_t_is_noised_from_the_normalised_image(image):
    x_t, t, losses = noised(20_000, image)
    x0 = image / 127.5 - 1
    root = SCHEDULE.sqrt_alpha_bars[t].reshape(-1, 1, 1, 1)
    noise = (x_t - root * x0) / np.sqrt(1 - root**2)
    assert np.mean(noise) == pytest.approx(0, abs=0.01)
    assert np.std(noise) == pytest.approx(1, abs=0.01)
    # The network predicts 0, so the loss is that of the noise; and the noise does not depend on the timestep.
    np.testing.assert_allclose(losses, np.mean(noise**2, (1, 2, 3)), rtol=2e-3)
    correlation = np.corrcoef(t, noise[:, 0, 0, 0])[0, 1]
    assert abs(correlation) < 0.03


def test_offset_noise_moves_whole_images():
    x_t, t, losses = noised(2000, 127.5, offset_noise=0.5)
    scale = SCHEDULE.sqrt_one_minus_alpha_bars[t].reshape(-1, 1, 1, 1)
    x0 = to_float(jnp.uint8(127))
    noise = (x_t - SCHEDULE.sqrt_alpha_bars[t].reshape(-1, 1, 1, 1) * np.asarray(x0)) / scale
    # Of 16 pixels' mean: 1/16 from their own noise, 1/4 from the offset. The offset is part of what is predicted.
    assert np.var(noise.mean((1, 2, 3))) == pytest.approx(1 / 16 + 0.25, rel=0.1)
    assert np.mean(noise.var((1, 2, 3))) == pytest.approx(15 / 16, rel=0.02)
    np.testing.assert_allclose(losses, np.mean(noise**2, (1, 2, 3)), rtol=2e-3)


def test_a_network_with_classes_is_conditioned_on_the_labels():
    *_, label, _ = noised(9, 0, num_classes=7)
    assert label.tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1]


def test_labels_are_dropped_by_example():
    x_t, _, label, _ = noised(7000, 100, num_classes=7, label_dropout=0.3)
    kept = label != NO_LABEL
    assert np.mean(~kept) == pytest.approx(0.3, abs=0.02)
    np.testing.assert_array_equal(label[kept], (np.arange(7000) % 7)[kept])
    assert abs(np.corrcoef(kept, x_t[:, 0, 0, 0])[0, 1]) < 0.04
    # The same examples in another batch.
    np.testing.assert_array_equal(noised(50, 100, num_classes=7, label_dropout=0.3)[2], label[:50])
    assert NO_LABEL == dj.data.NO_LABEL


def test_grids_have_a_row_for_each_class():
    assert [previews.grid_size(num) for num in (None, 1, 2, 10, 16, 17)] == [64, 64, 16, 80, 128, 64]
    # Images of 64 pixels are tiles as they are; sample n is n everywhere.
    images = np.broadcast_to(np.arange(1, 41, dtype=np.uint8)[:, None, None, None], (40, 64, 64, 1))
    centers = previews.grid(images[:8], 3)[34::66, 34::66, 0]
    np.testing.assert_array_equal(centers, [[1, 4, 7], [2, 5, 8], [3, 6, 0]])
    assert previews.grid(images, 3).shape == (3 * 66 + 2, 8 * 66 + 2, 3)
    np.testing.assert_array_equal(previews.grid(images[:9], None)[34::66, 34::66, 0][0], np.arange(1, 9))


def test_the_noise_of_an_example_is_the_same_in_any_batch():
    few, many = noised(3, 100), noised(8, 100)
    for a, b in zip(few, many, strict=True):
        np.testing.assert_allclose(a, b[:3], rtol=1e-6, atol=1e-6)
    assert len(np.unique(many[0][:, 0, 0, 0])) == 8


@pytest.mark.parametrize(("dropout", "train"), [(0.0, True), (0.5, True), (0.5, False)])
def test_dropout_is_on_in_training(dropout, train):
    network = dj.models.UNet(
        base_channels=8, channel_mults=(1,), num_res_blocks=1, attention_resolutions=(), num_groups=4, dropout=dropout
    )
    x, keys = jnp.zeros((2, 4, 4, 1)), dj.sample_keys(0, 0, 2)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x, jnp.zeros(2, jnp.int32))["params"]
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    params = tree.unflatten([rng.normal(scale=0.1, size=leaf.shape).astype(np.float32) for leaf in leaves])
    batch = {"image": np.zeros((2, 4, 4, 1), np.uint8)}
    per_example = jax.jit(generation(network).loss(train=train))
    a, b = (per_example(params, batch, jnp.array([3, 40]), keys, jax.random.key(n)) for n in range(2))
    assert (np.max(np.abs(a - b)) > 1e-4) == (train and dropout > 0)


def test_labels_of_samples():
    numbers = np.arange(3, 8)
    unconditional, of_classes = generation(dj.models.UNet()), generation(dj.models.UNet(num_classes=5))
    assert unconditional.labels(numbers) == {}
    assert of_classes.labels(numbers)["label"].tolist() == [3, 4, 0, 1, 2]
    assert of_classes.labels(numbers, [4])["label"].tolist() == [4] * 5
    assert of_classes.labels(numbers, [1, 4])["label"].tolist() == [4, 1, 4, 1, 4]
    assert of_classes.labels(numbers)["label"].dtype == np.int32
