import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import diffjax as dj
from diffjax import loop, samplers, schedules, timesteps

SCHEDULE = schedules.linear(100)
SHAPE = (4, 4, 2)
NOISY = samplers.ddim(SCHEDULE, timesteps.trailing(100, 5), eta=1.0)


def apply(params, x, t):
    return jnp.tanh(params * x) + 0.01 * t.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) * jnp.cos(x)


def network(scale=0.7):
    return jax.tree_util.Partial(apply, jnp.asarray(scale))


def start(count, seed=0):
    keys = dj.sample_keys(seed, 0, count)
    return keys, dj.initial_noise(keys, SHAPE)


def random_table(rows, history, seed, log_var=False):
    """A table that uses every column there is, and of history what the rows before have left."""
    rng = np.random.default_rng(seed)
    base = samplers.ddim(SCHEDULE, timesteps.trailing(100, rows), eta=1.0)
    return dataclasses.replace(
        base,
        **{name: rng.uniform(0.1, 0.5, rows) for name in "abcd"},
        x0_history=rng.normal(size=(rows, history)) * np.tri(rows, history, -1),
        eps_history=rng.normal(size=(rows, max(history - 1, 0))) * np.tri(rows, max(history - 1, 0), -1),
        log_var=np.sort(rng.uniform(-3, 0, (rows, 2))) if log_var else None,
    )


def python_loop(steps, predict, x, keys, clip):
    """The contract in plain Python, row by row."""
    x0s, epss, frac = [], [], 0.0
    for i in range(steps.num_rows):
        answer = predict(x, jnp.full(len(x), steps.t_net[i]))
        if isinstance(answer, dj.Prediction):
            x0, eps, frac = answer
        else:
            eps = answer
            x0 = (x - steps.noise[i] * eps) / steps.signal[i]
        if clip is not None:
            x0 = jnp.clip(x0, -clip, clip)
            if steps.rederive_eps and steps.noise[i] > 0:
                eps = (x - steps.signal[i] * x0) / steps.noise[i]
        x = steps.a[i] * x + steps.b[i] * x0 + steps.c[i] * eps
        x += sum(steps.x0_history[i, k] * x0s[-1 - k] for k in range(min(steps.x0_history.shape[1], len(x0s))))
        x += sum(steps.eps_history[i, k] * epss[-1 - k] for k in range(min(steps.eps_history.shape[1], len(epss))))
        z = jnp.stack([jax.random.normal(jax.random.fold_in(key, i), x.shape[1:]) for key in keys])
        low, high = (0.0, 0.0) if steps.log_var is None else steps.log_var[i]
        x += steps.d[i] * jnp.exp((low + frac * (high - low)) / 2) * z
        x0s.append(x0)
        epss.append(eps)
    return x


def variance_network(x, t):
    eps = apply(0.7, x, t)
    return dj.Prediction(x0=0.3 * x - eps, eps=eps, log_var_frac=jax.nn.sigmoid(x))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("history", "clip", "learned", "rederive"),
    [  # every pair of values once
        (0, None, False, False), (0, 0.8, True, True), (1, None, True, True), (1, 0.8, False, False),
        (3, None, True, False), (3, 0.8, False, True),
    ],
)  # fmt: skip
def test_the_scan_is_the_python_loop(history, clip, learned, rederive):
    steps = dataclasses.replace(random_table(7, history, 0, learned), rederive_eps=rederive)
    keys = dj.sample_keys(0, 0, 3)
    x = dj.initial_noise(keys, SHAPE, jnp.float64)
    predict = variance_network if learned else network()
    expected = python_loop(steps, predict, x, keys, clip)
    np.testing.assert_allclose(dj.sample(steps, predict, x, keys, clip=clip), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 2, 19, 20, 41, 53, 97])
def test_chunks_change_nothing(rows):
    steps = random_table(rows, 2, rows)
    keys, x = start(2)
    whole = dj.sample(steps, network(), x, keys, clip=1.0)
    np.testing.assert_array_equal(dj.sample(steps, network(), x, keys, clip=1.0, progress=True), whole)
    np.testing.assert_array_equal(dj.sample(steps, network(), x, keys, clip=1.0, debug=True), whole)


LEARNED = samplers.ddpm(SCHEDULE, timesteps.trailing(100, 12), variance="learned_range")


@pytest.mark.parametrize("length", [1, 5, 11])
@pytest.mark.parametrize(
    ("table", "predict"),
    [
        (samplers.ddpm(SCHEDULE, timesteps.trailing(100, 12)), network()),
        (samplers.ddim(SCHEDULE, timesteps.trailing(100, 12), eta=0.7), network()),
        (LEARNED, variance_network),
    ],
    ids=["ddpm", "ddim", "learned"],
)
def test_a_run_in_parts_is_bit_equal_to_the_whole(table, predict, length):
    keys, x = start(3)
    whole = dj.sample(table, predict, x, keys, clip=1.0)
    for row in range(0, table.num_rows, length):
        x = dj.sample(table[row : row + length], predict, x, keys, clip=1.0, first_row=row)
    np.testing.assert_array_equal(x, whole)


def test_ones_own_loop_over_a_grid_draws_new_noise_at_each_step():
    """Gaussian data of standard deviation 0.5, step by step: the noise of a step is independent of the others'."""
    grid = timesteps.full(100)
    keys = dj.sample_keys(0, 0, 2000)
    x = dj.initial_noise(keys, (1,))

    def exact(x, t):
        alpha_bar = jnp.asarray(SCHEDULE.alpha_bars)[t][:, None]
        return x * jnp.sqrt(1 - alpha_bar) / (1 - 0.75 * alpha_bar)

    for i in range(len(grid) - 1):
        x = dj.sample(samplers.ddpm(SCHEDULE, grid[i : i + 2]), exact, x, keys, first_row=i)
    whole = dj.sample(samplers.ddpm(SCHEDULE, grid), exact, dj.initial_noise(keys, (1,)), keys)
    np.testing.assert_allclose(x, whole, rtol=1e-4, atol=1e-5)
    assert np.std(x) == pytest.approx(0.5, abs=0.03)


def test_a_part_of_a_multistep_table_needs_the_rows_before_it():
    table = samplers.dpm_solver_pp(SCHEDULE, timesteps.trailing(100, 8))
    dj.sample(table[:5], network(), start(2)[1])
    with pytest.raises(ValueError, match="row 0 of this table uses .* rows before the first"):
        dj.sample(table[3:], network(), start(2)[1], first_row=3)
    with pytest.raises(TypeError, match=r"a slice of consecutive rows, .* not 3"):
        table[3]


@pytest.mark.parametrize("options", [{}, {"clip": 1.0}, {"progress": True}, {"debug": True}, {"first_row": 3}])
def test_nothing_is_transferred_implicitly(options):
    keys, x = start(2)
    predict = network()
    with jax.transfer_guard("disallow"):
        dj.sample(NOISY, predict, x, keys, **options)
        dj.sample_trajectory(NOISY, predict, x, keys)


@given(st.integers(1, 5000))
def test_chunks_are_equal_and_waste_little(rows):
    length = loop._chunk_length(rows)
    chunks = -(-rows // length)
    assert chunks <= 40
    assert chunks >= min(rows, 10)
    assert -rows % length <= 0.06 * rows


def test_progress_bar_counts_rows_and_padding_does_not_show(capfd):
    steps = samplers.ddim(SCHEDULE, timesteps.trailing(100, 53))
    dj.sample(steps, network(), start(2)[1], progress="fifty-three")
    err = capfd.readouterr().err
    assert "fifty-three: 100%" in err
    assert "53/53" in err


def test_sample_n_does_not_depend_on_the_batch():
    steps = samplers.ddpm(SCHEDULE, timesteps.full(100))
    keys, x = start(7)
    together = dj.sample(steps, network(), x, keys, clip=1.0)
    for n in range(7):
        key = dj.sample_keys(0, n, 1)
        np.testing.assert_array_equal(jax.random.key_data(key[0]), jax.random.key_data(keys[n]))
        alone = dj.initial_noise(key, SHAPE)
        np.testing.assert_array_equal(alone[0], x[n])  # bit-equal noise
        image = dj.sample(steps, network(), alone, key, clip=1.0)
        np.testing.assert_allclose(image[0], together[n], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8, 64, 65])
def test_noise_is_bit_equal_for_any_batch(batch):
    reference = dj.initial_noise(dj.sample_keys(5, 0, 65), (3, 5))
    np.testing.assert_array_equal(dj.initial_noise(dj.sample_keys(5, 0, batch), (3, 5)), reference[:batch])
    # What a row adds: with a = b = c = 0 and d = 1 the result is the noise itself.
    silent = {name: np.zeros(2) for name in "abc"}
    steps = dataclasses.replace(random_table(2, 0, 0), **silent, d=np.ones(2))
    rows = [dj.sample(steps, network(), jnp.zeros((n, 3, 5)), dj.sample_keys(5, 0, n)) for n in (65, batch)]
    np.testing.assert_array_equal(rows[1], rows[0][:batch])
    assert not np.any(rows[0] == reference)  # and is not the noise that x_T is made of


def test_one_key_stands_for_its_children():
    steps = samplers.ddim(SCHEDULE, timesteps.trailing(100, 5), eta=1.0)
    keys, x = start(3, seed=11)
    np.testing.assert_array_equal(
        dj.sample(steps, network(), x, jax.random.key(11)), dj.sample(steps, network(), x, keys)
    )


def test_seeds_and_numbers_give_different_noise():
    keys = jnp.concatenate([dj.sample_keys(seed, 0, 50) for seed in range(4)])
    noise = dj.initial_noise(keys, (2,))
    assert len(np.unique(noise, axis=0)) == 200
    many = dj.initial_noise(dj.sample_keys(0, 0, 20_000), (2,))
    assert abs(np.mean(many)) < 0.02
    assert np.std(many) == pytest.approx(1, abs=0.02)


def test_second_run_with_other_params_eta_and_key_compiles_nothing(count_compilations):
    grid = timesteps.trailing(100, 20)

    def run(eta, scale, seed, first):
        keys = dj.sample_keys(seed, first, 4)
        x = dj.initial_noise(keys, SHAPE)
        steps = samplers.ddim(SCHEDULE, grid, eta=eta)
        return dj.sample(steps, network(scale), x, keys, clip=1.0 + eta, progress=True).block_until_ready()

    run(0.0, 0.5, 0, 0)
    assert count_compilations() > 0
    run(0.7, 0.9, 1, 4)
    assert count_compilations() == 0
    # Another rule and another sampler of as many rows are other numbers in the same columns too.
    other = samplers.ddpm(schedules.cosine(100), timesteps.leading(100, 20))
    keys, x = start(4)
    dj.sample(other, network(0.1), x, keys, clip=1.0, progress=True).block_until_ready()
    assert count_compilations() == 0


def test_chunks_compile_one_scan_for_parameters_from_a_checkpoint():
    steps = random_table(50, 2, 50)
    scale = jax.device_put(jnp.float32(0.5), jax.local_devices()[0])  # committed, as x is not
    programs = loop.scan._cache_size()
    dj.sample(steps, network(scale), start(3)[1], start(3)[0], progress=True)
    assert loop.scan._cache_size() == programs + 1


def test_an_equal_model_compiles_nothing(count_compilations):
    def run():
        model = dj.models.UNet(
            base_channels=8, channel_mults=(1,), num_groups=4, num_res_blocks=1, attention_resolutions=()
        )
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)), jnp.zeros(1))["params"]
        params = jax.tree.map(lambda p: np.full(p.shape, 0.01, p.dtype), shapes)
        keys = dj.sample_keys(0, 0, 2)
        x = dj.initial_noise(keys, (8, 8, 1))
        count_compilations()
        dj.sample(samplers.ddim(SCHEDULE, [99, 50, -1]), dj.models.predictor(model, params), x).block_until_ready()
        return count_compilations()

    assert run() > 0
    assert run() == 0


def test_vmap_over_a_stack_of_tables():
    tables = [samplers.ddim(SCHEDULE, timesteps.trailing(100, 10), eta=eta) for eta in (0.0, 0.3, 1.0)]
    keys, x = start(2)
    stack = jax.tree.map(lambda *columns: np.stack(columns), *tables)
    together = jax.vmap(lambda steps: dj.sample(steps, network(), x, keys, clip=1.0))(stack)
    for n, steps in enumerate(tables):
        np.testing.assert_allclose(together[n], dj.sample(steps, network(), x, keys, clip=1.0), rtol=1e-4, atol=1e-5)


def test_memory_does_not_grow_with_the_number_of_steps():
    def temporary_bytes(rows, every=None):
        steps = samplers.ddim(schedules.linear(1000), timesteps.trailing(1000, rows), eta=1.0)
        keys, x = start(64)

        def run(x):
            if every is None:
                return dj.sample(steps, network(), x, keys)
            return dj.sample_trajectory(steps, network(), x, keys, every=every)

        return jax.jit(run).lower(x).compile().memory_analysis().temp_size_in_bytes

    # A column of the table itself is 4 bytes a row.
    image_bytes = 64 * np.prod(SHAPE) * 4
    assert temporary_bytes(1000) - temporary_bytes(10) < image_bytes
    # The kept frames (x and x̂0) are all that a trajectory adds.
    assert temporary_bytes(1000, every=500) - temporary_bytes(10, every=5) < image_bytes


def test_a_run_is_one_loop_on_the_device():
    steps, (keys, x) = samplers.ddpm(SCHEDULE, timesteps.full(100)), start(2)
    program = jax.jit(lambda x: dj.sample(steps, network(), x, keys, clip=1.0)).lower(x).compile().as_text()
    assert re.search(r'known_trip_count":{"n":"100"}', program)
    assert not re.findall(r"\b(?:infeed|outfeed|send|recv)\(|callback", program)


def test_one_program_serves_a_sweep_over_eta(count_compilations):
    keys, x = start(3)
    for eta in (0.0, 0.2, 0.5, 0.8, 1.0):
        steps = samplers.ddim(SCHEDULE, timesteps.trailing(100, 7), eta=eta)
        dj.sample(steps, network(), x, keys).block_until_ready()
        assert count_compilations() == 0 or eta == 0.0


def test_inside_jit_and_differentiable():
    steps = samplers.ddim(SCHEDULE, timesteps.trailing(100, 5))
    _, x = start(2)

    def brightness(scale):
        return jnp.mean(dj.sample(steps, network(scale), x, clip=1.0))

    gradient = jax.jit(jax.grad(brightness))(0.7)
    numeric = (brightness(0.71) - brightness(0.69)) / 0.02
    assert gradient == pytest.approx(float(numeric), rel=0.05)


def test_a_sharded_batch_gives_the_same_images():
    mesh = NamedSharding(Mesh(np.array(jax.devices()), "n"), PartitionSpec("n"))
    steps = samplers.ddim(SCHEDULE, timesteps.trailing(100, 10), eta=0.5)
    keys, x = start(16)
    alone = dj.sample(steps, network(), x, keys, clip=1.0)
    spread = dj.sample(steps, network(), jax.device_put(x, mesh), jax.device_put(keys, mesh), clip=1.0)
    assert len(spread.sharding.device_set) == 8
    np.testing.assert_allclose(spread, alone, rtol=1e-4, atol=1e-5)


def test_float_widths():
    steps = samplers.ddim(SCHEDULE, timesteps.trailing(100, 5))
    narrow = jax.tree_util.Partial(lambda x, t: x.astype(jnp.bfloat16))
    assert dj.sample(steps, narrow, jnp.ones((1, 2), jnp.bfloat16)).dtype == jnp.float32
    with jax.enable_x64(True):
        assert dj.sample(steps, narrow, jnp.ones((1, 2), jnp.float32)).dtype == jnp.float32
        assert dj.sample(steps, narrow, jnp.ones((1, 2), jnp.float64)).dtype == jnp.float64


@pytest.mark.parametrize("every", [1, 3, 10, 100])
@pytest.mark.parametrize("progress", [False, True])
def test_trajectory_frames(every, progress):
    grid = timesteps.trailing(100, 10)
    steps = samplers.ddim(SCHEDULE, grid, eta=0.5)
    keys, x = start(3)
    predict = network()
    trajectory = dj.sample_trajectory(steps, predict, x, keys, every=every, clip=1.0, progress=progress)
    assert trajectory.t.tolist() == [*grid[:-1:every], -1]
    np.testing.assert_array_equal(trajectory.x[0], x)
    np.testing.assert_allclose(trajectory.x[-1], dj.sample(steps, predict, x, keys, clip=1.0), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(trajectory.x0[-1], trajectory.x[-1])
    for t, x_t, x0 in zip(trajectory.t[:-1], trajectory.x, trajectory.x0, strict=False):
        eps = predict(x_t, jnp.full(3, t))
        expected = np.clip(dj.process.predict_x0(SCHEDULE, x_t, np.full(3, t), eps), -1, 1)
        np.testing.assert_allclose(x0, expected, rtol=1e-4, atol=1e-4)


def test_trajectory_that_ends_above_clean_data_looks_once_more():
    steps = samplers.ddim(SCHEDULE, [99, 50, 20])
    _, x = start(2)
    trajectory = dj.sample_trajectory(steps, network(), x, clip=1.0)
    assert trajectory.t.tolist() == [99, 50, 20]
    eps = network()(trajectory.x[-1], jnp.full(2, 20))
    expected = np.clip(dj.process.predict_x0(SCHEDULE, trajectory.x[-1], 20, eps), -1, 1)
    np.testing.assert_allclose(trajectory.x0[-1], expected, rtol=1e-5, atol=1e-5)


def test_trajectory_passes_over_inner_calls():
    # Rows 1 and 3 are inner calls: they land on no grid point, so no frame may come from what follows them.
    steps = dataclasses.replace(random_table(4, 0, 0), lands=np.array([False, True, False, True]))
    keys, x = start(2)
    every_row = dj.sample_trajectory(dataclasses.replace(steps, lands=np.ones(4, bool)), network(), x, keys)
    frames = dj.sample_trajectory(steps, network(), x, keys)
    assert frames.t.tolist() == [steps.t_from[0], steps.t_to[1], steps.t_to[3]]
    np.testing.assert_array_equal(frames.x, every_row.x[np.array([0, 2, 4])])
    np.testing.assert_array_equal(frames.x0[:2], every_row.x0[np.array([0, 2])])


def test_debug_names_the_row():
    bad = jax.tree_util.Partial(lambda x, t: jnp.where(t[0] < 50, jnp.nan, x))
    steps = samplers.ddim(SCHEDULE, timesteps.trailing(100, 50))
    with pytest.raises(FloatingPointError, match=r"row 25 .*step 49 → 47, network called at t=49"):
        dj.sample(steps, bad, start(1)[1], debug=True)


def test_a_network_that_gives_x0_too_works_where_alpha_bar_is_zero():
    schedule = schedules.from_betas([0.1, 0.5, 1.0])
    assert schedule.alpha_bars[-1] == 0
    steps = samplers.ddim(schedule, timesteps.full(3))
    oracle = jax.tree_util.Partial(lambda x, t: dj.Prediction(x0=jnp.full_like(x, 0.25), eps=x))
    np.testing.assert_allclose(dj.sample(steps, oracle, jnp.ones((1, 2)), clip=1.0), 0.25, rtol=1e-6)


def test_encoding_starts_from_x_itself_for_any_network():
    steps = samplers.probability_flow(SCHEDULE, [-1, 50])
    eps = jax.tree_util.Partial(lambda x, t: jnp.sin(x))
    both = jax.tree_util.Partial(lambda x, t: dj.Prediction(x0=jnp.full_like(x, 9.0), eps=jnp.sin(x)))
    _, x = start(2)
    np.testing.assert_allclose(dj.sample(steps, both, x), dj.sample(steps, eps, x), rtol=1e-6)


def test_sample_many_is_sample_in_batches():
    steps = samplers.ddim(SCHEDULE, timesteps.trailing(100, 5), eta=1.0)
    keys, x = start(10)
    expected = dj.sample(steps, network(), x, keys, clip=1.0)
    for batch_size in (3, 8, 16):  # two of them spread over the 8 devices
        batches = dj.sample_many(steps, network(), SHAPE, seed=0, num=10, batch_size=batch_size, clip=1.0)
        starts, parts = zip(*batches, strict=True)
        assert list(starts) == list(range(0, 10, batch_size))
        np.testing.assert_allclose(np.concatenate(parts), expected, rtol=1e-4, atol=1e-5)
        assert len(parts[0].sharding.device_set) == (1 if batch_size == 3 else 8)


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_sample_many_samples_noise_only_for_stochastic_samplers(eta, monkeypatch):
    steps = samplers.ddim(SCHEDULE, timesteps.trailing(100, 5), eta=eta)
    keys, x = start(2)
    expected = dj.sample(steps, network(), x, keys)
    given = []

    def sample(steps, predict, x, key, **options):
        given.append(key is not None)
        return dj.sample(steps, predict, x, key, **options)

    monkeypatch.setattr(dj.sampling, "sample", sample)
    ((_, result),) = dj.sample_many(steps, network(), SHAPE, seed=0, num=2, batch_size=2)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    assert given == [eta > 0]


def test_sample_many_goes_on_where_it_was_cut():
    steps = samplers.ddim(SCHEDULE, timesteps.trailing(100, 5))
    batches = dj.sample_many(steps, network(), SHAPE, seed=0, num=10, batch_size=3, skip={0, 6})
    assert [(first, len(x)) for first, x in batches] == [(3, 3), (9, 1)]


def test_processes_take_turns(monkeypatch):
    steps = samplers.ddim(SCHEDULE, timesteps.trailing(100, 5))
    taken = []
    for index in range(3):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        monkeypatch.setattr(jax, "process_count", lambda: 3)
        batches = dj.sample_many(steps, network(), SHAPE, seed=0, num=20, batch_size=3)
        taken.append([first for first, _ in batches])
    assert taken == [[0, 9, 18], [3, 12], [6, 15]]


def test_clip_may_be_a_function(count_compilations):
    steps = samplers.ddim(SCHEDULE, timesteps.trailing(100, 5))
    _, x = start(2)

    def limit(bound, x0):
        return jnp.clip(x0, -bound, bound)

    by_function = dj.sample(steps, network(), x, clip=jax.tree_util.Partial(limit, 0.5))
    np.testing.assert_allclose(by_function, dj.sample(steps, network(), x, clip=0.5), rtol=1e-5, atol=1e-6)
    count_compilations()
    dj.sample(steps, network(), x, clip=jax.tree_util.Partial(limit, 0.9)).block_until_ready()
    assert count_compilations() == 0
    assert np.all(np.isfinite(dj.sample(steps, network(), x, clip=lambda x0: jnp.tanh(x0))))


X = jnp.zeros((3, 2))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: dj.sample(NOISY, network(), X), "adds noise: pass key"),
        (lambda: dj.sample(NOISY, network(), X, jax.random.PRNGKey(0)), "must be a typed key"),
        (lambda: dj.sample(NOISY, network(), X, 0), "must be a typed key"),
        (lambda: dj.sample(NOISY, network(), X, dj.sample_keys(0, 0, 2)), r"key of shape \(2,\).*3 samples"),
        (lambda: dj.sample(NOISY, lambda x, t: x[:, :1], X, jax.random.key(0)), r"returned shape \(3, 1\)"),
        (lambda: dj.sample(NOISY, "network", X, jax.random.key(0)), "predict must be callable"),
        (lambda: dj.sample(NOISY, network(), jnp.zeros((3, 2), int), jax.random.key(0)), "float array"),
        (lambda: dj.sample(random_table(3, 0, 0, True), network(), X, jax.random.key(0)), "log_var_frac"),
        (lambda: dj.sample_trajectory(NOISY, network(), X, jax.random.key(0), every=0), "every=0"),
        (lambda: dj.sample_keys(0, -1, 2), "start=-1"),
        (lambda: dj.sample_keys(2**32, 0, 2), "seed=4294967296 must be within 0 … 4294967295"),
        (lambda: dj.sample_keys(-1, 0, 2), "seed=-1 must be"),
        (lambda: dj.sample(NOISY, network(), X, jax.random.key(0), clip=-1.0), "clip=-1.0 must be > 0"),
        (lambda: dj.sample(NOISY, network(), X, jax.random.key(0), clip=float("nan")), "clip=nan"),
        (lambda: dj.sample(NOISY, network(), X, jax.random.key(0), first_row=-1), "first_row=-1 must be"),
        (lambda: dj.sample(NOISY, network(), X, jax.random.key(0), first_row=1.0), "first_row=1.0 must be"),
        (
            lambda: jax.vmap(lambda s: dj.sample(s, network(), X))(dj.stack([NOISY, NOISY])),
            "this traced sampler may add noise",
        ),
        (
            lambda: dj.sample(samplers.ddim(schedules.jsd(9), timesteps.full(9)), network(), X),
            "calls the network at alpha_bar = 0",
        ),
        (lambda: next(dj.sample_many(NOISY, network(), (2,), seed=0, num=0, batch_size=2)), "num=0"),
        (
            lambda: jax.jit(lambda x: dj.sample(NOISY, network(), x, jax.random.key(0), progress=True))(X),
            "inside jit",
        ),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
