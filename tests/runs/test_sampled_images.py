"""The images that a run samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax.runs import build, resolve
from diffjax.runs.run import Run

TINY = {
    "schedule.num_timesteps": 50,
    "model.base_channels": 4,
    "model.channel_mults": (1,),
    "model.num_res_blocks": 1,
    "model.num_groups": 2,
    "model.attention_resolutions": (),
    "sample.num_steps": 5,
    "sample.eta": 1.0,
}


@pytest.mark.usefixtures("quick_compilation")
def test_images_are_clipped_samples_in_uint8():
    config = resolve.override({}, TINY)
    task = build.task(config)
    rng = np.random.default_rng(0)
    shapes = build.params_shape(task)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32), shapes)
    run = Run(config, task, params)
    options = {"seed": 3, "num": 5, "batch_size": 2}
    pictures = list(run.batches(**options))
    samples = list(dj.sample_many(run.sampler, run.predictor(), (8, 8, 1), clip=1.0, **options))
    assert [start for start, _ in pictures] == [0, 2, 4]
    for (_, picture), (_, x) in zip(pictures, samples, strict=True):
        np.testing.assert_array_equal(picture, dj.viz.to_uint8(x))
    unclipped = [dj.viz.to_uint8(x) for _, x in dj.sample_many(run.sampler, run.predictor(), (8, 8, 1), **options)]
    assert not np.array_equal(np.concatenate(unclipped), np.concatenate([picture for _, picture in pictures]))
