from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax import data, models, schedules
from diffjax.tasks import generation
from diffjax.training import ema, setup, state
from diffjax.training.step import check_batch_size, make_train_step, replicate, split_batch

MODEL = models.UNet(channels=8, multipliers=(1,), num_res_blocks=1, attention_resolutions=(), groups=4, dropout=0.0)


@cache
def initial_parameters():
    init = jax.jit(partial(setup.init_params, MODEL, (8, 8, 1)), compiler_options={"xla_backend_optimization_level": 0})
    return jax.device_get(init(jax.random.key(0)))


def run(num_devices, steps=20):
    devices = jax.devices()[:num_devices]
    optimizer = optax.adam(2e-3)
    loss = generation.loss(schedules.linear(100), MODEL, norm="l2")
    params = jax.tree.map(jnp.asarray, initial_parameters())
    current = replicate(state.create(lambda key: params, optimizer, jax.random.key(1)), devices)
    train_step = make_train_step(loss, optimizer, ema_decay=0.9, devices=devices)
    batches = data.batches(data.digits(), batch_size=16, seed=0)
    losses = []
    for _ in range(steps):
        current, metrics = train_step(current, split_batch(next(batches), num_devices))
        losses.append(float(metrics["loss"]))
    return current, losses


@pytest.mark.usefixtures("quick_compilation")
def test_one_device_and_eight_learn_the_same():
    one, losses_one = run(1)
    eight, losses_eight = run(8)
    np.testing.assert_allclose(losses_one, losses_eight, rtol=1e-5)
    assert losses_one[-1] < losses_one[0]
    for part in ("params", "ema_params"):
        for a, b in zip(*(jax.tree.leaves(getattr(s, part)) for s in (one, eight)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    # No device axis, and the same on each.
    assert jax.tree.map(jnp.shape, one.params) == jax.tree.map(jnp.shape, eight.params)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(eight.params))


def test_step_is_sgd_on_the_mean_gradient_and_ema_follows():
    # A loss with a known gradient: mean over the batch of w·image.
    def loss(params, batch, keys, dropout_key):
        return params["w"] * batch["image"].reshape(len(keys), -1).astype(jnp.float32).mean(1)

    optimizer = optax.sgd(0.5)
    current = replicate(state.create(lambda key: {"w": jnp.float32(3.0)}, optimizer, jax.random.key(0)), jax.devices())
    train_step = make_train_step(loss, optimizer, ema_decay=0.5, devices=jax.devices())
    image = np.arange(16, dtype=np.uint8).reshape(16, 1)
    w, average = 3.0, 3.0
    for n in range(3):
        current, metrics = train_step(current, split_batch({"image": image}, 8))
        assert float(metrics["loss"]) == pytest.approx(w * 7.5)
        assert float(metrics["grad_norm"]) == pytest.approx(7.5)
        w -= 0.5 * 7.5
        decay = min(0.5, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * w
        assert float(current.params["w"]) == pytest.approx(w)
        assert float(current.ema_params["w"]) == pytest.approx(average)
        assert int(current.step) == n + 1


def test_noise_and_timesteps_are_drawn_by_example_anew_each_step():
    seen = {}

    def loss(params, batch, keys, dropout_key):
        draws = jax.vmap(jax.random.normal)(keys)
        jax.debug.callback(
            lambda *column: seen.update(zip(*map(np.ravel, column), strict=True)), batch["number"], draws
        )
        return params["w"] * draws

    def draws(num_devices):
        devices = jax.devices()[:num_devices]
        optimizer = optax.sgd(0.0)
        current = state.create(lambda key: {"w": jnp.float32(0.0)}, optimizer, jax.random.key(0))
        current = replicate(current, devices)
        train_step = make_train_step(loss, optimizer, ema_decay=0.5, devices=devices)
        steps = []
        for _ in range(2):
            seen.clear()
            current, _ = train_step(current, split_batch({"number": np.arange(8)}, num_devices))
            jax.effects_barrier()
            steps.append([seen[number] for number in range(8)])
        return np.array(steps)

    one, four = draws(1), draws(4)
    np.testing.assert_array_equal(one, four)
    assert len(np.unique(one)) == 16


def test_state_is_consumed():
    optimizer = optax.sgd(0.1)
    current = replicate(state.create(lambda key: {"w": jnp.ones(4)}, optimizer, jax.random.key(0)), jax.devices())
    train_step = make_train_step(
        lambda params, batch, keys, dropout_key: jnp.sum(params["w"]) * jnp.ones(len(keys)),
        optimizer, ema_decay=0.5, devices=jax.devices(),
    )  # fmt: skip
    train_step(current, split_batch({"image": np.zeros((8, 1))}, 8))
    assert current.params["w"].is_deleted()
    assert current.ema_params["w"].is_deleted()


def test_every_device_and_step_has_a_dropout_key_of_its_own():
    seen = []

    def loss(params, batch, keys, dropout_key):
        jax.debug.callback(lambda bits: seen.append(tuple(np.ravel(bits))), jax.random.key_data(dropout_key))
        return params["w"] * jnp.ones(len(keys))

    optimizer = optax.sgd(0.0)
    current = replicate(state.create(lambda key: {"w": jnp.ones(())}, optimizer, jax.random.key(0)), jax.devices())
    train_step = make_train_step(loss, optimizer, ema_decay=0.5, devices=jax.devices())
    for _ in range(2):
        current, _ = train_step(current, split_batch({"image": np.zeros((8, 1))}, 8))
    jax.effects_barrier()
    assert len(seen) == len(set(seen)) == 16


def test_ema_warms_up_from_the_parameters():
    assert [float(ema.decay_at(jnp.int32(n), 0.999)) for n in (0, 90)] == pytest.approx([0.1, 0.91])
    assert float(ema.decay_at(jnp.int32(10**6), 0.999)) == pytest.approx(0.999)
    fresh = state.create(lambda key: {"w": jnp.full(3, 2.0)}, optax.adam(1.0), jax.random.key(0))
    np.testing.assert_array_equal(fresh.ema_params["w"], fresh.params["w"])


@pytest.mark.parametrize(("size", "devices"), [(12, 8), (0, 1), (-8, 8)])
def test_batch_that_cannot_be_shared_out(size, devices):
    with pytest.raises(ValueError, match=f"batch_size={size} must be a positive multiple of the {devices} devices"):
        check_batch_size(size, devices)
