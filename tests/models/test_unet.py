from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.models import UNet, embeddings, layers, predictor

SMALL = {"channels": 8, "multipliers": (1, 2), "num_res_blocks": 1, "attention_resolutions": (4,), "groups": 4}


def init(model, shape=(2, 8, 8, 1), dtype=jnp.float32):
    x = jax.random.normal(jax.random.key(1), shape, dtype)
    t = jnp.arange(shape[0]) * 37
    return _init(model, jax.random.key(0), x, t)["params"], x, t


@partial(jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})
def _init(model, key, x, t):
    return model.init(key, x, t)


def apply(model, params, x, t, **kwargs):
    return jax.jit(lambda p, x, t: model.apply({"params": p}, x, t, **kwargs))(params, x, t)


def abstract(model, shape):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape), jnp.zeros(1, jnp.int32))["params"]


def count(params):
    return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params))


@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def perturbed(params):
    """Parameters of which none is zero, so that every path counts."""
    leaves, tree = jax.tree.flatten(params)
    noise = 0.1 * jax.random.normal(jax.random.key(9), (max(leaf.size for leaf in leaves),), leaves[0].dtype)
    return tree.unflatten([leaf + jnp.roll(noise, n)[: leaf.size].reshape(leaf.shape) for n, leaf in enumerate(leaves)])


def test_ddpm_cifar10_has_its_published_number_of_parameters():
    params = abstract(UNet(), (1, 32, 32, 3))
    assert count(params) == 35_746_307
    attended = {name for name in params if "attention" in name}
    assert attended == {
        "down_1_0_attention", "down_1_1_attention", "middle_attention",
        "up_1_0_attention", "up_1_1_attention", "up_1_2_attention",
    }  # fmt: skip


@pytest.mark.parametrize(("kwargs", "number"), [
    # LSUN-256 and CelebA-64, published.
    ({"multipliers": (1, 1, 2, 2, 4, 4)}, 113_673_219),
    ({"multipliers": (1, 2, 2, 2, 4)}, 78_700_803),
])  # fmt: skip
def test_other_published_counts(kwargs, number):
    size = 256 if len(kwargs["multipliers"]) == 6 else 64
    assert count(abstract(UNet(**kwargs), (1, size, size, 3))) == number


def test_starts_by_predicting_almost_nothing():
    model = UNet(**SMALL)
    params, x, t = init(model)
    eps = apply(model, params, x, t)
    assert eps.shape == x.shape
    assert jnp.max(jnp.abs(eps)) < 1e-3
    # Only what closes a residual branch, and the last convolution, start near zero; their neighbours do not.
    assert jnp.max(jnp.abs(params["down_0_0"]["conv2"]["kernel"])) < 1e-4
    assert jnp.max(jnp.abs(params["middle_attention"]["out"]["kernel"])) < 1e-4
    assert jnp.max(jnp.abs(params["down_0_0"]["conv1"]["kernel"])) > 1e-2
    assert jnp.max(jnp.abs(params["middle_attention"]["q"]["kernel"])) > 1e-2


def test_init_has_the_variance_of_fan_avg_uniform():
    kernel = layers.ddpm_init()(jax.random.key(0), (3, 3, 64, 192))
    fan = 9 * (64 + 192) / 2
    assert np.var(kernel) == pytest.approx(1 / fan, rel=0.02)
    assert np.max(np.abs(kernel)) == pytest.approx(np.sqrt(3 / fan), rel=0.01)


def test_output_depends_on_the_timestep_and_on_each_sample_alone():
    model = UNet(**SMALL)
    params, x, t = init(model, (3, 8, 8, 1))
    params = perturbed(params)
    eps = apply(model, params, x, t)
    other = apply(model, params, x, t.at[1].set(900))
    np.testing.assert_allclose(eps[0], other[0], rtol=1e-5, atol=1e-6)
    assert jnp.max(jnp.abs(eps[1] - other[1])) > 1e-3
    np.testing.assert_allclose(apply(model, params, x[2:], t[2:])[0], eps[2], rtol=1e-4, atol=1e-5)


def test_every_parameter_has_a_gradient():
    model = UNet(**SMALL)
    params, x, t = init(model)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(model.apply({"params": p}, x, t) ** 2)))(perturbed(params))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        # The softmax does not see a constant added to every key.
        assert np.any(np.abs(leaf) > 1e-6) or "['k']['bias']" in name, name


def test_dropout_needs_training_and_a_key():
    model = UNet(**SMALL, dropout=0.5)
    params, x, t = init(model)
    params = perturbed(params)
    calm = [apply(model, params, x, t) for _ in range(2)]
    np.testing.assert_array_equal(*calm)
    noisy = [apply(model, params, x, t, train=True, rngs={"dropout": jax.random.key(n)}) for n in range(2)]
    assert jnp.max(jnp.abs(noisy[0] - noisy[1])) > 1e-3


def test_bfloat16_keeps_parameters_and_output_in_float32():
    model = UNet(**SMALL, dtype=jnp.bfloat16)
    params, x, t = init(model)
    params = perturbed(params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    eps = apply(model, params, x, t)
    assert eps.dtype == jnp.float32
    exact = apply(UNet(**SMALL), params, x, t)
    error = jnp.linalg.norm(eps - exact) / jnp.linalg.norm(exact)
    assert 1e-5 < error < 0.05


@pytest.mark.usefixtures("x64")
def test_float64_all_the_way():
    params, x, t = init(UNet(**SMALL, dtype=jnp.float64), dtype=jnp.float64)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), perturbed(params))
    wide = apply(UNet(**SMALL, dtype=jnp.float64), params, x, t)
    narrow = apply(UNet(**SMALL), jax.tree.map(lambda p: p.astype(jnp.float32), params), x.astype(jnp.float32), t)
    assert wide.dtype == jnp.float64
    error = float(jnp.linalg.norm(wide - narrow) / jnp.linalg.norm(wide))
    assert 1e-9 < error < 1e-5


def test_group_norm_normalises_each_group():
    x = 5 + 3 * jax.random.normal(jax.random.key(0), (2, 6, 6, 8))
    norm = layers.GroupNorm(4)
    y = norm.apply(norm.init(jax.random.key(0), x), x).reshape(2, 36, 4, 2)
    np.testing.assert_allclose(jnp.mean(y, (1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(jnp.var(y, (1, 3)), 1, rtol=1e-4)


def test_downsampling_pads_at_the_bottom_and_the_right():
    conv = layers.conv3x3(1, dtype=jnp.float32, stride=2, name=None)
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    kernel = jnp.zeros((3, 3, 1, 1)).at[2, 2].set(1)  # reads the pixel two below and two to the right
    y = conv.apply({"params": {"kernel": kernel, "bias": jnp.zeros(1)}}, x)
    assert y[0, :, :, 0].tolist() == [[10.0, 0.0], [0.0, 0.0]]


def test_sinusoidal_embedding():
    emb = embeddings.sinusoidal(jnp.array([0, 10]), 8)
    assert emb.shape == (2, 8)
    np.testing.assert_allclose(emb[0], [0, 0, 0, 0, 1, 1, 1, 1], atol=1e-7)
    frequencies = 10_000.0 ** (-np.arange(4) / 3)
    np.testing.assert_allclose(emb[1], [*np.sin(10 * frequencies), *np.cos(10 * frequencies)], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="dim=7"):
        embeddings.sinusoidal(jnp.zeros(1), 7)


def test_predictor_is_a_pytree_of_its_parameters():
    model = UNet(**SMALL)
    params, x, t = init(model)
    predict = predictor(model, params)
    assert len(jax.tree.leaves(predict)) == len(jax.tree.leaves(params))
    np.testing.assert_allclose(jax.jit(predict)(x, t), apply(model, params, x, t), rtol=1e-5, atol=1e-8)
    assert jax.tree.structure(predict) == jax.tree.structure(predictor(UNet(**SMALL), params))


@pytest.mark.parametrize(
    ("model", "size", "words"),
    [
        (UNet(**{**SMALL, "multipliers": (1, 1, 1)}), 6, "image size 6×6 cannot be halved 2 times.*multiple of 4"),
        (UNet(**{**SMALL, "groups": 3}), 8, r"groups=3 does not divide 8 channels \(config.model.groups\)"),
    ],
)
def test_bad_input(model, size, words):
    with pytest.raises(ValueError, match=words):
        abstract(model, (1, size, size, 1))
