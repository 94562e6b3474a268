import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax as dj
from diffjax import samplers, schedules, thresholds, timesteps


def draw(shape=(5, 4, 4, 3), scale=2.0):
    return scale * jax.random.normal(jax.random.key(0), shape)


def apply(transform, x0):
    return transform(x0)


def test_clip():
    x0 = draw()
    np.testing.assert_array_equal(thresholds.clip(0.7)(x0), np.clip(x0, -0.7, 0.7))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("percentile", [0.0, 0.5, 0.9, 0.995, 1.0])
@pytest.mark.parametrize("limit", [1.0, 2.0])
@pytest.mark.parametrize("largest", [None, 0.5, 2.0, 2.5])
def test_dynamic_is_imagens_formula_sample_by_sample(percentile, limit, largest):
    x0 = np.array(draw()) * np.array([0.1, 0.5, 1, 2, 10]).reshape(-1, 1, 1, 1)
    result = thresholds.dynamic(percentile, limit, largest=largest)(jnp.asarray(x0))
    for sample, thresholded in zip(x0, result, strict=True):
        s = min(max(limit, np.quantile(np.abs(sample), percentile)), largest or np.inf)
        np.testing.assert_allclose(thresholded, np.clip(sample, -s, s) / s * limit, rtol=1e-12)
    assert np.max(np.abs(result)) <= limit * (1 + 1e-12)


def test_dynamic_leaves_samples_in_range_bit_equal():
    x0 = draw().at[0].set(jnp.linspace(-1, 1, 48).reshape(4, 4, 3))
    np.testing.assert_array_equal(thresholds.dynamic()(x0)[0], x0[0])


def test_dynamic_does_not_depend_on_the_batch():
    x0 = draw()
    np.testing.assert_allclose(thresholds.dynamic()(x0[3:4])[0], thresholds.dynamic()(x0)[3], rtol=1e-6)


def test_dynamic_of_numbers_each_its_own_sample():
    np.testing.assert_array_equal(thresholds.dynamic()(jnp.array([0.5, 3.0, -7.0])), [0.5, 1, -1])


def test_other_numbers_compile_nothing(count_compilations):
    x0 = draw()
    jitted = jax.jit(apply)
    for first, second in [
        (thresholds.clip(1), thresholds.clip(np.float32(0.3))),
        (thresholds.dynamic(), thresholds.dynamic(np.float64(0.9), 2)),
        (thresholds.dynamic(), thresholds.dynamic(largest=1.5)),
    ]:
        jitted(first, x0).block_until_ready()
        count_compilations()
        assert jax.tree.structure(first) == jax.tree.structure(second)
        jitted(second, x0).block_until_ready()
        assert count_compilations() == 0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("transform", [thresholds.clip(1.0), thresholds.dynamic()], ids=["clip", "dynamic"])
def test_dtype_stays(transform, dtype):
    x0 = draw().astype(dtype)
    assert transform(x0).dtype == dtype
    assert jax.jit(apply)(transform, x0).dtype == dtype


def test_limits_under_vmap():
    x0 = draw()
    together = jax.vmap(lambda limit: thresholds.dynamic(0.9, limit)(x0))(jnp.array([0.5, 1.5]))
    for limit, alone in zip((0.5, 1.5), together, strict=True):
        np.testing.assert_allclose(thresholds.dynamic(0.9, limit)(x0), alone, rtol=1e-6)


def test_inside_the_loop():
    schedule = schedules.linear(100)
    steps = samplers.ddim(schedule, timesteps.trailing(100, 5))
    predict = jax.tree_util.Partial(jnp.sin)
    predict = jax.tree_util.Partial(_halved, predict)
    x = draw((2, 4, 4, 1), 1.0)
    number = dj.sample(steps, predict, x, clip=0.8)
    np.testing.assert_array_equal(dj.sample(steps, predict, x, clip=thresholds.clip(0.8)), number)
    # The last step gives x̂0, as it was thresholded.
    assert np.max(np.abs(dj.sample(steps, predict, x, clip=thresholds.dynamic(0.9)))) <= 1 + 1e-6
    assert np.max(np.abs(dj.sample(steps, predict, x))) > 1.1


def _halved(function, x, t):
    return 0.5 * function(x)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: thresholds.clip(0.0), "limit=0.0 must be > 0"),
        (lambda: thresholds.clip(float("nan")), "limit=nan"),
        (lambda: thresholds.dynamic(limit=-1), "limit=-1"),
        (lambda: thresholds.dynamic(99.5), r"percentile=99.5 must be within \[0, 1\]"),
        (lambda: thresholds.dynamic(float("nan")), "percentile=nan"),
        (lambda: thresholds.dynamic(largest=0.0), "largest=0.0 must be > 0"),
        (lambda: thresholds.dynamic(largest=float("nan")), "largest=nan"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(ValueError, match=words):
        make()
