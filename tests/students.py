"""Tiny students and teachers, for tests that do not depend on what a network computes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from diffjax.runs import build, resolve, saved
from diffjax.training import state
from diffjax.training.checkpoints import Checkpoints

TINY = {
    "schedule.num_timesteps": 20,
    "model.name": "students:Mlp",
    "train.steps": 4,
    "train.batch_size": 8,
    "train.ema_decays": (0.9,),
    "train.checkpoint_every": 2,
    "train.final_pictures": False,
}
DISTILL = {"task.name": "distillation", "task.num_steps": 4, "train.target": "v", "task.teacher_target": "eps"}


class Mlp(nn.Module):
    """A network of each pixel alone, which compiles in no time."""

    out_channels: int
    width: int = 4

    @nn.compact
    def __call__(self, x, t, label=None, image=None, *, train=False):
        h = nn.swish(nn.Dense(self.width)(x) + nn.Dense(self.width)(t[:, None] / 20.0)[:, None, None, :])
        return nn.Dense(self.out_channels)(h)


def tiny_config(fields=None):
    """Returns the resolved config with some fields changed."""
    return resolve.override({}, TINY | (fields or {}))


def write_run(workdir, fields=None, seed=0):
    """Saves a run with random parameters, and returns the average that others load."""
    config = tiny_config({"sample.num_steps": 5} | (fields or {}))
    shapes, rng = build.params_shape(build.task(config)), np.random.default_rng(seed)
    params, average = (
        jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), shapes) for _ in range(2)
    )
    begun = state.create(lambda key: params, optax.identity(), jax.random.key(0), ema_decays=(0.9,))
    saved.save(config, workdir)
    with Checkpoints(workdir, keep=1) as checkpoints:
        checkpoints.save(begun.replace(ema_params={0.9: average}), {})
    return average
