"""Regression: the distance of one network call from the image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import SCHEDULE, SHAPE, TINY, batch

from diffjax import losses
from diffjax.data.pixels import to_float
from diffjax.errors import UserError
from diffjax.tasks.base import Objective
from diffjax.tasks.regression import Regression


def test_the_loss_is_the_distance_from_the_image():
    objective = Objective(loss_norm="l1")
    task, examples = Regression(network=TINY, schedule=SCHEDULE, image_shape=SHAPE, objective=objective), batch()
    params = jax.jit(task.init)(jax.random.key(0))
    y, x = (to_float(jnp.asarray(examples[name])) for name in ("condition", "image"))
    # A fresh network changes nothing.
    np.testing.assert_allclose(task.restore(params, None, y), y, atol=1e-3)
    loss = jax.jit(task.loss())(params, examples, jnp.zeros(4, jnp.int32), None, jax.random.key(0))
    np.testing.assert_allclose(loss, np.abs(x - y).mean((1, 2, 3)), rtol=1e-3)


def test_there_is_no_predictor_for_samplers():
    task = Regression(network=TINY, schedule=SCHEDULE, image_shape=SHAPE)
    with pytest.raises(UserError, match=r"config.task.name: a regression has no noise level to denoise at"):
        task.predictor({}, image=jnp.zeros((1, *SHAPE)))


def test_distance():
    answer, wanted = jnp.array([[1.0, -2.0]]), jnp.zeros((1, 2))
    assert losses.distance(answer, wanted, norm="l1").tolist() == [1.5]
    assert losses.distance(answer, wanted).tolist() == [2.5]
