from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import data

COUNT = 10


@pytest.fixture(scope="module")
def arrays():
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 2, 3, 1), np.uint8)
    return data.on_device.load(
        data.ArraySource(images, np.arange(COUNT)), partial(data.prepare, shape=(2, 5, 1), resize="pad")
    )


def test_load_prepares(arrays):
    assert arrays["image"].shape == (COUNT, 2, 5, 1)
    assert arrays["image"].dtype == np.uint8
    assert arrays["label"].dtype == np.int32
    assert not arrays["image"][:, :, 0].any()


def test_example_n_of_step_s_is_the_same_however_the_batch_is_divided(arrays):
    sample = jax.jit(partial(data.on_device.sample_batch, random_flip=True))
    key = jax.random.key(3)
    whole = sample(arrays, key, 7, jnp.arange(8))
    parts = [sample(arrays, key, 7, jnp.arange(start, start + 2)) for start in range(0, 8, 2)]
    for name in whole:
        np.testing.assert_array_equal(whole[name], np.concatenate([part[name] for part in parts]))
    devices = jax.pmap(lambda numbers: sample(arrays, key, 7, numbers))(jnp.arange(8).reshape(4, 2))
    np.testing.assert_array_equal(devices["label"].reshape(-1), whole["label"])


def test_in_a_scan_over_steps(arrays):
    def body(step, _):
        return step + 1, data.on_device.sample_batch(arrays, jax.random.key(3), step, jnp.arange(4), random_flip=True)

    _, scanned = jax.jit(lambda: jax.lax.scan(body, 5, length=3))()
    for step in range(3):
        single = data.on_device.sample_batch(arrays, jax.random.key(3), 5 + step, jnp.arange(4), random_flip=True)
        np.testing.assert_array_equal(scanned["image"][step], single["image"])
        np.testing.assert_array_equal(scanned["label"][step], single["label"])


def test_indices_are_uniform_flips_are_fair_and_neither_depends_on_the_other(arrays):
    sample = jax.jit(jax.vmap(partial(data.on_device.sample_batch, random_flip=True), (None, None, 0, None)))
    batches = jax.device_get(sample(arrays, jax.random.key(0), jnp.arange(500), jnp.arange(40)))
    labels, images = batches["label"].reshape(-1), batches["image"].reshape(-1, 2, 5, 1)
    straight, mirrored = arrays["image"][labels], arrays["image"][labels][:, :, ::-1]
    flipped = (images == mirrored).all((1, 2, 3))
    assert ((images == straight).all((1, 2, 3)) ^ flipped).all()
    counts = np.stack([np.bincount(labels[flipped == side], minlength=COUNT) for side in (False, True)])
    expected = labels.size / (2 * COUNT)
    assert ((counts - expected) ** 2 / expected).sum() < 50  # χ² of 19 degrees: 50 has probability 1.3e-4
    # Batches are independent: as many pairs agree between one step and the next as by chance.
    agreeing = (batches["label"][1:] == batches["label"][:-1]).mean()
    assert abs(agreeing - 1 / COUNT) < 4 * np.sqrt(0.09 / 19960)


def test_other_seeds_sample_others(arrays):
    a, b = (data.on_device.sample_batch(arrays, jax.random.key(seed), 0, jnp.arange(32))["label"] for seed in (0, 1))
    assert not np.array_equal(a, b)


def test_on_device_returns_the_same_data_again_and_again(arrays):
    feed = data.on_device.OnDevice(arrays)
    assert iter(feed) is feed
    assert next(feed) is next(feed) is arrays
    assert feed.get_state() == {}
    feed.close()


def test_the_index_of_an_example_on_the_host(arrays):
    key = jax.random.key(3)
    sampled = jax.jit(data.on_device.sample_batch)(arrays, key, 7, jnp.arange(8))["label"]
    assert [data.on_device.sampled_index(COUNT, key, 7, number) for number in range(8)] == sampled.tolist()
