"""Deblurring: diffusion of the residual of a predictor, which is trained with it or frozen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import SCHEDULE, SHAPE, TOY, batch, random_params

import diffjax as dj
from diffjax.data.pixels import to_float
from diffjax.tasks.base import Objective, Sampling
from diffjax.tasks.deblurring import Deblurring
from diffjax.tasks.noise_level import NoiseLevel
from diffjax.tasks.super_resolution import SuperResolution


def deblurring(predictor_network=TOY, **fields):
    return Deblurring(
        network=TOY,
        schedule=SCHEDULE,
        image_shape=SHAPE,
        predictor_network=predictor_network,
        objective=Objective(loss_norm="l1"),
        **fields,
    )


def test_the_residual_of_a_predictor_of_0_is_plain_conditional_diffusion():
    """With g = 0 the residual is the image: loss and samples are those of the conditional task."""
    plain = SuperResolution(network=TOY, schedule=SCHEDULE, image_shape=SHAPE, objective=Objective(loss_norm="l1"))
    params = random_params(plain)
    examples = batch()
    y = to_float(jnp.asarray(examples["condition"]))

    class Negative:
        """y + network(y) = 0."""

        def apply(self, variables, x, t, **_):
            return -x

        def init(self, *_):
            return {"params": {}}

    task = deblurring(Negative())
    both = {"predictor": {}, "denoiser": params}
    t, keys, key = jnp.array([0, 5, 10, 19]), dj.sample_keys(3, 0, 4), jax.random.key(4)
    alone = plain.loss()(params, examples, t, keys, key)
    np.testing.assert_allclose(task.loss()(both, examples, t, keys, key), alone, rtol=1e-6)

    sampler = dj.samplers.ddim(SCHEDULE, dj.timesteps.trailing(20, 3), eta=1.0)
    expected = dj.sample(sampler, plain.predictor(params, image=y), dj.initial_noise(keys, SHAPE), keys, clip=2.0)
    restored = task.restore(both, Sampling(SCHEDULE, sampler, clip=task.clip), y, keys)
    np.testing.assert_allclose(restored, expected, rtol=1e-5, atol=1e-6)
    ((name, predict),) = task.baselines(both).items()
    assert name == "predictor"
    np.testing.assert_array_equal(predict(y, keys), 0.0)


@pytest.mark.parametrize("conditioning", ["sqrt_alpha_bar", "t"])
@pytest.mark.parametrize("frozen", [False, True])
def test_gradient_flows_through_the_residual_into_the_predictor(conditioning, frozen):
    task = deblurring(level=NoiseLevel(conditioning=conditioning), frozen=frozen)
    params = random_params(task)
    per_example = task.loss()

    def loss(params):
        return per_example(params, batch(), jnp.arange(4), dj.sample_keys(0, 0, 4), jax.random.key(0)).mean()

    gradient = jax.jit(jax.grad(loss))(params)
    sizes = {name: float(sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(gradient[name]))) for name in gradient}
    assert sizes["denoiser"] > 0
    assert (sizes["predictor"] > 0) == (not frozen)


def test_a_frozen_predictor_changes_the_gradient_not_the_loss():
    tasks = [deblurring(frozen=frozen) for frozen in (False, True)]
    params = random_params(tasks[0])
    arguments = (params, batch(), jnp.arange(4), dj.sample_keys(0, 0, 4), jax.random.key(0))
    first, second = (task.loss()(*arguments) for task in tasks)
    np.testing.assert_allclose(first, second, rtol=1e-6)
