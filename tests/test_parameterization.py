import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax import parameterization, process, samplers, schedules, timesteps

SCHEDULE = schedules.linear(100, beta_start=1e-3, beta_end=0.2)
ZERO_SNR = schedules.from_betas([0.1, 0.5, 1.0])
WRAPPERS = {"x0": parameterization.from_x0, "v": parameterization.from_v, "score": parameterization.from_score}
T = np.array([0, 1, 40, 99])
MEAN, STD = 0.3, 0.6

each_kind = pytest.mark.parametrize("kind", WRAPPERS)


def draw(seed=0, dtype=jnp.float64, count=4):
    return jax.random.normal(jax.random.key(seed), (count, 3, 3, 2), dtype)


def optimal(alpha_bars, x, t):
    """(E[x_0 | x_t], E[ε | x_t], ᾱ) for x_0 ~ N(MEAN, STD²)."""
    ab = alpha_bars[t].reshape(-1, *[1] * (x.ndim - 1))
    total = ab * STD**2 + 1 - ab
    residual = x - jnp.sqrt(ab) * MEAN
    return MEAN + jnp.sqrt(ab) * STD**2 / total * residual, jnp.sqrt(1 - ab) / total * residual, ab


def optimal_eps(alpha_bars, x, t):
    return optimal(alpha_bars, x, t)[1]


def optimal_x0(alpha_bars, x, t):
    return optimal(alpha_bars, x, t)[0]


def optimal_v(alpha_bars, x, t):
    x0, eps, ab = optimal(alpha_bars, x, t)
    return jnp.sqrt(ab) * eps - jnp.sqrt(1 - ab) * x0


def optimal_score(alpha_bars, x, t):
    ab = alpha_bars[t].reshape(-1, *[1] * (x.ndim - 1))
    return -(x - jnp.sqrt(ab) * MEAN) / (ab * STD**2 + 1 - ab)


NETWORKS = {"eps": optimal_eps, "x0": optimal_x0, "v": optimal_v, "score": optimal_score}


def network(kind, schedule=SCHEDULE):
    return jax.tree_util.Partial(NETWORKS[kind], jnp.asarray(schedule.alpha_bars))


def linear_network(scale, x, t):
    return scale * x


def doubled(scale, x, t):
    return jnp.concatenate([scale * x, jnp.sin(x)], axis=-1)


def call(predict, x, t):
    return predict(x, t)


@pytest.mark.usefixtures("x64")
@each_kind
def test_networks_of_every_kind_give_the_same_prediction(kind):
    x = draw()
    prediction = jax.jit(call)(WRAPPERS[kind](network(kind), SCHEDULE), x, T)
    x0, eps, _ = optimal(SCHEDULE.alpha_bars, x, T)
    np.testing.assert_allclose(prediction.x0, x0, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(prediction.eps, eps, rtol=1e-11, atol=1e-11)
    assert prediction.log_var_frac is None


@pytest.mark.usefixtures("x64")
@each_kind
@pytest.mark.parametrize("clip", [None, 0.5])
def test_networks_of_every_kind_give_the_same_samples(kind, clip):
    steps = samplers.ddim(SCHEDULE, timesteps.trailing(100, 20), eta=0.5)
    keys = dj.sample_keys(0, 0, 3)
    x = dj.initial_noise(keys, (4,), jnp.float64)
    expected = dj.sample(steps, network("eps"), x, keys, clip=clip)
    found = dj.sample(steps, WRAPPERS[kind](network(kind), SCHEDULE), x, keys, clip=clip)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["x0", "v"])
def test_from_where_alpha_bar_is_zero(kind):
    # The exact answer of the whole run is the recursion with E[x_0 | x_t] and E[ε | x_t], from x_T = ε.
    steps = samplers.ddim(ZERO_SNR, timesteps.full(3))
    x = draw()
    result = dj.sample(steps, WRAPPERS[kind](network(kind, ZERO_SNR), ZERO_SNR), x)
    expected = x
    for t, s in ((2, 1), (1, 0), (0, -1)):
        x0, eps, _ = optimal(ZERO_SNR.alpha_bars, expected, np.full(4, t))
        ab = ZERO_SNR.alpha_bar_at(s)
        expected = np.sqrt(ab) * x0 + np.sqrt(1 - ab) * eps
    np.testing.assert_allclose(result, expected, rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", NETWORKS)
def test_conversion_back_to_eps_and_x0(kind):
    x = draw()
    predict = network(kind)
    if kind != "eps":
        predict = WRAPPERS[kind](predict, SCHEDULE)
    x0, eps, _ = optimal(SCHEDULE.alpha_bars, x, T)
    np.testing.assert_allclose(parameterization.to_eps(predict)(x, T), eps, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(parameterization.to_x0(predict, SCHEDULE)(x, T), x0, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("variance", [None, "learned_range", "learned"])
@pytest.mark.parametrize("target", ["eps", "x0", "v"])
def test_one_prediction_in_every_parameterization(x64, target, variance):
    x = draw()
    eps = jnp.cos(x)
    said = process.convert(SCHEDULE, x, T, eps, given="eps", wanted=target)
    tail = [] if variance is None else [jnp.full_like(x, 0.4)]
    net = jax.tree_util.Partial(lambda answer, x, t: answer, jnp.concatenate([said, *tail], axis=-1))
    predict = parameterization.from_target(net, SCHEDULE, target, variance=variance)
    prediction = predict(x, T)
    if (target, variance) == ("eps", None):
        assert predict is net
    else:
        np.testing.assert_allclose(prediction.eps, eps, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(prediction.x0, process.predict_x0(SCHEDULE, x, T, eps), rtol=1e-9, atol=1e-12)
    if variance is not None:
        np.testing.assert_allclose(prediction.log_var_frac, {"learned_range": 0.7, "learned": 0.4}[variance], rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_split_variance():
    x = draw()
    net = jax.tree_util.Partial(doubled, 0.5)
    for kind, frac in (("learned_range", (np.sin(x) + 1) / 2), ("learned", np.sin(x))):
        prediction = jax.jit(call)(parameterization.split_variance(net, SCHEDULE, kind), x, T)
        np.testing.assert_allclose(prediction.eps, 0.5 * x, rtol=1e-15)
        np.testing.assert_allclose(prediction.x0, process.predict_x0(SCHEDULE, x, T, 0.5 * x), rtol=1e-12)
        np.testing.assert_allclose(prediction.log_var_frac, frac, rtol=1e-14)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("v", "variance"), [(-1.0, "fixed_small"), (1.0, "fixed_large")])
def test_learned_range_reaches_from_fixed_small_to_fixed_large(v, variance):
    def with_constant(v, x, t):
        return jnp.concatenate([0.5 * x, jnp.full_like(x, v)], axis=-1)

    grid = timesteps.trailing(100, 10)
    keys = dj.sample_keys(0, 0, 3)
    x = dj.initial_noise(keys, (4, 2), jnp.float64)
    predict = parameterization.split_variance(jax.tree_util.Partial(with_constant, v), SCHEDULE)
    learned = dj.sample(samplers.ddpm(SCHEDULE, grid, variance="learned_range"), predict, x, keys)
    fixed = dj.sample(samplers.ddpm(SCHEDULE, grid, variance=variance), parameterization.to_eps(predict), x, keys)
    np.testing.assert_allclose(learned, fixed, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_learned_variance_is_the_log_variance():
    def with_log_beta(log_betas, x, t):
        return jnp.concatenate([0.5 * x, jnp.broadcast_to(log_betas[t][:, None, None], x.shape)], axis=-1)

    grid = timesteps.full(100)
    keys = dj.sample_keys(0, 0, 3)
    x = dj.initial_noise(keys, (4, 2), jnp.float64)
    net = jax.tree_util.Partial(with_log_beta, jnp.log(SCHEDULE.betas))
    predict = parameterization.split_variance(net, schedule=SCHEDULE, kind="learned")
    learned = dj.sample(samplers.ddpm(SCHEDULE, grid, variance="learned"), predict, x, keys)
    fixed = dj.sample(samplers.ddpm(SCHEDULE, grid, variance="fixed_large"), parameterization.to_eps(predict), x, keys)
    np.testing.assert_allclose(learned, fixed, rtol=1e-10, atol=1e-10)


def tell_time(x, t):
    return jnp.broadcast_to(t.astype(x.dtype).reshape(-1, 1), x.shape)


@pytest.mark.parametrize(("kind", "table"), [("sqrt_alpha_bar", "sqrt_alpha_bars"), ("alpha_bar", "alpha_bars")])
def test_with_noise_level(kind, table):
    def level_network(x, t):
        assert t.dtype == x.dtype == jnp.float32
        assert t.shape == (3,)
        return tell_time(x, t)

    predict = parameterization.with_noise_level(level_network, SCHEDULE, kind)
    x, t = jnp.zeros((3, 2)), jnp.array([0, 99, -1])
    expected = [*getattr(SCHEDULE, table)[[0, 99]].astype(np.float32), 1.0]
    for answer in (predict(x, t), jax.jit(call)(predict, x, t)):
        np.testing.assert_allclose(answer[:, 0], expected, rtol=2e-7)


def test_noise_level_inside_a_v_network():
    # The inner function receives √ᾱ, the outer one reads the schedule by t.
    def v_from_level(x, level):
        return level[:, None] * x

    predict = parameterization.from_v(parameterization.with_noise_level(v_from_level, SCHEDULE), SCHEDULE)
    x, t = jnp.ones((4, 2)), jnp.asarray(T)
    v = SCHEDULE.sqrt_alpha_bars[T][:, None] * np.ones((4, 2))
    expected = process.convert(SCHEDULE, x, T, jnp.asarray(v, jnp.float32), given="v", wanted="x0")
    np.testing.assert_allclose(jax.jit(call)(predict, x, t).x0, expected, rtol=1e-5, atol=1e-6)


def test_map_timesteps():
    indices = np.array([3, 10, 50, 99])
    predict = parameterization.map_timesteps(tell_time, indices)
    x, t = jnp.zeros((3, 2)), jnp.array([0, 3, 1])
    for answer in (predict(x, t), jax.jit(call)(predict, x, t)):
        np.testing.assert_array_equal(answer[:, 0], [3, 99, 10])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_respaced_schedule_is_the_strided_grid(kind):
    # The whole chain of the short schedule, or the same levels of the long one: two equivalent forms.
    grid = timesteps.trailing(100, 10)
    indices = grid[:-1][::-1]
    short = schedules.respace(SCHEDULE, indices)
    net, mapped = network(kind), parameterization.map_timesteps(network(kind), indices)
    if kind != "eps":
        net, mapped = WRAPPERS[kind](net, SCHEDULE), WRAPPERS[kind](mapped, short)
    keys = dj.sample_keys(0, 0, 3)
    x = dj.initial_noise(keys, (4,), jnp.float64)
    strided = dj.sample(samplers.ddpm(SCHEDULE, grid), net, x, keys)
    respaced = dj.sample(samplers.ddpm(short, timesteps.full(10)), mapped, x, keys)
    np.testing.assert_allclose(respaced, strided, rtol=1e-10, atol=1e-10)


MAKERS = {
    **{kind: lambda scale, wrap=wrap: wrap(jax.tree_util.Partial(linear_network, scale), SCHEDULE) for kind, wrap in WRAPPERS.items()},
    "to_eps": lambda scale: parameterization.to_eps(jax.tree_util.Partial(linear_network, scale)),
    "to_x0": lambda scale: parameterization.to_x0(jax.tree_util.Partial(linear_network, scale), SCHEDULE),
    "split": lambda scale: parameterization.split_variance(jax.tree_util.Partial(doubled, scale), SCHEDULE),
    "noise_level": lambda scale: parameterization.with_noise_level(jax.tree_util.Partial(linear_network, scale), SCHEDULE),
    "map": lambda scale: parameterization.map_timesteps(jax.tree_util.Partial(linear_network, scale), np.arange(100)),
    "deep": lambda scale: parameterization.to_eps(
        parameterization.from_v(parameterization.map_timesteps(jax.tree_util.Partial(linear_network, scale), np.arange(100)), SCHEDULE)
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_a_wrapper_built_again_is_equal_and_compiles_nothing(make, count_compilations):
    x, t = draw(dtype=jnp.float32), jnp.asarray(T)
    first, second = make(0.5), make(0.7)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert all(isinstance(leaf, float | np.ndarray | jax.Array) for leaf in jax.tree.leaves(first))
    jitted = jax.jit(call)
    jax.block_until_ready(jitted(first, x, t))
    count_compilations()
    jax.block_until_ready(jitted(second, x, t))
    assert count_compilations() == 0


def test_another_schedule_compiles_nothing_in_the_loop(count_compilations):
    x = draw(dtype=jnp.float32)

    def run(schedule, scale):
        predict = parameterization.from_v(jax.tree_util.Partial(linear_network, scale), schedule)
        return dj.sample(samplers.ddim(schedule, timesteps.trailing(100, 5)), predict, x).block_until_ready()

    run(SCHEDULE, 0.1)
    count_compilations()
    run(schedules.cosine(100), 0.2)
    assert count_compilations() == 0


@pytest.mark.usefixtures("x64")
@each_kind
def test_answers_come_in_the_dtype_of_x(kind):
    def narrow(x, t):
        return x.astype(jnp.bfloat16)

    for dtype in (jnp.float32, jnp.float64):
        prediction = jax.jit(call)(WRAPPERS[kind](narrow, SCHEDULE), draw(dtype=dtype), T)
        assert prediction.x0.dtype == prediction.eps.dtype == dtype


def test_tables_keep_float64_accuracy_in_float32():
    # In float32 arithmetic √(1-ᾱ_0) would be wrong by 8e-5.
    schedule = schedules.linear()
    prediction = jax.jit(call)(
        parameterization.from_v(lambda x, t: jnp.zeros_like(x), schedule), jnp.ones((1, 1)), jnp.zeros(1, int)
    )
    np.testing.assert_allclose(prediction.eps.item(), 0.01, rtol=1e-7)


X, NET = jnp.zeros((3, 4, 2)), jax.tree_util.Partial(linear_network, 1.0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: parameterization.from_v("network", SCHEDULE), "predict must be callable.*it is a str"),
        (lambda: parameterization.from_x0(lambda x, t: x[..., :1], SCHEDULE)(X, 0), r"shape \(3, 4, 1\) for x of shape \(3, 4, 2\)"),
        (lambda: parameterization.from_v(parameterization.from_v(NET, SCHEDULE), SCHEDULE)(X, 0), "returned a Prediction"),
        (lambda: parameterization.to_x0(lambda x, t: x[:1], SCHEDULE)(X, 0), r"shape \(1, 4, 2\)"),
        (lambda: parameterization.split_variance(NET, SCHEDULE)(X, 0), r"shape \(3, 4, 2\): .* must return 4 channels for the 2 of x"),
        (lambda: parameterization.split_variance(parameterization.from_v(NET, SCHEDULE), SCHEDULE)(X, 0), "returned a Prediction"),
        (lambda: parameterization.split_variance(NET, SCHEDULE, "fixed"), "kind='fixed' is not one of 'learned_range', 'learned'"),
        (lambda: parameterization.from_target(NET, SCHEDULE, "score"), "target='score' is not one of 'eps', 'x0', 'v'"),
        (lambda: parameterization.split_variance(NET, SCHEDULE, given="score"), "given='score' is not one of 'eps', 'x0', 'v'"),
        (lambda: parameterization.with_noise_level(NET, SCHEDULE, "beta"), "kind='beta' is not one of 'sqrt_alpha_bar', 'alpha_bar', 'flow', 'edm'"),
        (lambda: parameterization.with_noise_level(NET, SCHEDULE)(X, 100), "allowed is -1 … 99"),
        (lambda: parameterization.map_timesteps(NET, [0.5, 1.5]), "whole numbers.*float64"),
        (lambda: parameterization.map_timesteps(NET, np.zeros((2, 2), int)), r"shape \(2, 2\)"),
        (lambda: parameterization.map_timesteps(NET, [3, 3]), r"ascend strictly.*\[3 3\]"),
        (lambda: parameterization.map_timesteps(NET, [-1, 3]), "ascend strictly from 0"),
        (lambda: parameterization.map_timesteps(NET, [1, 3])(X, 0.5), "a respaced schedule has whole timesteps only"),
        (lambda: parameterization.map_timesteps(NET, [1, 3])(X, 2), "timestep 2 … 2 is out of range: allowed is 0 … 1"),
    ],
)  # fmt: skip
def test_bad_input(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("kind", ["x0", "v"])
def test_without_a_schedule_the_loop_converts_at_the_level_of_x(kind):
    """The same at the time of the level; at another time, what a conversion by hand at the level gives."""
    make, x = WRAPPERS[kind], draw(dtype=jnp.float32)
    table = samplers.ddim(SCHEDULE, np.array([80, 40, 10, 0, -1]))
    expected = dj.sample(table, make(NET, SCHEDULE), x)
    np.testing.assert_allclose(dj.sample(table, make(NET), x), expected, rtol=1e-4, atol=1e-5)
    elsewhere = dataclasses.replace(table[:1], t_net=np.array([30], np.int32))
    value, ab = NET(x, jnp.full(len(x), 30)), SCHEDULE.alpha_bars[80]
    signal, noise = np.sqrt(ab), np.sqrt(1 - ab)
    if kind == "v":
        x0, eps = signal * x - noise * value, noise * x + signal * value
    else:
        x0, eps = value, (x - signal * value) / noise
    by_hand = table.b[0] * x0 + table.c[0] * eps
    np.testing.assert_allclose(dj.sample(elsewhere, make(NET), x), by_hand, rtol=1e-4, atol=1e-5)


def test_without_a_schedule_a_start_without_signal():
    schedule = schedules.zero_terminal_snr(SCHEDULE)
    table, x = samplers.ddim(schedule, timesteps.trailing(100, 5)), draw(dtype=jnp.float32)
    expected = dj.sample(table, parameterization.from_v(NET, schedule), x)
    np.testing.assert_allclose(dj.sample(table, parameterization.from_v(NET), x), expected, rtol=1e-4, atol=1e-5)


def test_a_target_is_no_array():
    with pytest.raises(ValueError, match="predict returned a Target"):
        parameterization.from_v(parameterization.from_v(NET), SCHEDULE)(X, 0)
