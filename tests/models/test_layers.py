from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.models import embeddings, layers

NORM = {"num_groups": 2, "epsilon": 1e-6}


def block(**kwargs):
    return layers.ResBlock(4, lambda name: layers.GroupNorm(**NORM, name=name), 0.0, jnp.float32, **kwargs)


def attention(**kwargs):
    return layers.Attention(lambda name: layers.GroupNorm(**NORM, name=name), jnp.float32, **kwargs)


def normal(seed, shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def test_init_has_the_variance_of_fan_avg_uniform():
    kernel = layers.ddpm_init()(jax.random.key(0), (3, 3, 64, 192))
    fan = 9 * (64 + 192) / 2
    assert np.var(kernel) == pytest.approx(1 / fan, rel=0.02)
    assert np.max(np.abs(kernel)) == pytest.approx(np.sqrt(3 / fan), rel=0.01)


def test_group_norm_normalises_each_group():
    x = 5 + 3 * normal(0, (2, 6, 6, 8))
    norm = layers.GroupNorm(4)
    y = norm.apply(norm.init(jax.random.key(0), x), x).reshape(2, 36, 4, 2)
    np.testing.assert_allclose(jnp.mean(y, (1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(jnp.var(y, (1, 3)), 1, rtol=1e-4)


def test_group_norm_in_float64_is_the_formula_with_its_gradients(x64):
    x = 3 + normal(0, (2, 4, 6, 8), jnp.float64)
    params = {"norm": {"scale": 1 + normal(1, (8,), jnp.float64), "bias": normal(2, (8,), jnp.float64)}}
    weights = normal(3, x.shape, jnp.float64)

    def formula(params, x):
        groups = x.reshape(2, 24, 4, 2)
        deviation = groups - jnp.mean(groups, (1, 3), keepdims=True)
        h = (deviation / jnp.sqrt(jnp.mean(deviation**2, (1, 3), keepdims=True) + 1e-6)).reshape(x.shape)
        return h * params["norm"]["scale"] + params["norm"]["bias"]

    def ours(params, x):
        return layers.GroupNorm(4, dtype=jnp.float64).apply({"params": params}, x)

    np.testing.assert_allclose(ours(params, x), formula(params, x), atol=1e-12)
    found, expected = (
        jax.grad(lambda *inputs, norm=norm: jnp.sum(weights * norm(*inputs)), argnums=(0, 1))(params, x)
        for norm in (ours, formula)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), found, expected)


def test_group_norm_adds_epsilon_to_the_variance():
    x = normal(0, (1, 6, 6, 2))
    norm = layers.GroupNorm(1, epsilon=3.0)
    y = norm.apply(norm.init(jax.random.key(0), x), x)
    variance = float(jnp.var(x))
    assert float(jnp.var(y)) == pytest.approx(variance / (variance + 3), rel=1e-4)


@pytest.mark.parametrize(
    ("padding", "expected"),
    # The kernel reads the corner of each window that is furthest down and right.
    [((0, 1), [[10.0, 0.0], [0.0, 0.0]]), ((1, 1), [[5.0, 7.0], [13.0, 15.0]])],
)
def test_downsampling_pads_before_and_after(padding, expected):
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    kernel = jnp.zeros((3, 3, 1, 1)).at[2, 2].set(1)
    params = {"conv": {"kernel": kernel, "bias": jnp.zeros(1)}}
    y = layers.Downsample(padding, jnp.float32).apply({"params": params}, x)
    assert y[0, :, :, 0].tolist() == expected


def test_halve_is_the_mean_of_what_double_repeats():
    x = jnp.arange(8.0).reshape(1, 2, 4, 1)
    assert layers.halve(x)[0, :, :, 0].tolist() == [[2.5, 4.5]]
    doubled = layers.double(x, (4, 8))
    assert doubled[0, :, :, 0].tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]] * 2 + [[4, 4, 5, 5, 6, 6, 7, 7]] * 2
    np.testing.assert_array_equal(layers.halve(doubled), x)
    np.testing.assert_array_equal(layers.halve(layers.double(x, (3, 7))), x)


@pytest.mark.parametrize("resample", [layers.halve, partial(layers.double, size=(8, 8))])
def test_resampling_acts_on_both_branches_before_the_convolutions(resample):
    x, emb = normal(0, (1, 4, 4, 4)), normal(1, (1, 6))
    model = block(resample=resample)
    params = model.init(jax.random.key(0), x, emb, None)["params"]
    np.testing.assert_allclose(model.apply({"params": params}, x, emb, None), resample(x), atol=1e-4)
    one = {"kernel": jnp.zeros((3, 3, 4, 4)).at[1, 1].set(jnp.eye(4)), "bias": jnp.zeros(4)}
    params = {**params, "conv1": one, "conv2": one}
    h = resample(jax.nn.swish(layers.GroupNorm(**NORM).apply({"params": params["norm1"]}, x)))
    h += (jax.nn.swish(emb) @ params["emb"]["kernel"])[:, None, None, :]
    h = jax.nn.swish(layers.GroupNorm(**NORM).apply({"params": params["norm2"]}, h))
    np.testing.assert_allclose(model.apply({"params": params}, x, emb, None), resample(x) + h, atol=1e-5)


def test_scale_comes_before_shift():
    x, emb = normal(0, (1, 4, 4, 4)), normal(1, (1, 6))
    model = block(use_scale_shift_norm=True)
    params = model.init(jax.random.key(0), x, emb, None)["params"]
    params["conv2"]["kernel"] = jnp.zeros((3, 3, 4, 4)).at[1, 1].set(jnp.eye(4))
    params["emb"] = {"kernel": jnp.zeros((6, 8)), "bias": jnp.array([-1.0] * 4 + [2.0] * 4)}
    # A scale of -1 leaves the shift alone.
    y = model.apply({"params": params}, x, emb, None)
    np.testing.assert_allclose(y, x + jax.nn.swish(2.0), atol=1e-5)


def test_class_bias_is_added_to_the_embedding():
    x, emb = normal(0, (2, 4, 4, 4)), normal(1, (2, 6))
    model = block(class_bias=3)
    params = model.init(jax.random.key(0), x, emb, jnp.array([0, 2]))["params"]
    params["conv2"]["kernel"] = jnp.ones((3, 3, 4, 4))
    table = params.pop("class_bias")["embedding"]
    got = model.apply({"params": {**params, "class_bias": {"embedding": table}}}, x, emb, jnp.array([2, 2]))
    params["emb"]["bias"] += table[2]
    np.testing.assert_allclose(got, block().apply({"params": params}, x, emb, None), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kwargs", [{"num_heads": 3}, {"num_head_channels": 4}])
def test_attention_of_several_heads(kwargs):
    x = normal(0, (2, 3, 5, 12))
    model = attention(**kwargs)
    params = model.init(jax.random.key(0), x)["params"]
    params["out"]["kernel"] = jnp.eye(12)
    h = layers.GroupNorm(**NORM).apply({"params": params["norm"]}, x).reshape(2, 15, 12)
    q, k, v = (np.asarray(h @ params[name]["kernel"] + params[name]["bias"]) for name in "qkv")
    expected = np.empty((2, 15, 12))
    for head in (slice(0, 4), slice(4, 8), slice(8, 12)):
        weights = softmax(q[..., head] @ k[..., head].transpose(0, 2, 1) / np.sqrt(4))
        expected[..., head] = weights @ v[..., head]
    np.testing.assert_allclose(model.apply({"params": params}, x), x + expected.reshape(x.shape), rtol=1e-4, atol=1e-4)


def test_attention_without_bias():
    params = attention(qkv_bias=False).init(jax.random.key(0), normal(0, (1, 2, 2, 4)))["params"]
    assert {name for name in params if "bias" in params[name]} == {"out"}


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"num_heads": 3}, "num_heads=3 must divide 4 channels"),
        ({"num_heads": 0}, "num_heads=0 must divide"),
        ({"num_head_channels": 8}, "num_head_channels=8 must be at most 4 channels"),
    ],
)
def test_heads_that_do_not_fit(kwargs, words):
    with pytest.raises(ValueError, match=words):
        attention(**kwargs).init(jax.random.key(0), normal(0, (1, 2, 2, 4)))


@pytest.mark.usefixtures("x64")
def test_softmax_is_as_wide_as_its_input():
    q, k, v = (normal(seed, (2, 7, 3, 5), jnp.float64) for seed in range(3))
    logits = np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(5)
    expected = np.einsum("bhnm,bmhd->bnhd", softmax(logits), v)
    np.testing.assert_allclose(layers.attend(q, k, v), expected, rtol=1e-12, atol=1e-14)
    narrow = layers.attend(*(a.astype(jnp.float32) for a in (q, k, v)))
    np.testing.assert_allclose(narrow, expected, rtol=1e-4, atol=1e-5)


def test_sinusoidal_embedding():
    emb = embeddings.sinusoidal(jnp.array([0, 10]), 8)
    assert emb.shape == (2, 8)
    np.testing.assert_allclose(emb[0], [0, 0, 0, 0, 1, 1, 1, 1], atol=1e-7)
    frequencies = 10_000.0 ** (-np.arange(4) / 3)
    np.testing.assert_allclose(emb[1], [*np.sin(10 * frequencies), *np.cos(10 * frequencies)], rtol=1e-5, atol=1e-6)


def test_positions_encode_the_column_and_then_the_row():
    table = embeddings.positions_2d(3, 5, 8)
    assert table.shape == (3, 5, 8)
    for row, column in [(0, 0), (2, 1), (1, 4)]:
        expected = [
            f(place * frequency) for place in (column, row) for f in (np.sin, np.cos) for frequency in (1.0, 0.01)
        ]
        np.testing.assert_allclose(table[row, column], expected, rtol=1e-12)


def test_sinusoidal_embedding_as_openai_has_it():
    emb = embeddings.sinusoidal(jnp.array([0.5]), 8, order="cos_sin", freq_shift=0)
    frequencies = 10_000.0 ** (-np.arange(4) / 4)
    np.testing.assert_allclose(emb[0], [*np.cos(0.5 * frequencies), *np.sin(0.5 * frequencies)], rtol=1e-5)


@pytest.mark.parametrize(
    ("dim", "kwargs", "words"),
    [
        (7, {}, "dim=7 must be even and > 2"),
        (2, {}, "dim=2 must be even and > 2"),
        (0, {"freq_shift": 0}, "dim=0 must be even and > 0"),
        (8, {"order": "cos"}, "order='cos' must be one of 'sin_cos', 'cos_sin'"),
    ],
)
def test_invalid_embeddings(dim, kwargs, words):
    with pytest.raises(ValueError, match=words):
        embeddings.sinusoidal(jnp.zeros(1), dim, **kwargs)
