"""Super-resolution, regression, deblurring: what they train on, and what they make of a condition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import diffjax as dj
from diffjax import losses, process
from diffjax.tasks import conditional, super_resolution
from diffjax.tasks.conditional import Level, Sampling
from diffjax.tasks.deblurring import Deblurring
from diffjax.tasks.generation import normalize
from diffjax.tasks.regression import Regression
from diffjax.tasks.super_resolution import SuperResolution

SCHEDULE = dj.schedules.linear(20, beta_start=1e-3, beta_end=0.4)
TINY = dj.models.UNet(
    channels=4,
    multipliers=(1, 1),
    num_res_blocks=1,
    attention_resolutions=(),
    middle_attention=False,
    groups=2,
    dropout=0.0,
)


class Toy:
    """A network of two numbers, which looks at each pixel alone and at the level."""

    def init(self, key, x, t, image=None):
        return {"params": {"x": jnp.float32(0.7), "image": jnp.float32(0.2)}}

    def apply(self, variables, x, t, image=0.0, **_):
        params = variables["params"]
        return jnp.sin(params["x"] * x + params["image"] * image) * (1 + jnp.reshape(t, (-1, 1, 1, 1)) / 500)


TOY = Toy()
pytestmark = pytest.mark.usefixtures("quick_compilation")


def random_params(task, shape=(8, 8, 1), seed=0):
    """Parameters of which none is zero."""
    shapes = jax.eval_shape(lambda: task.init(shape, jax.random.key(0)))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32), shapes)


def batch(count=4, shape=(8, 8, 1)):
    rng = np.random.default_rng(1)
    return {name: rng.integers(0, 256, (count, *shape), np.uint8) for name in ("image", "condition")}


@pytest.mark.parametrize("drawn", conditional.DRAWN)
def test_noise_levels_follow_their_law(drawn):
    """By Kolmogorov and Smirnov: within its interval √γ or γ is uniform; over all t it has the mixture's law."""
    alpha_bars = np.append(1.0, SCHEDULE.alpha_bars)
    ends = np.sqrt(alpha_bars) if drawn == "sqrt_alpha_bar" else alpha_bars
    rng = np.random.default_rng(0)
    t, u = rng.integers(0, 20, 20_000).astype(np.int32), rng.uniform(size=20_000).astype(np.float32)
    signal, noise = conditional.noise_level(SCHEDULE, t, u, jnp.zeros((len(t), 1)), drawn=drawn)
    np.testing.assert_allclose(signal**2 + noise**2, 1.0, rtol=1e-6)
    value = np.asarray(signal[:, 0] if drawn == "sqrt_alpha_bar" else signal[:, 0] ** 2, np.float64)

    def law(v):
        inside = np.clip((v[:, None] - ends[1:]) / (ends[:-1] - ends[1:]), 0.0, 1.0)
        return inside.mean(axis=1)

    assert stats.kstest(value, law).pvalue > 1e-3
    in_one = (value[t == 7] - ends[8]) / (ends[7] - ends[8])
    assert stats.kstest(in_one, "uniform").pvalue > 1e-3


def test_the_two_laws_differ():
    schedule = dj.schedules.from_betas([0.9])
    u = np.random.default_rng(0).uniform(size=2000).astype(np.float32)
    signal, _ = conditional.noise_level(schedule, np.zeros(2000, np.int32), u, jnp.zeros((2000, 1)), drawn="alpha_bar")
    low = np.sqrt(0.1)
    assert stats.kstest((np.asarray(signal)[:, 0] - low) / (1 - low), "uniform").pvalue < 1e-9
    with pytest.raises(ValueError, match="drawn='gamma' is not one of 'sqrt_alpha_bar', 'alpha_bar'"):
        conditional.noise_level(schedule, np.zeros(1, np.int32), np.zeros(1), jnp.zeros((1, 1)), drawn="gamma")


def test_noise_levels_next_to_clean_data_are_exact():
    schedule = dj.schedules.linear(2000, beta_start=1e-6, beta_end=0.01)
    for drawn in conditional.DRAWN:
        _, noise = conditional.noise_level(
            schedule, jnp.zeros(1, jnp.int32), jnp.zeros(1), jnp.zeros((1, 1)), drawn=drawn
        )
        np.testing.assert_allclose(noise, np.sqrt(1e-6), rtol=1e-6)


@pytest.mark.parametrize("told", ["sqrt_alpha_bar", "alpha_bar"])
def test_a_network_hears_the_level_of_what_it_sees(told):
    heard = []

    def network(x, value):
        heard.append((x, value))
        return jnp.zeros_like(x)

    x0, keys = jnp.full((3000, 1, 1, 1), 5.0), dj.sample_keys(0, 0, 3000)
    t = jnp.arange(3000) % 20
    conditional.denoising(SCHEDULE, network, x0, t, keys, Level(told=told, scale=10.0), norm="l1")
    ((x, value),) = heard
    root = np.asarray(value) / 10 if told == "sqrt_alpha_bar" else np.sqrt(np.asarray(value) / 10)
    noise = (np.asarray(x)[:, 0, 0, 0] - 5 * root) / np.sqrt(1 - root**2)
    assert stats.kstest(noise, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise, root)[0, 1]) < 0.06


def test_sr3_asks_on_any_schedule_what_it_was_trained_on():
    """Training's input at a level, and the sampler's at the same level of another schedule, get the same answer."""
    task = SuperResolution(TINY, Level())
    params = random_params(task)
    y = normalize(jnp.asarray(batch()["condition"]))
    x = jax.random.normal(jax.random.key(2), y.shape)
    for schedule in (SCHEDULE, dj.schedules.linear(5, beta_start=0.01, beta_end=0.9)):
        predict = conditional.predictor(TINY, params, y, Sampling(schedule, None), task.level)
        level = np.full(4, 1000 * schedule.sqrt_alpha_bars[3], np.float32)
        direct = TINY.apply({"params": params}, x, level, image=y)
        np.testing.assert_allclose(predict(x, jnp.full(4, 3)), direct, rtol=1e-4, atol=1e-5)


def test_the_residual_of_no_predictor_is_plain_conditional_diffusion():
    """With g = 0 the residual is the image: loss and gradient are those of the conditional task, and so is a sample."""
    plain = SuperResolution(TOY, Level())
    params = random_params(plain)
    examples = batch()
    y = normalize(jnp.asarray(examples["condition"]))

    class Nothing:
        """y + UNet(y) = 0."""

        def apply(self, variables, x, t, **_):
            return -x

        def init(self, *_):
            return {"params": {}}

    task = Deblurring(Nothing(), TOY, Level())
    t, keys, key = jnp.array([0, 5, 10, 19]), dj.sample_keys(3, 0, 4), jax.random.key(4)
    alone = plain.loss(SCHEDULE, norm="l1")(params, examples, t, keys, key)
    residual = task.loss(SCHEDULE, norm="l1")({"predictor": {}, "denoiser": params}, examples, t, keys, key)
    np.testing.assert_allclose(residual, alone, rtol=1e-6)

    grid = dj.timesteps.trailing(20, 3)
    how = Sampling(SCHEDULE, dj.samplers.ddim(SCHEDULE, grid, eta=1.0))
    predict = conditional.predictor(TOY, params, y, how, plain.level)
    expected = dj.sample(how.steps, predict, dj.initial_noise(keys, (8, 8, 1)), keys, clip=2.0)
    restored = task.restore({"predictor": {}, "denoiser": params}, how, y, keys)
    np.testing.assert_allclose(restored, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("told", ["sqrt_alpha_bar", "t"])
@pytest.mark.parametrize("frozen", [False, True])
def test_gradient_goes_through_the_residual_into_the_predictor(told, frozen):
    task = Deblurring(TOY, TOY, Level(told=told), frozen)
    params = random_params(task)
    per_example = task.loss(SCHEDULE, norm="l1")

    def loss(params):
        return per_example(params, batch(), jnp.arange(4), dj.sample_keys(0, 0, 4), jax.random.key(0)).mean()

    gradient = jax.jit(jax.grad(loss))(params)
    sizes = {name: float(sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(gradient[name]))) for name in gradient}
    assert sizes["denoiser"] > 0
    assert (sizes["predictor"] > 0) == (not frozen)


def test_a_frozen_predictor_changes_the_gradient_not_the_loss():
    tasks = [Deblurring(TOY, TOY, Level(), frozen) for frozen in (False, True)]
    params = random_params(tasks[0])
    arguments = (params, batch(), jnp.arange(4), dj.sample_keys(0, 0, 4), jax.random.key(0))
    first, second = (task.loss(SCHEDULE, norm="l1")(*arguments) for task in tasks)
    np.testing.assert_allclose(first, second, rtol=1e-6)


def test_regression_is_the_distance_from_the_image():
    task, examples = Regression(TINY), batch()
    params = jax.jit(lambda key: task.init((8, 8, 1), key))(jax.random.key(0))
    y, x = (normalize(jnp.asarray(examples[name])) for name in ("condition", "image"))
    # A fresh network changes nothing.
    np.testing.assert_allclose(task.restore(params, None, y), y, atol=1e-3)
    loss = jax.jit(task.loss(norm="l1"))(params, examples, jnp.zeros(4, jnp.int32), None, jax.random.key(0))
    np.testing.assert_allclose(loss, np.abs(x - y).mean((1, 2, 3)), rtol=1e-3)


def test_averaging_lowers_the_error_as_the_number_of_draws():
    """Of x ~ N(m, s²) given y the mean of N samples is off by s²/N from m; so is its squared error."""
    mean, std = 0.3, 0.5

    def predict(x, t):
        signal, noise = process.scales_at(SCHEDULE, x, t)
        return noise * (x - signal * mean) / (noise**2 + signal**2 * std**2)

    grid = dj.timesteps.full(20)
    steps = dj.samplers.ddpm(SCHEDULE, grid)

    def restore(condition, keys):
        return dj.sample(steps, predict, dj.initial_noise(keys, condition.shape[1:]), keys)

    condition, keys = jnp.zeros((2, 40, 40, 1)), dj.sample_keys(0, 0, 2)
    errors = {
        num: float(jnp.mean((conditional.average(restore, condition, keys, num) - mean) ** 2)) for num in (1, 4, 16)
    }
    assert errors[1] / errors[4] == pytest.approx(4, rel=0.2)
    assert errors[1] / errors[16] == pytest.approx(16, rel=0.25)
    with pytest.raises(ValueError, match="num=0 must be ≥ 1"):
        conditional.average(restore, condition, keys, 0)


def test_noise_scale_0_is_the_deterministic_path_from_0():
    task = SuperResolution(TOY, Level())
    params, y = random_params(task), normalize(jnp.asarray(batch()["condition"]))
    steps = dj.samplers.ddpm(SCHEDULE, dj.timesteps.full(20))
    how = Sampling(SCHEDULE, steps, noise_scale=0.0)
    a, b = (task.restore(params, how, y, dj.sample_keys(seed, 0, 4)) for seed in (0, 1))
    np.testing.assert_array_equal(a, b)


def test_a_cascade_hands_on_what_it_makes():
    seen = []

    def restore(condition, keys):
        seen.append(condition)
        return jnp.clip(condition + 0.1, -1, 1)

    low = np.full((2, 4, 4, 1), 100, np.uint8)
    first, second = super_resolution.cascade([(restore, (8, 8)), (restore, (16, 16))], low, dj.sample_keys(0, 0, 2))
    assert first.shape == (2, 8, 8, 1)
    assert second.shape == (2, 16, 16, 1)
    np.testing.assert_allclose(seen[1], normalize(jnp.full((2, 16, 16, 1), first.max())), atol=1e-6)
    assert second.min() > first.max() > 100


def test_a_condition_of_another_size():
    task = SuperResolution(TINY, Level())
    examples = batch() | {"condition": batch(shape=(4, 4, 1))["condition"]}
    with pytest.raises(ValueError, match=r"image has the shape \(4, 4, 4, 1\); all but its channels must be as in x"):
        task.loss(SCHEDULE)(random_params(task), examples, jnp.arange(4), dj.sample_keys(0, 0, 4), jax.random.key(0))


def test_distance():
    answer, wanted = jnp.array([[1.0, -2.0]]), jnp.zeros((1, 2))
    assert losses.distance(answer, wanted, norm="l1").tolist() == [1.5]
    assert losses.distance(answer, wanted).tolist() == [2.5]
