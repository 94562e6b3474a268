import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import diffjax as dj
from diffjax import process

SCHEDULE = dj.schedules.linear(50, beta_start=1e-3, beta_end=0.2)
POINT = np.array([0.5, -2.0], np.float32)


class Point(nn.Module):
    """The exact network of data that is one point, which is the parameter."""

    target: str = "eps"
    out_channels: int | None = None

    @nn.compact
    def __call__(self, x, t, label=None, image=None, *, train=False):
        point = jnp.broadcast_to(self.param("point", nn.initializers.zeros, (2,)), x.shape)
        return process.convert(SCHEDULE, x, t, point, given="x0", wanted=self.target)


@pytest.mark.parametrize("target", ["eps", "x0", "v"])
def test_finds_the_exact_network(target):
    trained = dj.train(
        Point(target),
        SCHEDULE,
        np.tile(POINT, (10, 1)),
        num_steps=200,
        batch_size=16,
        optimizer=0.1,
        ema_decay=0.5,
        target=target,
        progress=False,
    )
    np.testing.assert_allclose(trained.params["point"], POINT, atol=2e-2)
    assert trained.losses.shape == (200,)
    assert trained.losses[-1] < 1e-2 * trained.losses[0]
    keys = dj.sample_keys(0, 0, 3)
    sampler = dj.samplers.ddim(SCHEDULE, dj.timesteps.trailing(50, 5))
    x = dj.sample(sampler, trained.predict, dj.initial_noise(keys, (2,)), keys)
    np.testing.assert_allclose(x, np.tile(POINT, (3, 1)), atol=5e-2)


def test_the_seed_decides():
    data = dj.data.toys.two_moons(100)
    options = {"num_steps": 3, "batch_size": 8, "progress": False}
    first, again, other = (
        dj.train(dj.models.MLP(width=8, depth=1), SCHEDULE, data, seed=seed, **options).losses for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x0": np.zeros(3)}, r"x0 must be finite and have the shape \[N, …\]"),
        ({"x0": np.full((3, 2), np.nan)}, "x0 must be finite"),
        ({"num_steps": 0}, "num_steps=0 must be ≥ 1"),
        ({"batch_size": 12}, "batch_size=12 must be a positive multiple of the 8 devices"),
        ({"ema_decay": 1.0}, r"ema_decay=1.0 must be within \[0, 1\)"),
        ({"target": "edm"}, "target='edm' must be one of 'eps', 'x0', 'v', 'flow'"),
    ],
)
def test_wrong_calls(changes, message):
    options = {"x0": np.zeros((3, 2)), "num_steps": 1, "batch_size": 8, "progress": False} | changes
    with pytest.raises(ValueError, match=message):
        dj.train(Point(), SCHEDULE, **options)


def test_a_loss_that_is_not_finite_ends_it():
    with pytest.raises(FloatingPointError, match="within the last 2 of 2 steps"):
        dj.train(Point("x0"), SCHEDULE, np.full((4, 2), 3e38), num_steps=2, batch_size=8, target="x0", progress=False)
