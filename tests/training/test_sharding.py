"""Training whose optimizer state and averages are shards equals training with whole ones."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax import data, schedules
from diffjax.errors import UserError
from diffjax.runs import build, resolve, run
from diffjax.runs.train import train
from diffjax.tasks.generation import Generation
from diffjax.training import optimizers, packing
from diffjax.training.step import make_train_step, put_batches
from tests.training.test_step import BATCH, MODEL, SCHEDULE, assert_close, images, start, toy_init, toy_loss


def optimizer(name="adamw", grad_clip_norm=0.1):
    rate = optimizers.learning_rate(2e-3, warmup_steps=2, lr_schedule="constant", num_steps=12)
    return optimizers.optimizer(name, rate, grad_clip_norm=grad_clip_norm)


def trained(num_devices, batches, *, shard, loss=toy_loss, init=toy_init, schedule=SCHEDULE, made=None, **options):
    """(whole state at the end, metrics of each step, state as the step takes it)."""
    made, devices = made or optimizer(), jax.devices()[:num_devices]
    step = make_train_step(
        loss, made, schedule=schedule, batch_size=BATCH, devices=devices, shard_optimizer=shard, **options
    )
    current = step.shard(start(made, num_devices, init, (0.9, 0.99)))
    metrics = []
    for batch in batches:
        current, found = step(current, put_batches([batch], devices))
        metrics.append(jax.device_get(found))
    return step.gather(current), metrics, current


@pytest.mark.parametrize("num_devices", [1, 2, 8])
@pytest.mark.parametrize("large", [1 << 16, 5])
@pytest.mark.parametrize(("name", "grad_clip_norm"), [("adamw", 0.1), ("adam", None)])
def test_shards_are_the_whole(x64, monkeypatch, num_devices, large, name, grad_clip_norm):
    monkeypatch.setattr(packing, "LARGE", large)
    made = optimizer(name, grad_clip_norm)
    whole, metrics, _ = trained(num_devices, images(8, bad=(3,)), shard=False, made=made)
    shards, metrics_of_shards, current = trained(num_devices, images(8, bad=(3,)), shard=True, made=made)
    assert jax.tree.structure(whole) == jax.tree.structure(shards)
    assert_close(whole, shards, rtol=1e-12, atol=1e-14)
    assert_close(metrics, metrics_of_shards, rtol=1e-12)
    assert [int(found["skipped"][0]) for found in metrics_of_shards] == [0, 0, 0, 1, 0, 0, 0, 0]
    small = 15 if large > 12 else 3  # w has 12 numbers, b has 3
    assert current.ema_params[0.9].small.shape == (num_devices, -(-small // num_devices))


def test_float32_to_its_rounding():
    whole, _, _ = trained(8, images(8), shard=False)
    shards, _, _ = trained(8, images(8), shard=True)
    assert_close((whole.params, whole.ema_params), (shards.params, shards.ema_params), atol=1e-6)


@pytest.mark.slow
def test_a_network_in_float32():
    batches = data.batches(data.digits(), batch_size=BATCH, seed=0)
    batches = [next(batches) for _ in range(4)]
    task = Generation(MODEL, schedules.linear(100), (8, 8, 1))
    same = {"loss": task.loss(), "init": task.init, "schedule": task.schedule}
    whole, _, _ = trained(8, batches, shard=False, **same)
    shards, _, _ = trained(8, batches, shard=True, **same)
    assert_close((whole.params, whole.ema_params), (shards.params, shards.ema_params), atol=1e-6)


def test_each_device_holds_its_share_alone():
    _, _, current = trained(4, images(1), shard=True)
    for leaf in jax.tree.leaves((current.ema_params, current.opt_state)):
        assert {shard.data.shape for shard in leaf.addressable_shards} == {(1, *leaf.shape[1:])}


def test_gradients_are_scattered_and_parameters_gathered():
    devices, made = jax.devices()[:2], optimizer()
    step = make_train_step(toy_loss, made, schedule=SCHEDULE, batch_size=BATCH, devices=devices, shard_optimizer=True)
    shapes = jax.eval_shape(lambda state: state, start(made, 2))
    text = step.lower(shapes, put_batches(images(1), devices)).as_text()
    assert len(re.findall("reduce_scatter", text)) >= 1
    assert len(re.findall("all_gather", text)) >= 1


def test_a_checkpoint_is_read_either_way(tiny_config, tmp_path):
    fields = {"train__steps": 6, "train__checkpoint_every": 3, "train__sample_every": 3, "train__final_pictures": False}
    config = tiny_config(**fields, optimizer__lr_schedule="constant")
    whole = train(config, tmp_path / "whole", progress=False)

    def half(path, first, then):
        for steps, shard in ((3, first), (6, then)):
            changed = {"train.steps": steps, "train.shard_optimizer": shard}
            state = train(resolve.override(config, changed), path, progress=False)
        return state

    for n, (first, then) in enumerate(((True, False), (False, True))):
        found = half(tmp_path / str(n), first, then)
        assert_close(found.params, whole.params, atol=1e-6)
        loaded = run.load(tmp_path / str(n))
        assert_close(loaded.params, found.ema_params[loaded.ema], atol=0)


def test_a_task_with_fixed_parameters_is_refused(tiny_config, monkeypatch):
    monkeypatch.setattr(Generation, "wrap_optimizer", lambda self, made: optax.chain(made, optax.set_to_zero()))
    config = resolve.resolve(tiny_config(train__shard_optimizer=True))
    with pytest.raises(UserError, match="config.train.shard_optimizer: True needs a task that trains all"):
        build.optimizer(config, build.task(config))


def test_shards_of_odd_sizes_are_joined():
    values = {"w": jnp.arange(12.0).reshape(4, 3), "b": jnp.arange(3.0)}
    state, _, _ = trained(8, [], shard=True, init=lambda key: values)
    assert_close(state.ema_params, {0.9: values, 0.99: values}, atol=0)
    np.testing.assert_array_equal(state.params["w"], values["w"])
