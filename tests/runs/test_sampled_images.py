"""The images that a run samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax.errors import UserError
from diffjax.runs import build, resolve, saved
from diffjax.runs.run import Run
from diffjax.training.checkpoints import Checkpoints

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


def test_images_that_are_not_finite_end_in_one_line():
    """A network with one NaN, and one whose output overflows."""
    config = resolve.override({}, TINY | {"sample.clip": None})
    task = build.task(config)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), build.params_shape(task))
    for value, why in ((jnp.nan, "so are its parameters"), (3.4e38, "its parameters are finite")):
        bias = params["conv_out"]["bias"].at[0].set(value)
        run = Run(config, task, params | {"conv_out": params["conv_out"] | {"bias": bias}})
        with pytest.raises(
            UserError, match=f"^sample 0 of this network is not finite, like 2 of 2 in its batch; {why}"
        ):
            run.sample(2, batch_size=2)


def test_a_checkpoint_that_is_not_finite_is_not_loaded(tiny_config, tmp_path, monkeypatch):
    config = tiny_config(model__attention_resolutions=())
    saved.save(config, tmp_path)
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan), build.params_shape(build.task(config)))
    monkeypatch.setattr(Checkpoints, "restore_params", lambda self, like, ema: (7, params))
    with pytest.raises(UserError, match=f"^the parameters of {tmp_path} at step 7 are not all finite"):
        dj.runs.load(tmp_path)
