"""Super-resolution: the network's inputs in training and in sampling, and its samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import SCHEDULE, SHAPE, TINY, TOY, batch, random_params

import diffjax as dj
from diffjax.data.pixels import to_float
from diffjax.tasks.base import Sampling
from diffjax.tasks.super_resolution import SuperResolution


def test_on_any_schedule_the_network_sees_the_levels_that_it_was_trained_on():
    """The prediction for a level is the same in training and on another schedule that has the same level."""
    task = SuperResolution(network=TINY, schedule=SCHEDULE, image_shape=SHAPE)
    params = random_params(task)
    y = to_float(jnp.asarray(batch()["condition"]))
    x = jax.random.normal(jax.random.key(2), y.shape)
    for schedule in (SCHEDULE, dj.schedules.linear(5, beta_start=0.01, beta_end=0.9)):
        predict = task.predictor(params, schedule=schedule, image=y)
        level = np.full(4, 1000 * schedule.sqrt_alpha_bars[3], np.float32)
        direct = TINY.apply({"params": params}, x, level, image=y)
        np.testing.assert_allclose(predict(x, jnp.full(4, 3)), direct, rtol=1e-4, atol=1e-5)


def test_noise_scale_0_is_the_deterministic_trajectory_from_0():
    task = SuperResolution(network=TOY, schedule=SCHEDULE, image_shape=SHAPE)
    params, y = random_params(task), to_float(jnp.asarray(batch()["condition"]))
    sampler = dj.samplers.ddpm(SCHEDULE, dj.timesteps.full(20))
    how = Sampling(SCHEDULE, sampler, clip=task.clip, noise_scale=0.0)
    a, b = (task.restore(params, how, y, dj.sample_keys(seed, 0, 4)) for seed in (0, 1))
    np.testing.assert_array_equal(a, b)


def test_a_condition_of_another_size():
    task = SuperResolution(network=TINY, schedule=SCHEDULE, image_shape=SHAPE)
    examples = batch() | {"condition": batch(shape=(4, 4, 1))["condition"]}
    with pytest.raises(
        ValueError, match=r"image.shape=\(4, 4, 4, 1\) must agree with x.shape=\(4, 8, 8, 1\) in all but"
    ):
        task.loss()(random_params(task), examples, jnp.arange(4), dj.sample_keys(0, 0, 4), jax.random.key(0))
