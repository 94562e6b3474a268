from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.models import NO_LABEL, DiT, count_params, embeddings, init_params
from diffjax.models.dit import Block, modulated_norm

SMALL = {"hidden_size": 16, "depth": 2, "num_heads": 2}
SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}


def abstract(network, shape=(8, 8, 3), **kwargs):
    """The parameters' shapes; nothing is computed."""
    return jax.eval_shape(lambda: init_params(network, shape, jax.random.key(0), **kwargs))


def sampled(network, shape=(8, 8, 3), *, seed=0, **kwargs):
    """Parameters of which none is zero."""
    rng = np.random.default_rng(seed)

    def sample(leaf):
        return jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(max(1, np.prod(leaf.shape[:-1]))), leaf.dtype)

    return jax.tree.map(sample, abstract(network, shape, **kwargs))


def normal(seed, shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


fast = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""The time to compile is meant."""


@partial(fast, static_argnums=0, static_argnames="train")
def apply(network, params, x, t, **kwargs):
    return network.apply({"params": params}, x, t, **kwargs)


@partial(fast, static_argnums=(0, 1))
def init(network, shape):
    return init_params(network, shape, jax.random.key(0))


def by_hand(width, depth, patch, channels, out_channels, classes):
    """The number of parameters, part by part."""

    def dense(inputs, outputs):
        return inputs * outputs + outputs

    block = 4 * dense(width, width) + dense(width, 4 * width) + dense(4 * width, width) + dense(width, 6 * width)
    embedding = dense(256, width) + dense(width, width) + (classes + 1) * width
    output = dense(width, 2 * width) + dense(width, patch**2 * out_channels)
    return dense(patch**2 * channels, width) + embedding + depth * block + output


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("patch", [2, 4, 8])
def test_numbers_of_parameters(size, patch):
    width, depth, heads = SIZES[size]
    network = DiT(patch_size=patch, hidden_size=width, depth=depth, num_heads=heads, num_classes=1000, out_channels=8)
    assert count_params(abstract(network, (32, 32, 4))) == by_hand(width, depth, patch, 4, 8, 1000)


@pytest.mark.parametrize(
    ("size", "patch", "exact", "millions"),
    [
        ("S", 2, 32_963_360, 33),
        ("S", 4, 32_945_024, 33),
        ("S", 8, 33_148_160, 33),
        ("B", 2, 130_512_416, 130),
        ("B", 4, 130_475_648, 130),
        ("B", 8, 130_881_536, 131),
        ("L", 2, 458_102_816, 458),
        ("L", 4, 458_053_760, 458),
        ("L", 8, 458_594_816, 459),
        ("XL", 2, 675_129_632, 675),
        ("XL", 4, 675_074_432, 675),
        ("XL", 8, 675_683_072, 676),
    ],
)
def test_published_numbers_of_parameters(size, patch, exact, millions):
    """DiT's code counts the fixed table of positions too (Tab. 4 rounds to millions, here and there downwards)."""
    width, depth, _ = SIZES[size]
    number = by_hand(width, depth, patch, 4, 8, 1000) + (32 // patch) ** 2 * width
    assert number == exact
    assert abs(number / 1e6 - millions) < 1


def test_names_of_the_parameters_stay():
    # Checkpoints hold them.
    params = abstract(DiT(**{**SMALL, "depth": 1}, num_classes=3))
    assert {name: set(module) for name, module in params.items()} == {
        **{name: {"kernel", "bias"} for name in ("patch", "time_1", "time_2", "modulation_out", "out")},
        "class": {"embedding"},
        "block_0": {"modulation", "q", "k", "v", "out", "mlp_1", "mlp_2"},
    }


@pytest.mark.parametrize(
    ("options", "shape", "image_channels", "out"),
    [
        ({}, (8, 8, 3), 0, 3),
        ({"out_channels": 6}, (8, 8, 3), 0, 6),
        ({"patch_size": 4, "num_classes": 2}, (8, 12, 1), 0, 1),
        ({"patch_size": 1}, (3, 5, 2), 1, 2),
    ],
)
def test_shapes(options, shape, image_channels, out):
    network = DiT(**SMALL, **options)
    params = abstract(network, shape, image_channels=image_channels)
    condition = {"label": jnp.zeros(2, jnp.int32)} if network.num_classes else {}
    if image_channels:
        condition["image"] = jnp.zeros((2, *shape[:2], image_channels))
    x = jnp.zeros((2, *shape))
    found = jax.eval_shape(lambda p: network.apply({"params": p}, x, jnp.zeros(2), **condition), params)
    assert found.shape == (2, *shape[:2], out)
    assert found.dtype == jnp.float32


def test_initialisation_follows_the_original():
    params = init(DiT(hidden_size=64, depth=1, num_heads=2, num_classes=200), (8, 8, 4))
    block = params["block_0"]
    for zero in (block["modulation"], params["modulation_out"], params["out"]):
        assert not any(np.any(leaf) for leaf in zero.values())
    bounds = {"q": 6 / 256, "k": 6 / 256, "v": 6 / 256, "out": 6 / 128, "mlp_1": 6 / 320, "mlp_2": 6 / 320}
    for name, square in bounds.items():
        largest = np.max(np.abs(block[name]["kernel"]))
        assert largest == pytest.approx(np.sqrt(square), rel=0.02), name
        assert not np.any(block[name]["bias"])
    assert np.max(np.abs(params["patch"]["kernel"])) == pytest.approx(np.sqrt(6 / (16 + 64)), rel=0.02)
    for normal in (params["time_1"]["kernel"], params["time_2"]["kernel"], params["class"]["embedding"]):
        assert np.std(normal) == pytest.approx(0.02, rel=0.05)


def test_blocks_are_the_identity_and_the_output_zero_at_initialisation():
    block = Block(2, 32, 0.0, jnp.float32, True, 1e-6, 1e-6)
    x, emb = normal(0, (2, 5, 16)), normal(1, (2, 16))
    params = fast(block.init)(jax.random.key(0), x, emb)
    np.testing.assert_array_equal(block.apply(params, x, emb), x)

    network = DiT(**SMALL)
    params = init(network, (8, 8, 3))
    assert not np.any(apply(network, params, normal(2, (2, 8, 8, 3)), jnp.array([1, 999])))


def test_modulated_norm():
    x, shift, scale = 3 + 2 * normal(0, (2, 5, 16)), normal(1, (2, 16)), normal(2, (2, 16))
    centred = x - np.mean(x, axis=-1, keepdims=True)
    expected = centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 0.5)
    found = modulated_norm(x, shift, scale, epsilon=0.5, dtype=jnp.float32)
    np.testing.assert_allclose(found, expected * (1 + scale[:, None]) + shift[:, None], rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("x64")
def test_patches_and_positions_are_placed_right():
    """With all gates at zero and a linear readout of the token, the patch and its position come out again."""
    network = DiT(hidden_size=16, depth=1, num_heads=2, dtype=jnp.float64)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape), abstract(network, (4, 6, 2)))
    # Token channels 0 … 7 are the patch's pixels (row, column, channel), plus the position.
    params["patch"]["kernel"][:] = np.eye(8, 16).reshape(2, 2, 2, 16)
    params["out"]["kernel"][:8, :] = np.eye(8)
    x = np.asarray(normal(0, (1, 4, 6, 2), jnp.float64))
    tokens = x.reshape(2, 2, 3, 2, 2).transpose(0, 2, 1, 3, 4).reshape(2, 3, 8)
    tokens = np.concatenate([tokens, np.zeros((2, 3, 8))], axis=-1) + embeddings.positions_2d(2, 3, 16)
    centred = tokens - tokens.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    expected = normed[..., :8].reshape(2, 3, 2, 2, 2).transpose(0, 2, 1, 3, 4).reshape(4, 6, 2)
    np.testing.assert_allclose(apply(network, params, x, jnp.zeros(1))[0], expected, rtol=1e-10, atol=1e-12)


def test_no_class_has_a_vector_of_its_own():
    network = DiT(**SMALL, num_classes=3)
    params = sampled(network)
    assert params["class"]["embedding"].shape == (4, 16)
    x, t = normal(0, (2, 8, 8, 3)), jnp.array([5, 5])
    found = apply(network, params, x, t, label=jnp.array([1, NO_LABEL]))
    # The last row is that of no class.
    rows = params["class"]["embedding"].at[0].set(params["class"]["embedding"][3])
    moved = {**params, "class": {"embedding": rows}}
    expected = apply(network, moved, x, t, label=jnp.array([1, 0]))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert jnp.max(jnp.abs(found - apply(network, params, x, t, label=jnp.array([1, 0])))[1]) > 1e-3
    for wrong in (-2, 3, 4):
        found = apply(network, params, x, t, label=jnp.array([0, wrong]))
        assert jnp.isfinite(found[0]).all()
        assert jnp.isnan(found[1]).all()


def test_output_depends_on_t_and_the_condition_image_of_each_sample_alone():
    network = DiT(**SMALL)
    params = sampled(network, image_channels=1)
    x, t, image = normal(0, (2, 8, 8, 3)), jnp.array([0.25, 500.5]), normal(1, (2, 8, 8, 1))
    found = apply(network, params, x, t, image=image)
    for changed in (
        apply(network, params, x, t.at[1].set(500.75), image=image),
        apply(network, params, x, t, image=image.at[1].set(0)),
    ):
        np.testing.assert_allclose(found[0], changed[0], rtol=1e-5, atol=1e-6)
        assert jnp.max(jnp.abs(found[1] - changed[1])) > 1e-4


def test_images_of_another_size():
    network = DiT(**SMALL)
    params = sampled(network)
    x, t = normal(0, (1, 12, 4, 3)), jnp.array([7])
    assert jnp.isfinite(apply(network, params, x, t)).all()


def test_every_parameter_has_a_finite_gradient():
    network = DiT(**SMALL, num_classes=3)
    params = sampled(network)
    x, t, label = normal(0, (3, 8, 8, 3)), jnp.array([3, 500, 999]), jnp.array([0, 2, NO_LABEL])
    gradient = fast(jax.grad(lambda p: jnp.sum(network.apply({"params": p}, x, t, label) ** 2)))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        # The softmax does not see a constant added to every key.
        assert np.any(np.abs(leaf) > 1e-6) or "['k']['bias']" in name, name


def test_dropout_needs_training_and_a_key():
    network = DiT(**SMALL, dropout=0.5)
    params, x, t = sampled(network), normal(0, (2, 8, 8, 3)), jnp.array([1, 2])
    np.testing.assert_array_equal(apply(network, params, x, t), apply(DiT(**SMALL), params, x, t))
    noisy = [apply(network, params, x, t, train=True, rngs={"dropout": jax.random.key(n)}) for n in range(2)]
    assert jnp.max(jnp.abs(noisy[0] - noisy[1])) > 1e-3


def test_remat_changes_no_number():
    network = DiT(**SMALL, dropout=0.5)
    params, x, t = sampled(network), normal(0, (2, 8, 8, 3)), jnp.array([1, 2])
    assert jax.tree.map(jnp.shape, sampled(network.clone(remat=True))) == jax.tree.map(jnp.shape, params)

    def gradient(network):
        rngs = {"dropout": jax.random.key(3)}
        return jax.grad(lambda p: jnp.sum(network.apply({"params": p}, x, t, train=True, rngs=rngs) ** 2))

    plain, remat = gradient(network), gradient(network.clone(remat=True))
    assert "remat" in str(jax.make_jaxpr(remat)(params))
    expected, got = fast(plain)(params), fast(remat)(params)
    scale = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * scale), got, expected)


def test_bfloat16_keeps_parameters_and_output_in_float32():
    network = DiT(**SMALL, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(abstract(network))} == {jnp.dtype("float32")}
    params, x, t = sampled(network), normal(0, (2, 8, 8, 3)), jnp.array([1, 2])
    found, exact = apply(network, params, x, t), apply(DiT(**SMALL), params, x, t)
    assert found.dtype == jnp.float32
    assert 1e-5 < jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact) < 0.05


@pytest.mark.usefixtures("x64")
def test_float64_all_the_way():
    network = DiT(**SMALL, num_classes=3, dtype=jnp.float64)
    params = abstract(network)
    x, t, label = jnp.zeros((2, 8, 8, 3)), jnp.zeros(2), jnp.zeros(2, jnp.int32)
    jaxpr = jax.make_jaxpr(lambda p: network.apply({"params": p}, x, t, label))(params)
    assert jaxpr.out_avals[0].dtype == jnp.float64
    assert "f32" not in str(jaxpr)


@pytest.mark.parametrize("change", [
    {"num_heads": 4}, {"norm_eps": 1e-2}, {"mlp_norm_eps": 1e-2}, {"freq_shift": 1},
])  # fmt: skip
def test_every_option_that_leaves_the_parameters_changes_the_output(change):
    params, x, t = sampled(DiT(**SMALL)), normal(0, (2, 8, 8, 3)), jnp.array([100, 999])
    a, b = (apply(DiT(**{**SMALL, **options}), params, x, t) for options in ({}, change))
    assert jnp.linalg.norm(a - b) / jnp.linalg.norm(a) > 1e-6


def test_options_that_change_the_parameters():
    plain, count = (
        count_params(abstract(DiT(**SMALL))),
        lambda **options: count_params(abstract(DiT(**SMALL, **options))),
    )
    assert count(qkv_bias=False) == plain - 2 * 3 * 16
    assert count(mlp_ratio=0.5) == plain - 2 * (2 * 16 * 56 + 56)
    assert count(num_classes=9) == plain + 10 * 16


NAN = float("nan")


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("patch_size", [0, -1, 3, 16, 257, 10**12, 2.0, "2", None, True]),
        ("hidden_size", [0, -4, 6, 10**12, 16.0, None, NAN]),
        ("depth", [0, -1, 201, 10**12, 1.0, None]),
        ("num_heads", [0, -1, 3, 10**12, None]),
        ("mlp_ratio", [0.0, -1.0, 65.0, NAN, float("inf"), None, "4"]),
        ("num_classes", [0, -1, 10**12, 2.0]),
        ("out_channels", [0, -1, 10**12, 1.5]),
        ("dropout", [1.0, -0.1, NAN, None]),
        ("dtype", ["int32", "nope", None]),
        ("qkv_bias", [1, None]),
        ("norm_eps", [0.0, 1.0, NAN, 1e-300, None]),
        ("mlp_norm_eps", [0.0, 1.0, NAN, "1e-6"]),
        ("freq_shift", [2, -1, 0.5, None]),
        ("remat", [1, "yes"]),
    ],
)
def test_invalid_fields_are_named_on_one_line(field, wrong):
    for value in wrong:
        with pytest.raises(ValueError, match=rf"^{field}=.* must ") as caught:
            abstract(DiT(**{**SMALL, field: value}))
        message = str(caught.value).split("\n--------------------")[0]  # JAX adds a note about its traceback
        assert "\n" not in message
        assert "config" not in message


@pytest.mark.parametrize(
    ("x", "t", "condition", "words"),
    [
        ((2, 7, 8, 3), (2,), {}, "patch_size=2 must divide the images' height 7 and width 8"),
        ((2, 8, 8), (2,), {}, r"x.shape=\(2, 8, 8\) must be \(batch, height, width, channels\)"),
        ((2, 8, 8, 3), (), {}, r"t.shape=\(\) must be \(2,\)"),
        ((2, 8, 8, 4), (2,), {}, r"channels=4 \(4 of x, 0 of image\) must be 3"),
        ((2, 8, 8, 3), (2,), {"image": (2, 8, 8, 1)}, r"channels=4 \(3 of x, 1 of image\) must be 3"),
        ((2, 8, 8, 3), (2,), {"image": (2, 4, 4, 1)}, r"image.shape=\(2, 4, 4, 1\) must agree with x.shape"),
        ((2, 8, 8, 3), (2,), {"label": (2,)}, r"label=float32\[2\] must be None: the network has no classes"),
    ],
)
def test_inputs_that_are_refused(x, t, condition, words):
    network = DiT(**SMALL)
    params = abstract(network)
    condition = {name: jnp.zeros(shape) for name, shape in condition.items()}
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(lambda p: network.apply({"params": p}, jnp.zeros(x), jnp.zeros(t), **condition), params)
