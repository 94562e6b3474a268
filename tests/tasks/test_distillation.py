"""Distillation: one network twice, the loss of the student at the starts of its steps, and samples."""

import jax
import jax.numpy as jnp
import numpy as np
from toys import SCHEDULE, SHAPE, TOY, batch

import diffjax as dj
from diffjax import learn, losses, parameterization
from diffjax.data.pixels import to_float
from diffjax.tasks.base import Objective
from diffjax.tasks.distillation import Distillation
from diffjax.tasks.generation import Generation

STUDENT = {"x": jnp.float32(-0.4), "image": jnp.float32(0.0)}
TEACHER = {"x": jnp.float32(0.7), "image": jnp.float32(0.0)}
BOTH = {"student": STUDENT, "teacher": TEACHER}
T, KEYS = jnp.array([0, 5, 10, 19]), dj.sample_keys(3, 0, 4)


def distillation(target="v", weights=None, **fields):
    objective = Objective(target=target, weights=weights)
    return Distillation(network=TOY, schedule=SCHEDULE, image_shape=SHAPE, objective=objective, num_steps=5, **fields)


def test_the_loss_is_learns():
    """With the noise of each example's key, both networks' targets, the weights and the clipping."""
    weights = losses.weights(SCHEDULE, "truncated", target="v")
    found = distillation("v", weights).loss()(BOTH, batch(), T, KEYS, jax.random.key(0))
    wanted = learn.progressive(
        SCHEDULE,
        learn.StepPairs.of(SCHEDULE, 5),
        parameterization.from_target(dj.models.predictor(TOY, TEACHER), SCHEDULE, "eps"),
        lambda x, t: TOY.apply({"params": STUDENT}, x, t),
        to_float(jnp.asarray(batch()["image"])),
        T,
        jax.vmap(lambda key: jax.random.normal(key, SHAPE))(KEYS),
        clip=1.0,
        weights=weights,
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_an_example_does_not_depend_on_the_others():
    loss = distillation().loss()
    whole = loss(BOTH, batch(), T, KEYS, jax.random.key(0))
    part = {name: column[2:3] for name, column in batch().items()}
    np.testing.assert_allclose(loss(BOTH, part, T[2:3], KEYS[2:3], jax.random.key(7)), whole[2:3], rtol=1e-5)


def test_the_gradient_is_the_students_alone():
    loss = distillation().loss()
    gradient = jax.grad(lambda params: loss(params, batch(), T, KEYS, jax.random.key(0)).mean())(BOTH)
    assert gradient["teacher"] == {"x": 0.0, "image": 0.0}
    assert gradient["student"]["x"] != 0.0


def test_both_begin_with_the_same_weights_and_the_student_is_sampled():
    task = distillation()
    params = task.init(jax.random.key(0), teacher=TEACHER)
    assert params == {"student": TEACHER, "teacher": TEACHER}
    assert params["teacher"]["x"] is not params["student"]["x"]  # a step donates each array once
    plain = Generation(network=TOY, schedule=SCHEDULE, image_shape=SHAPE, objective=Objective(target="v"))
    x = jax.random.normal(jax.random.key(1), (2, *SHAPE))
    for found, wanted in zip(task.predictor(BOTH)(x, T[:2]), plain.predictor(STUDENT)(x, T[:2]), strict=True):
        assert found is wanted is None or np.array_equal(found, wanted)
    assert learn.StepPairs.of(SCHEDULE, task.num_steps).start.tolist() == [19, 15, 11, 7, 3]
