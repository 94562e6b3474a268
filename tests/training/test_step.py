import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax import data, models, schedules
from diffjax.tasks.generation import Generation
from diffjax.training import ema, optimizers, packing, reporting, state
from diffjax.training.step import NUM_BUCKETS, check_batch_size, make_train_step, put_batches, put_on_device, replicate
from diffjax.training.timestep_sampling import initial_history

MODEL = models.UNet(
    base_channels=8, channel_mults=(1,), num_res_blocks=1, attention_resolutions=(), num_groups=4, dropout=0.0
)
T = 8
SCHEDULE = schedules.linear(T)
BATCH = 16


def toy_loss(params, batch, t, keys, dropout_key):
    """A linear fit of noise: every input of a loss matters, and it compiles in no time."""
    x = batch["image"] / 255
    noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
    return jnp.mean((x @ params["w"] + params["b"] * t[:, None] / T - noise) ** 2, axis=1)


def toy_init(key):
    w, b = jax.random.normal(key, (2, 4, 3))
    return {"w": w, "b": b[0]}


def images(steps, bad=()):
    rng = np.random.default_rng(0)
    batches = [{"image": rng.integers(0, 256, (BATCH, 4)).astype(np.float32)} for _ in range(steps)]
    for step in bad:
        batches[step]["image"][5, 2] = np.nan
    return batches


def start(optimizer, num_devices, init=toy_init, ema_decays=(0.9,), timestep_sampling="uniform"):
    history = initial_history(timestep_sampling, T)
    create = partial(state.create, init, optimizer, ema_decays=ema_decays, history=history)
    options = {"xla_backend_optimization_level": 0}
    return replicate(jax.jit(create, compiler_options=options)(jax.random.key(0)), jax.devices()[:num_devices])


def run(num_devices, batches, *, loss=toy_loss, init=toy_init, ema_decays=(0.9,), **options):
    """(last state, metrics of each step)."""
    optimizer, devices = optax.adam(2e-3), jax.devices()[:num_devices]
    per_call = options.get("steps_per_call", 1)
    options = {"schedule": SCHEDULE, "batch_size": BATCH, "devices": devices} | options
    train_step = make_train_step(loss, optimizer, **options)
    current = start(optimizer, num_devices, init, ema_decays, options.get("timestep_sampling", "uniform"))
    calls = []
    for first in range(0, len(batches), per_call):
        current, metrics = train_step(current, put_batches(batches[first : first + per_call], devices))
        calls.append(jax.device_get(metrics))
    return current, {name: np.concatenate([m[name] for m in calls]) for name in calls[0]}


@cache
def run_unet(num_devices, model=MODEL):
    """As `run`, for 8 steps."""
    batches = data.batches(data.digits(), batch_size=BATCH, seed=0)
    task = Generation(model, schedules.linear(100), (8, 8, 1))
    return run(num_devices, [next(batches) for _ in range(8)], loss=task.loss(), init=task.init, schedule=task.schedule)


def assert_close(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_allclose(x, y, **{"rtol": 0, "atol": 0} | tolerance)


def test_one_device_and_eight_train_the_same_network():
    (one, metrics_one), (eight, metrics_eight) = (run_unet(count) for count in (1, 8))
    np.testing.assert_allclose(metrics_one["loss"], metrics_eight["loss"], rtol=1e-5)
    assert metrics_one["loss"][-1] < metrics_one["loss"][0]
    assert_close((one.params, one.ema_params), (eight.params, eight.ema_params), atol=1e-5)
    # No device axis, and the same on each.
    assert jax.tree.map(jnp.shape, one.params) == jax.tree.map(jnp.shape, eight.params)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(eight.params))


@pytest.mark.parametrize(
    ("timestep_sampling", "accumulate"), [("uniform", 1), ("antithetic", 2), ("low_discrepancy", 1), ("importance", 2)]
)
def test_one_device_and_eight_agree_to_1e_9_in_float64(x64, timestep_sampling, accumulate):
    one, metrics_one = run(1, images(12), timestep_sampling=timestep_sampling)
    eight, metrics_eight = run(8, images(12), timestep_sampling=timestep_sampling, grad_accumulation_steps=accumulate)
    assert_close(one, eight, atol=1e-9)
    assert_close(metrics_one, metrics_eight, atol=1e-9)
    assert one.params["w"].dtype == np.float64


@pytest.mark.parametrize("timestep_sampling", ["uniform", "importance"])
def test_three_steps_a_call_are_three_calls(timestep_sampling):
    singles, metrics = run(2, images(12), timestep_sampling=timestep_sampling)
    triples, metrics_of_triples = run(2, images(12), timestep_sampling=timestep_sampling, steps_per_call=3)
    assert_close(singles, triples, rtol=1e-5, atol=1e-6)
    assert_close(metrics, metrics_of_triples, rtol=1e-5, atol=1e-6)
    assert int(triples.step) == 12


def test_four_micro_batches_are_one_batch():
    whole, metrics = run(2, images(6))
    parts, metrics_of_parts = run(2, images(6), grad_accumulation_steps=4)
    assert_close(whole, parts, rtol=1e-5, atol=1e-6)
    assert_close(metrics, metrics_of_parts, rtol=1e-5)


def test_two_averages_are_two_runs():
    both, _ = run(1, images(6), ema_decays=(0.2, 0.5))
    for decay in (0.2, 0.5):
        alone, _ = run(1, images(6), ema_decays=(decay,))
        assert_close(both.ema_params[decay], alone.ema_params[decay])
    assert not np.allclose(both.ema_params[0.2]["w"], both.ema_params[0.5]["w"], rtol=1e-5)


def test_step_is_sgd_on_the_mean_gradient_and_ema_follows():
    # A loss with a known gradient: mean over the batch of w·image.
    def loss(params, batch, t, keys, dropout_key):
        return params["w"] * batch["image"][:, 0]

    optimizer = optax.sgd(0.5)
    current = start(optimizer, 8, lambda key: {"w": jnp.float32(3.0)}, (0.5,))
    train_step = make_train_step(loss, optimizer, schedule=SCHEDULE, batch_size=16, devices=jax.devices())
    batch = put_batches([{"image": np.arange(16, dtype=np.float32).reshape(16, 1)}], jax.devices())
    w, average = 3.0, 3.0
    for n in range(3):
        current, metrics = train_step(current, batch)
        assert float(metrics["loss"][0]) == pytest.approx(w * 7.5)
        assert float(metrics["grad_norm"][0]) == pytest.approx(7.5)
        w -= 0.5 * 7.5
        decay = min(0.5, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * w
        assert float(current.params["w"]) == pytest.approx(w)
        assert float(current.ema_params[0.5]["w"]) == pytest.approx(average)
        assert int(current.step) == n + 1


def test_noise_and_timesteps_are_sampled_by_example_anew_each_step():
    def seen(num_devices, accumulate=1):
        sampled = []

        def loss(params, batch, t, keys, dropout_key):
            noise = jax.vmap(jax.random.normal)(keys)
            jax.debug.callback(lambda *d: sampled.append(np.transpose(d)), batch["image"][:, 0], t, noise)
            return params["w"].sum() * noise

        numbered = [{"image": np.arange(BATCH, dtype=np.float32).reshape(-1, 1)}] * 2
        run(num_devices, numbered, loss=loss, grad_accumulation_steps=accumulate)
        jax.effects_barrier()
        rows = np.concatenate(sampled)
        return rows[np.lexsort(rows.T)]

    one, four = seen(1), seen(4, accumulate=2)
    np.testing.assert_array_equal(one, four)
    assert len(np.unique(one[:, 2])) == 2 * BATCH


@pytest.mark.parametrize("timestep_sampling", ["uniform", "importance"])
def test_a_bad_batch_changes_nothing_and_is_counted(timestep_sampling):
    good, _ = run(1, images(3), timestep_sampling=timestep_sampling)
    skipped, metrics = run(1, images(5, bad=(3, 4)), timestep_sampling=timestep_sampling)
    for field in ("params", "ema_params", "opt_state", "history", "key"):
        assert_close(getattr(skipped, field), getattr(good, field))
    assert (int(skipped.step), int(skipped.skipped)) == (5, 2)
    assert metrics["skipped"].tolist() == [0, 0, 0, 1, 2]
    assert metrics["finite"].shape == (5, BATCH)
    assert np.all(metrics["finite"], axis=1).tolist() == [True] * 3 + [False] * 2
    assert np.isfinite(metrics["loss"]).tolist() == [True] * 3 + [False] * 2
    # The next good batch ends the row, and trains.
    after, metrics = run(1, images(6, bad=(3, 4)), timestep_sampling=timestep_sampling)
    assert metrics["skipped"][-1] == 0
    assert not np.array_equal(after.params["w"], good.params["w"])
    report = reporting.summarize([metrics])
    assert report["skipped"] == 2
    assert report["loss"] == pytest.approx(np.mean(metrics["loss"][[0, 1, 2, 5]]))


def test_an_infinite_gradient_of_a_finite_loss_is_skipped_too():
    def loss(params, batch, t, keys, dropout_key):
        return jnp.sqrt(jnp.abs(params["w"].sum())) * batch["image"][:, 0]

    zeros = {"w": jnp.zeros(2)}
    end, metrics = run(1, images(1), loss=loss, init=lambda key: zeros)
    assert metrics["loss"][0] == 0
    assert metrics["skipped"][0] == 1
    assert_close(end.params, zeros)


@pytest.mark.parametrize("timestep_sampling", ["uniform", "importance"])
def test_the_loss_by_part_of_the_schedule(timestep_sampling):
    def loss(params, batch, t, keys, dropout_key):
        return 0 * params["w"].sum() + 1.0 + t

    _, metrics = run(1, images(40), loss=loss, timestep_sampling=timestep_sampling)
    np.testing.assert_allclose(metrics["bucket_loss"].sum(1) / BATCH, metrics["loss"], rtol=1e-5)
    report = reporting.summarize([{name: column[:15] for name, column in metrics.items()},
                                {name: column[15:] for name, column in metrics.items()}])  # fmt: skip
    # Mean of 1 + t over t = 0, 1; 2, 3; …
    found = [report[f"loss_t{n}"] for n in range(NUM_BUCKETS)]
    np.testing.assert_allclose(found, [1.5, 3.5, 5.5, 7.5], atol=0.15)
    assert report["loss"] == pytest.approx(4.5, abs=0.4)
    assert report.keys() == {"skipped", "loss", "grad_norm", *(f"loss_t{n}" for n in range(NUM_BUCKETS))}


def test_a_report_of_skipped_steps_alone():
    bad = {"loss": np.array([np.nan]), "grad_norm": np.array([np.nan]), "skipped": np.array([1]),
           "bucket_loss": np.full((1, 4), np.nan), "bucket_weight": np.ones((1, 4))}  # fmt: skip
    assert reporting.summarize([bad]) == {"skipped": 1.0}


@pytest.fixture
def optimized():
    """Compiles as training does."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
    ("timestep_sampling", "accumulate", "large"),
    [("uniform", 1, packing.LARGE), ("importance", 2, packing.LARGE), ("uniform", 1, 5)],
)
def test_one_all_reduce_a_step_carries_gradients_and_losses_alone(monkeypatch, timestep_sampling, accumulate, large):
    monkeypatch.setattr(packing, "LARGE", large)
    optimizer, devices = optax.adam(1e-3), jax.devices()[:2]
    train_step = make_train_step(
        toy_loss, optimizer, schedule=SCHEDULE, batch_size=BATCH, devices=devices,
        timestep_sampling=timestep_sampling, grad_accumulation_steps=accumulate,
    )  # fmt: skip
    current = start(optimizer, 2, timestep_sampling=timestep_sampling)
    program = jax.jit(train_step).lower(current, put_batches(images(1), devices)).compile().as_text()
    assert not re.findall(r"= .*\b(?:all-gather|all-to-all|collective-permute|reduce-scatter)[\w-]*\(", program)
    assert not re.findall(r"\b(?:infeed|outfeed|send|recv)\(|callback", program)
    (result,) = re.findall(r"= (.*)\ball-reduce(?:-start)?\(", program)
    sizes = [np.prod([int(n) for n in shape.split(",") if n]) for shape in re.findall(r"f32\[([\d,]*)\]", result)]
    assert sum(sizes) == 4 * 3 + 3 + BATCH
    assert result.count("[") == len(sizes)


def test_nothing_goes_to_or_from_the_host_in_the_hot_loop():
    optimizer, devices = optax.adam(1e-3), jax.devices()[:2]
    train_step = make_train_step(toy_loss, optimizer, schedule=SCHEDULE, batch_size=BATCH, devices=devices)
    current = start(optimizer, 2)
    batches = [put_batches([batch], devices) for batch in images(4)]
    on_the_host = jax.device_get(batches[0])
    current, _ = train_step(current, batches[0])
    with jax.transfer_guard("disallow"):
        for batch in batches[1:]:
            current, metrics = train_step(current, batch)
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            train_step(current, on_the_host)
    assert np.isfinite(metrics["loss"]).all()


def test_one_program_for_every_learning_rate_of_a_run(count_compilations):
    rates = optimizers.learning_rate(0.1, warmup_steps=2, lr_schedule="cosine", num_steps=6)
    optimizer, devices = optimizers.optimizer("adam", rates, grad_clip_norm=1.0), jax.devices()[:2]
    train_step = make_train_step(toy_loss, optimizer, schedule=SCHEDULE, batch_size=BATCH, devices=devices)
    current, batches = start(optimizer, 2), [put_batches([batch], devices) for batch in images(6)]
    seen = [np.asarray(current.params["w"])]
    for n, batch in enumerate(batches):
        current, _ = train_step(current, batch)
        seen.append(np.asarray(current.params["w"]))
        assert count_compilations() == 0 or n == 0
    moved = np.abs(np.diff(seen, axis=0)).max(axis=(1, 2))
    # Adam's first moves are of the rate's own size: none, half of it, all of it; the last are small again.
    assert moved[0] == 0
    assert moved[5] < moved[1] < moved[2]


def test_another_run_s_learning_rate_is_the_same_program():
    def program(peak, grad_clip_norm=1.0):
        rate = optimizers.learning_rate(peak, warmup_steps=2, lr_schedule="cosine", num_steps=6)
        optimizer, devices = optimizers.optimizer("adamw", rate, grad_clip_norm=grad_clip_norm), jax.devices()[:2]
        train_step = make_train_step(toy_loss, optimizer, schedule=SCHEDULE, batch_size=BATCH, devices=devices)
        return jax.jit(train_step).lower(start(optimizer, 2), put_batches(images(1), devices)).as_text()

    assert program(0.1) == program(0.2)
    assert program(0.1) != program(0.1, grad_clip_norm=2.0)


def test_state_is_consumed():
    optimizer = optax.adam(1e-3)
    train_step = make_train_step(toy_loss, optimizer, schedule=SCHEDULE, batch_size=BATCH, devices=jax.devices())
    current = start(optimizer, 8)
    train_step(current, put_batches(images(1), jax.devices()))
    assert current.params["w"].is_deleted()
    assert current.ema_params[0.9]["w"].is_deleted()


@pytest.mark.parametrize("steps_per_call", [1, 3])
def test_batches_of_data_on_the_devices_are_sampled_inside(steps_per_call):
    everything = np.random.default_rng(1).random((50, 4)).astype(np.float32)

    def choose(data, key, step, n):
        return jax.tree.map(lambda column: column[(7 * step + 3 * n) % len(column)], data)

    batches = [{"image": everything[(7 * step + 3 * np.arange(BATCH)) % 50]} for step in range(6)]
    given, metrics_given = run(2, batches)

    optimizer, devices = optax.adam(2e-3), jax.devices()[:2]
    train_step = make_train_step(
        toy_loss, optimizer, schedule=SCHEDULE, batch_size=BATCH, devices=devices,
        steps_per_call=steps_per_call, sample_batch=choose,
    )  # fmt: skip
    current, on_device = start(optimizer, 2), put_on_device({"image": everything}, devices)
    losses = []
    for _ in range(0, 6, steps_per_call):
        current, metrics = train_step(current, on_device)
        losses += metrics["loss"].tolist()
    assert_close(current, given, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(losses, metrics_given["loss"], rtol=1e-5)
    assert not on_device[0]["image"].is_deleted()


def test_bfloat16_arithmetic_trains_float32_parameters():
    _, metrics_single = run_unet(1)
    half, metrics_half = run_unet(1, model=MODEL.clone(dtype=jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves((half.params, half.ema_params))} == {np.dtype(np.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(half.opt_state)} == {np.dtype(np.float32), np.dtype(np.int32)}
    np.testing.assert_allclose(metrics_half["loss"], metrics_single["loss"], rtol=0.02)
    assert not np.array_equal(metrics_half["loss"], metrics_single["loss"])


def test_every_device_step_and_micro_batch_has_a_dropout_key_of_its_own():
    seen = []

    def loss(params, batch, t, keys, dropout_key):
        jax.debug.callback(lambda bits: seen.append(tuple(np.ravel(bits))), jax.random.key_data(dropout_key))
        return params["w"].sum() * jnp.ones(len(keys))

    run(8, images(2), loss=loss, grad_accumulation_steps=2)
    jax.effects_barrier()
    assert len(seen) == len(set(seen)) == 32


def test_ema_warms_up_from_the_parameters():
    assert [float(ema.decay_at(jnp.int32(n), 0.999)) for n in (0, 90)] == pytest.approx([0.1, 0.91])
    assert float(ema.decay_at(jnp.int32(10**6), 0.999)) == pytest.approx(0.999)
    fresh = start(optax.adam(1.0), 1, ema_decays=(0.9, 0.99))
    for average in fresh.ema_params.values():
        assert_close(average, fresh.params)


@pytest.mark.parametrize(
    ("size", "devices", "accumulate", "words"),
    [
        (12, 8, 1, "batch_size=12 must be a positive multiple of the 8 devices$"),
        (0, 1, 1, "batch_size=0 must"),
        (-8, 8, 1, "batch_size=-8 must"),
        (24, 8, 2, "batch_size=24 must be a positive multiple of the 8 devices times grad_accumulation_steps=2"),
        (24, 8, 0, "grad_accumulation_steps=0 must be ≥ 1"),
    ],
)
def test_a_batch_that_does_not_divide(size, devices, accumulate, words):
    with pytest.raises(ValueError, match=words):
        check_batch_size(size, devices, accumulate)


def test_a_batch_of_another_size_than_given():
    with pytest.raises(ValueError, match=r"a device got \[8\] examples; its share of batch_size=32 is 16"):
        run(2, images(1), batch_size=32)
