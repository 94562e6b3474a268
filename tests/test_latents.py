import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffjax as dj
from diffjax import latents, parameterization, samplers, schedules, timesteps

SCHEDULE = schedules.linear()
MEAN, STD = 0.3, 0.6


def optimal_eps(alpha_bars, x, t):
    """E[ε | x_t] for x_0 ~ N(MEAN, STD²)."""
    ab = alpha_bars[t].reshape(-1, *[1] * (x.ndim - 1))
    return jnp.sqrt(1 - ab) * (x - jnp.sqrt(ab) * MEAN) / (ab * STD**2 + 1 - ab)


def optimal_v(alpha_bars, x, t):
    ab = alpha_bars[t].reshape(-1, *[1] * (x.ndim - 1))
    eps = optimal_eps(alpha_bars, x, t)
    x0 = MEAN + jnp.sqrt(ab) * STD**2 / (ab * STD**2 + 1 - ab) * (x - jnp.sqrt(ab) * MEAN)
    return jnp.sqrt(ab) * eps - jnp.sqrt(1 - ab) * x0


def network(schedule=SCHEDULE):
    return jax.tree_util.Partial(optimal_eps, jnp.asarray(schedule.alpha_bars))


def v_network(schedule):
    return parameterization.from_v(jax.tree_util.Partial(optimal_v, jnp.asarray(schedule.alpha_bars)), schedule)


def data(seed=0, count=6):
    return MEAN + STD * jax.random.normal(jax.random.key(seed), (count, 2, 3), jnp.float64)


def draw(seed, shape=(5, 3, 2), dtype=jnp.float64):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def last(schedule=SCHEDULE):
    """(√ᾱ, the standard deviation of x) at T-1."""
    ab = schedule.alpha_bars[-1]
    return np.sqrt(ab), np.sqrt(ab * STD**2 + 1 - ab)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("num_steps", [1, 10, 100])
def test_encode_is_eulers_rule_in_plain_python(num_steps):
    x0 = data()
    z = latents.encode(SCHEDULE, network(), x0, num_steps=num_steps)
    x, t = np.asarray(x0), -1
    for s in timesteps.trailing(1000, num_steps)[::-1][1:]:
        ab_t, ab_s = SCHEDULE.alpha_bar_at([t, s])
        eps = np.asarray(network()(x, np.full(len(x), max(t, 0))))  # called at the source
        x = np.sqrt(ab_s) * (x / np.sqrt(ab_t) + (np.sqrt((1 - ab_s) / ab_s) - np.sqrt((1 - ab_t) / ab_t)) * eps)
        t = s
    np.testing.assert_allclose(z, x, rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_latents_of_gaussian_data_near_the_exact_map():
    # The probability-flow ODE of a Gaussian keeps (x_t - mean_t)/std_t: z = (x_0 - m)/s·std_T + √ᾱ_T·m, N(0, 1) in all.
    x0 = data()
    signal, std = last()
    exact = signal * MEAN + std * (x0 - MEAN) / STD
    errors = [np.max(np.abs(latents.encode(SCHEDULE, network(), x0, num_steps=S) - exact)) for S in (50, 100, 200)]
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2, rtol=0.1)  # first order
    assert errors[-1] < 0.05


@pytest.mark.usefixtures("x64")
def test_latents_are_standard_normal():
    z = latents.encode(SCHEDULE, network(), data(count=2000), num_steps=200)
    assert np.mean(z) == pytest.approx(0, abs=0.03)
    assert np.std(z) == pytest.approx(1, abs=0.03)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("seed", range(3))
def test_reconstruction_nears_the_data_as_steps_grow(seed):
    x0 = data(seed)
    errors = [
        np.max(np.abs(latents.reconstruct(SCHEDULE, network(), x0, num_steps=S) - x0)) for S in (10, 50, 200, 1000)
    ]
    assert errors == sorted(errors, reverse=True)
    # The last factor of 5 in S is nearly a factor of 5 in the error.
    assert errors[-1] < 0.25 * errors[-2]
    assert errors[-1] < 0.02


@pytest.mark.usefixtures("x64")
def test_decode_is_ddim_without_noise():
    z = draw(0)
    steps = samplers.ddim(SCHEDULE, timesteps.trailing(1000, 20))
    for clip in (None, 0.4):
        decoded = latents.decode(SCHEDULE, network(), z, num_steps=20, clip=clip)
        np.testing.assert_allclose(decoded, dj.sample(steps, network(), z, clip=clip), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_reconstruct_is_decode_of_encode_and_never_clips():
    x0 = 5 * data()
    z = latents.encode(SCHEDULE, network(), x0, num_steps=10)
    decoded = latents.decode(SCHEDULE, network(), z, num_steps=10)
    np.testing.assert_array_equal(latents.reconstruct(SCHEDULE, network(), x0, num_steps=10), decoded)
    assert np.max(np.abs(decoded)) > 2


@pytest.mark.usefixtures("x64")
def test_a_v_network_encodes_as_an_eps_network_does():
    x0 = data()
    z = latents.encode(SCHEDULE, network(), x0)
    np.testing.assert_allclose(latents.encode(SCHEDULE, v_network(SCHEDULE), x0), z, rtol=1e-10, atol=1e-11)


@pytest.mark.usefixtures("x64")
def test_there_and_back_where_the_last_alpha_bar_is_zero():
    # Encoding ends there, decoding begins there: x_T is ε̂ alone.
    schedule = schedules.from_betas(np.append(SCHEDULE.betas[:-1], 1.0))
    x0, predict = data(), v_network(schedule)
    z = latents.encode(schedule, predict, x0, num_steps=500)
    assert np.std(z) == pytest.approx(1, abs=0.3)
    np.testing.assert_allclose(latents.decode(schedule, predict, z, num_steps=500), x0, atol=0.05)


def ask(t_max, x, t):
    return jnp.where(t[0] == t_max, jnp.nan, 0.1 * x)


def test_encode_never_asks_at_its_end_and_decode_never_at_its():
    x0 = jnp.ones((1, 2))
    assert np.all(np.isfinite(latents.encode(SCHEDULE, jax.tree_util.Partial(ask, 999), x0, num_steps=10)))
    assert np.all(np.isfinite(latents.decode(SCHEDULE, jax.tree_util.Partial(ask, 0), x0, num_steps=10)))
    # At clean data the network is called with index 0.
    assert np.all(np.isnan(latents.encode(SCHEDULE, jax.tree_util.Partial(ask, 0), x0, num_steps=10)))


def test_progress(capfd):
    latents.encode(SCHEDULE, network(), jnp.ones((1, 2)), num_steps=5, progress="encoding")
    assert "encoding: 100%" in capfd.readouterr().err


def test_other_parameters_compile_nothing(count_compilations):
    x0 = jnp.ones((2, 3))

    def run(schedule):
        return latents.reconstruct(schedule, network(schedule), x0, num_steps=10).block_until_ready()

    run(SCHEDULE)
    count_compilations()
    run(schedules.cosine())
    assert count_compilations() == 0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_slerp_is_the_papers_formula(fraction):
    a, b = draw(0), draw(1)
    result = latents.slerp(a, b, fraction)
    for n in range(len(a)):
        u, v = np.ravel(a[n]), np.ravel(b[n])
        theta = np.arccos(u @ v / (np.linalg.norm(u) * np.linalg.norm(v)))
        expected = np.sin((1 - fraction) * theta) / np.sin(theta) * u + np.sin(fraction * theta) / np.sin(theta) * v
        np.testing.assert_allclose(np.ravel(result[n]), expected, rtol=1e-12, atol=1e-13)


@given(seed=st.integers(0, 1000), fraction=st.floats(0, 1))
def test_slerp_stays_on_the_sphere_and_divides_the_angle(seed, fraction):
    with jax.enable_x64(True):
        a, b = (x / jnp.linalg.norm(x) for x in (draw(seed, (1, 4)), draw(seed + 5000, (1, 4))))
        middle = latents.slerp(a, b, fraction)
        assert float(jnp.sum(middle**2)) == pytest.approx(1, abs=1e-12)
        theta = np.arccos(np.vdot(a, b))
        assert np.vdot(a, middle) == pytest.approx(np.cos(fraction * theta), abs=1e-11)
        # From the other end it is the same point.
        np.testing.assert_allclose(latents.slerp(b, a, 1 - fraction), middle, atol=1e-12)


def test_slerp_of_one_fraction_a_sample():
    a, b = draw(0, dtype=jnp.float32), draw(1, dtype=jnp.float32)
    fractions = jnp.linspace(0, 1, 5)
    together = jax.jit(latents.slerp)(a, b, fractions)
    assert together.dtype == jnp.float32
    for n, fraction in enumerate(fractions):
        np.testing.assert_allclose(together[n], latents.slerp(a, b, fraction)[n], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(together[0], a[0])
    np.testing.assert_array_equal(together[-1], b[-1])


def nearly_parallel(gap, dtype):
    a, across = draw(0, dtype=dtype), draw(1, dtype=dtype)
    return a, a + jnp.asarray(gap, dtype) * across


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("gap", [0.0, 1e-30, 1e-16, 1e-9, 1e-8, 3e-8, 1e-7, 1e-4, 5e-4, 1e-3, 1e-2])
def test_slerp_of_nearly_parallel_samples_is_linear_and_differentiable(gap, dtype):
    a, b = nearly_parallel(gap, dtype)
    linear = 0.7 * a + 0.3 * b
    np.testing.assert_allclose(latents.slerp(a, b, 0.3), linear, rtol=0, atol=gap**2 + 20 * jnp.finfo(dtype).eps)
    gradients = jax.grad(lambda *args: jnp.sum(latents.slerp(*args)), argnums=(0, 1, 2))(a, b, 0.3)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
    if dtype == jnp.float64:
        # The angle adds second order in the gap to the linear rule's value, first to its gradient.
        np.testing.assert_allclose(gradients[0], 0.7, atol=10 * gap + 1e-6)
        np.testing.assert_allclose(gradients[1], 0.3, atol=10 * gap + 1e-6)


@pytest.mark.parametrize("b", [lambda a: -a, lambda a: -3 * a, lambda a: 0 * a], ids=["minus", "minus 3", "zero"])
def test_slerp_where_no_arc_is_the_one(b):
    a = draw(0, dtype=jnp.float32)
    np.testing.assert_allclose(latents.slerp(a, b(a), 0.25), 0.75 * a + 0.25 * b(a), rtol=1e-6)
    gradients = jax.grad(lambda *args: jnp.sum(latents.slerp(*args) ** 2), argnums=(0, 1, 2))(a, b(a), 0.25)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


@pytest.mark.usefixtures("x64")
def test_interpolate_has_both_ends_and_equal_angles():
    a, b = draw(0, (3, 2)), draw(1, (3, 2))
    line = latents.interpolate(a, b, 7)
    assert line.shape == (7, 3, 2)
    np.testing.assert_array_equal(line[0], a)
    np.testing.assert_array_equal(line[-1], b)
    unit = latents.interpolate(a / np.linalg.norm(a), b / np.linalg.norm(b), 7)
    np.testing.assert_allclose(np.diff([np.vdot(u, v) for u, v in itertools.pairwise(unit)]), 0, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_slerp_grid():
    corners = draw(0, (4, 3, 2))
    grid = latents.slerp_grid(corners, 5)
    assert grid.shape == (5, 5, 3, 2)
    np.testing.assert_array_equal([grid[0, 0], grid[0, -1], grid[-1, 0], grid[-1, -1]], corners)
    np.testing.assert_allclose(grid[0], latents.interpolate(corners[0], corners[1], 5), rtol=1e-12)
    np.testing.assert_allclose(grid[-1], latents.interpolate(corners[2], corners[3], 5), rtol=1e-12)
    np.testing.assert_allclose(grid[:, 2], latents.interpolate(grid[0, 2], grid[-1, 2], 5), rtol=1e-12)


X = jnp.zeros((3, 2))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: latents.encode(SCHEDULE, network(), X, num_steps=1001), "num_steps=1001"),
        (lambda: latents.decode(SCHEDULE, network(), X, num_steps=0), "num_steps=0"),
        (lambda: latents.encode(SCHEDULE, "network", X), "predict must be callable"),
        (lambda: latents.slerp(X, X[:2], 0.5), r"a of shape \(3, 2\) and b of shape \(2, 2\)"),
        (lambda: latents.slerp(X, X, jnp.zeros(2)), r"fraction of shape \(2,\).*3 samples"),
        (lambda: latents.interpolate(X, X, 1), "count=1"),
        (lambda: latents.interpolate(X, X[0], 3), "must have the same shape"),
        (lambda: latents.slerp_grid(X, 3), r"corners of shape \(3, 2\)"),
        (lambda: latents.slerp_grid(jnp.zeros((4, 2)), 1), "size=1"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
