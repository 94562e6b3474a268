"""A schedule, small networks and examples for the tests of tasks."""

import jax
import jax.numpy as jnp
import numpy as np

import diffjax as dj

SCHEDULE = dj.schedules.linear(20, beta_start=1e-3, beta_end=0.4)
SHAPE = (8, 8, 1)
TINY = dj.models.UNet(
    base_channels=4,
    channel_mults=(1, 1),
    num_res_blocks=1,
    attention_resolutions=(),
    middle_attention=False,
    num_groups=2,
    dropout=0.0,
)


class Toy:
    """A network of two parameters, whose output depends on each pixel alone and on the noise level."""

    def init(self, key, x, t, image=None):
        return {"params": {"x": jnp.float32(0.7), "image": jnp.float32(0.2)}}

    def apply(self, variables, x, t, image=0.0, **_):
        params = variables["params"]
        return jnp.sin(params["x"] * x + params["image"] * image) * (1 + jnp.reshape(t, (-1, 1, 1, 1)) / 500)


TOY = Toy()


def random_params(task, seed=0):
    """Parameters of which none is zero."""
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32), shapes)


def batch(count=4, shape=SHAPE):
    rng = np.random.default_rng(1)
    return {name: rng.integers(0, 256, (count, *shape), np.uint8) for name in ("image", "condition")}
