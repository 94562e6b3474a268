"""Distillation: one network twice, the loss of the student at the starts of its steps, and samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import SCHEDULE, SHAPE, TOY, batch

import diffjax as dj
from diffjax import learn, losses, parameterization, process
from diffjax.data.pixels import to_float
from diffjax.tasks.base import Objective
from diffjax.tasks.distillation import Distillation
from diffjax.tasks.generation import Generation

pytestmark = pytest.mark.usefixtures("quick_compilation")

STUDENT = {"x": jnp.float32(-0.4), "image": jnp.float32(0.0)}
TEACHER = {"x": jnp.float32(0.7), "image": jnp.float32(0.0)}
BOTH = {"student": STUDENT, "teacher": TEACHER}
T, KEYS = jnp.array([0, 5, 10, 19]), dj.sample_keys(3, 0, 4)


def distillation(target="v", weights=None, **fields):
    objective = Objective(target=target, weights=weights)
    return Distillation(network=TOY, schedule=SCHEDULE, image_shape=SHAPE, objective=objective, num_steps=5, **fields)


@pytest.mark.parametrize(("target", "teacher_target", "clip"), [("v", "eps", True), ("x0", "x0", False)])
def test_the_loss_by_its_definition(target, teacher_target, clip):
    """The student's x̂0 against the x̂0 whose step ends where DDIM's two steps with the teacher end."""
    weights = losses.weights(SCHEDULE, "truncated", target=target)
    task = distillation(target, weights, teacher_target=teacher_target, clip_teacher=clip)
    found = task.loss()(BOTH, batch(), T, KEYS, jax.random.key(0))

    teacher = parameterization.from_target(dj.models.predictor(TOY, TEACHER), SCHEDULE, teacher_target)
    table = dj.samplers.ddim(SCHEDULE, dj.timesteps.trailing(20, 10))
    x0 = to_float(jnp.asarray(batch()["image"]))
    noise = jax.vmap(lambda key: jax.random.normal(key, SHAPE))(KEYS)
    for n, start in enumerate((3, 7, 11, 19)):  # the starts of 5 steps: 19, 15, 11, 7, 3
        part = slice(n, n + 1)
        t, s = jnp.array([start]), start - 4
        x_t = process.q_sample(SCHEDULE, x0[part], t, noise[part])
        row = 2 * (19 - start) // 4
        x_s = dj.sample(table[row : row + 2], teacher, x_t, clip=1.0 if clip else None)
        root_t, rest_t = (float(scale.squeeze()) for scale in process.scales_at(SCHEDULE, x_t, t))
        root_s, rest_s = (float(scale.squeeze()) for scale in process.scales_at(SCHEDULE, x_t, jnp.array([s])))
        wanted = (x_s - rest_s / rest_t * x_t) / (root_s - rest_s / rest_t * root_t)  # DDIM's step, solved for x̂0
        output = TOY.apply({"params": STUDENT}, x_t, t)
        mine = process.convert(SCHEDULE, x_t, t, output, given=target, wanted="x0")
        snr = SCHEDULE.alpha_bars[start] / (1 - SCHEDULE.alpha_bars[start])
        np.testing.assert_allclose(found[n], max(snr, 1) * np.mean((mine - wanted) ** 2), rtol=1e-3)


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
