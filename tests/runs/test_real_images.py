"""What a network makes of real images is what the library's own functions say, however it is cut into batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import latents, likelihood, parameterization, schedules
from diffjax.errors import UserError
from diffjax.noise import sample_keys
from diffjax.runs import build, config_files, real_images, resolve
from diffjax.runs.run import Run


@pytest.fixture
def given():
    """(run, images, labels): a network with classes and a learned variance, its parameters random."""
    config = resolve.override(config_files.load("digits"), {
        "schedule.num_timesteps": 20, "model.base_channels": 8, "model.channel_mults": (1,), "model.num_res_blocks": 1,
        "model.num_classes": 10, "train.vlb_weight": 0.001, "sample.num_steps": 5,
    })  # fmt: skip
    task = build.task(config)
    leaves, tree = jax.tree.flatten(build.params_shape(task))
    rng = np.random.default_rng(0)
    params = tree.unflatten([jnp.asarray(0.2 * rng.standard_normal(leaf.shape), leaf.dtype) for leaf in leaves])
    images = build.images(config)
    return Run(config=config, task=task, params=params), *real_images.read(images.source, images.prepare, 19)


def whole(given):
    """(x_0, keys, predict) of all images at once, on one device."""
    run, images, labels = given
    predict = run.predictor(label=jnp.asarray(labels))
    return jnp.asarray(images / 127.5 - 1.0, jnp.float32), sample_keys(5, 0, len(images)), predict


def test_bound_of_a_shorter_chain(given):
    schedule = given[0].schedule
    x0, keys, predict = whole(given)
    indices = np.array([0, 6, 13, 19])
    found = real_images.bound(
        *given, variance="learned_range", clip=None, indices=indices, batch_size=10, seed=5
    )  # fmt: skip
    expected = likelihood.bound(
        schedules.respace(schedule, indices), parameterization.map_timesteps(predict, indices), x0, keys,
        variance="learned_range",
    )  # fmt: skip
    assert found.terms.shape == (4, 19)
    for part, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(part, other, rtol=1e-4, atol=1e-5)


def test_variances_of_a_chain_are_one_program(given, count_compilations):
    indices = np.array([0, 10, 19])
    totals = [real_images.bound(*given, variance="fixed_small", indices=indices).total]
    count_compilations()
    totals += [
        real_images.bound(*given, variance=name, indices=indices).total for name in ("fixed_large", "learned_range")
    ]
    assert count_compilations() == 0
    assert len({float(total[0]) for total in totals}) == 3


def test_reconstruction_is_the_librarys_own(given):
    x0, _, predict = whole(given)
    errors, pictures = real_images.reconstruct(*given, num_steps=3, batch_size=16)
    back = np.asarray(latents.reconstruct(given[0].schedule, predict, x0, num_steps=3))
    np.testing.assert_allclose(errors, np.mean((back - x0) ** 2, axis=(1, 2, 3)) / 4, rtol=1e-3)
    assert pictures.dtype == np.uint8
    np.testing.assert_allclose(pictures, np.clip((back + 1) * 127.5, 0, 255), atol=0.6)


def test_batches_are_spread_over_the_devices(given):
    sizes = []
    for count, _, x0, keys in real_images._batches(*given, batch_size=10):
        sizes.append(count)
        assert [len(array.sharding.device_set) for array in (x0, keys)] == [8, 8]
    assert sizes == [16, 3]


def test_labels_must_be_classes_of_the_network(given):
    run, images, labels = given
    for label, words in (
        (-1, "needs a label of every image, but 1 of 19 have none, such as image 7"),
        (10, "the label of image 7 is 10"),
    ):
        labels[7] = label
        with pytest.raises(UserError, match=words):
            real_images.bound(run, images, labels, variance="fixed_small")
