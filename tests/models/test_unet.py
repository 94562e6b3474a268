from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.models import NO_LABEL, UNet, predictor

SMALL = {
    "base_channels": 8,
    "channel_mults": (1, 2),
    "num_res_blocks": 1,
    "attention_resolutions": (4,),
    "num_groups": 4,
}

OPENAI = {"norm_eps": 1e-5, "downsample_padding": (1, 1), "time_embedding": "cos_sin", "freq_shift": 0}
IMPROVED = {**OPENAI, "num_res_blocks": 3, "num_heads": 4, "use_scale_shift_norm": True, "out_channels": 6}
ABARANKAB = {"norm_eps": 1e-5, "downsample_padding": (1, 1), "freq_shift": 0, "attention_levels": (1,)}
SR3 = {
    "norm_eps": 1e-5, "downsample_padding": (1, 1), "freq_shift": 0, "activate_embedding": False, "qkv_bias": False,
}  # fmt: skip

FAMILY = {
    "ddpm": {},
    "improved": {**OPENAI, "num_heads": 2, "use_scale_shift_norm": True, "out_channels": 2, "num_classes": 2},
    "guided": {**OPENAI, "num_head_channels": 4, "use_scale_shift_norm": True, "resblock_updown": True},
    "abarankab": {**ABARANKAB, "num_classes": 2, "class_embedding": "block"},
    "sr3": {**SR3, "time_channels": (8, 32, 8)},
}
family = pytest.mark.parametrize("name", FAMILY)

FAST = {"xla_backend_optimization_level": 0}
"""The time to compile is meant."""

fast = partial(jax.jit, compiler_options=FAST)


def member(name, **kwargs):
    return UNet(**{**SMALL, **FAMILY[name], **kwargs})


def inputs(name, shape=(2, 8, 8, 1), dtype=jnp.float32):
    """x, t and the conditions of a member of the family."""
    x = jax.random.normal(jax.random.key(1), shape, dtype)
    condition = {"label": jnp.arange(shape[0]) % 2} if "num_classes" in FAMILY[name] else {}
    if name == "sr3":
        return x, jnp.linspace(0.1, 0.9, shape[0], dtype=dtype), {"image": x[..., :1] ** 2}
    return x, jnp.arange(shape[0]) * 37, condition


def init(model, shape=(2, 8, 8, 1), dtype=jnp.float32):
    x, t, _ = inputs("ddpm", shape, dtype)
    return _init(model, jax.random.key(0), x, t)["params"], x, t


@partial(fast, static_argnums=0)
def _init(model, key, x, t, **condition):
    return model.init(key, x, t, **condition)


@partial(fast, static_argnums=0, static_argnames="train")
def apply(model, params, x, t, **kwargs):
    return model.apply({"params": params}, x, t, **kwargs)


def abstract(model, shape, **condition):
    """The parameters' shapes; nothing is computed."""
    x, t = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    return jax.eval_shape(partial(model.init, jax.random.key(0)), x, t, **condition)["params"]


def count(params):
    return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def names(params):
    return {".".join(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}


@fast
def perturbed(params):
    """Parameters of which none is zero, so that every path counts."""
    leaves, tree = jax.tree.flatten(params)
    noise = 0.1 * jax.random.normal(jax.random.key(9), (max(leaf.size for leaf in leaves),), leaves[0].dtype)
    return tree.unflatten([leaf + jnp.roll(noise, n)[: leaf.size].reshape(leaf.shape) for n, leaf in enumerate(leaves)])


LABEL = {"label": jax.ShapeDtypeStruct((1,), jnp.int32)}
IN64 = {**IMPROVED, "channel_mults": (1, 2, 3, 4), "attention_levels": (2, 3)}
SR3_64 = {**SR3, "base_channels": 64, "time_channels": (64, 256, 64)}


@pytest.mark.parametrize(("model", "size", "condition", "number"), [
    (UNet(), 32, {}, 35_746_307),
    (UNet(channel_mults=(1, 1, 2, 2, 4, 4)), 256, {}, 113_673_219),  # LSUN
    (UNet(channel_mults=(1, 2, 2, 2, 4)), 64, {}, 78_700_803),  # CelebA
    (UNet(**OPENAI), 32, {}, 35_746_307),
    (UNet(**OPENAI, channel_mults=(1, 1, 2, 2, 4, 4), out_channels=6), 256, {}, 113_676_678),
    (UNet(**IMPROVED, attention_levels=(1, 2)), 32, {}, 52_546_438),
    (UNet(**IN64), 64, {}, 121_063_942),
    (UNet(**IN64, base_channels=192, num_classes=1000), 64, LABEL, 273_049_350),
    (UNet(**ABARANKAB), 32, {}, 35_746_307),
    (UNet(**ABARANKAB, num_classes=10, class_embedding="block"), 32, LABEL, 35_796_227),
    (UNet(**SR3_64, channel_mults=(1, 2, 4, 8, 8), attention_levels=(3,)), 128, {"image": 3}, 97_807_491),
    (UNet(**SR3_64, channel_mults=(1, 2, 4, 8, 16), num_res_blocks=1, attention_levels=()), 512, {"image": 3},
     155_334_339),
])  # fmt: skip
def test_published_numbers_of_parameters(model, size, condition, number):
    if "image" in condition:
        condition = {"image": jax.ShapeDtypeStruct((1, size, size, condition["image"]), jnp.float32)}
    assert count(abstract(model, (1, size, size, 3), **condition)) == number


def test_ddpm_attends_at_16_and_in_the_middle():
    assert {name for name in abstract(UNet(), (1, 32, 32, 3)) if "attention" in name} == {
        "down_1_0_attention", "down_1_1_attention", "middle_attention",
        "up_1_0_attention", "up_1_1_attention", "up_1_2_attention",
    }  # fmt: skip


def test_names_of_the_parameters_stay():
    # Checkpoints hold them.
    linear, norm = ("bias", "kernel"), ("norm.bias", "norm.scale")
    layer = {"norm": norm, "norm1": norm, "norm2": norm}
    block = ["conv1", "conv2", "emb", "norm1", "norm2"]
    attention = ["k", "norm", "out", "q", "v"]
    modules = {
        "conv_in": [], "conv_out": [], "norm_out": [], "time_1": [], "time_2": [],
        "down_0_0": block, "down_0_downsample": ["conv"],
        "down_1_0": [*block, "shortcut"], "down_1_0_attention": attention,
        "middle_0": block, "middle_attention": attention, "middle_1": block,
        "up_1_0": [*block, "shortcut"], "up_1_0_attention": attention,
        "up_1_1": [*block, "shortcut"], "up_1_1_attention": attention, "up_1_upsample": ["conv"],
        "up_0_0": [*block, "shortcut"], "up_0_1": [*block, "shortcut"],
    }  # fmt: skip
    expected = set()
    for module, parts in modules.items():
        for part in parts:
            expected |= {f"{module}.{part}.{leaf}" for leaf in layer.get(part, linear)}
        if not parts:
            expected |= {f"{module}.{leaf}" for leaf in (norm if module == "norm_out" else linear)}
    assert names(abstract(UNet(**SMALL), (1, 8, 8, 1))) == expected


@pytest.mark.parametrize(
    ("name", "more", "less"),
    [
        ("improved", {"class.embedding"}, set()),
        ("guided", {f"{module}.{part}" for module in ("down_0_downsample", "up_1_upsample") for part in (
            "norm1.norm.bias", "norm1.norm.scale", "conv1.bias", "conv1.kernel", "emb.bias", "emb.kernel",
            "norm2.norm.bias", "norm2.norm.scale", "conv2.bias", "conv2.kernel",
        )}, {f"{module}.conv.{leaf}" for module in ("down_0_downsample", "up_1_upsample") for leaf in ("bias", "kernel")}),
        ("abarankab", {f"{module}.class_bias.embedding" for module in (
            "down_0_0", "down_1_0", "middle_0", "middle_1", "up_1_0", "up_1_1", "up_0_0", "up_0_1",
        )}, set()),
        ("sr3", set(), {f"{module}_attention.{head}.bias" for head in "qkv" for module in (
            "down_1_0", "middle", "up_1_0", "up_1_1",
        )}),
    ],
)  # fmt: skip
def test_what_the_family_adds_to_and_takes_from_the_names(name, more, less):
    x, _, condition = inputs(name)
    plain = names(abstract(UNet(**SMALL), x.shape))
    assert names(abstract(member(name), x.shape, **condition)) == (plain | more) - less


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


def test_output_depends_on_the_timestep_and_on_each_sample_alone():
    model = UNet(**SMALL)
    params, x, t = init(model)
    params = perturbed(params)
    eps = apply(model, params, x, t)
    other = apply(model, params, x, t.at[1].set(900))
    np.testing.assert_allclose(eps[0], other[0], rtol=1e-5, atol=1e-6)
    assert jnp.max(jnp.abs(eps[1] - other[1])) > 1e-3
    np.testing.assert_allclose(apply(model, params, x[1:], t[1:])[0], eps[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("improved", "abarankab")), "sr3"]
)
def test_output_depends_on_the_condition_of_each_sample_alone(name):
    model = member(name)
    x, t, condition = inputs(name)
    params = perturbed(_init(model, jax.random.key(0), x, t, **condition)["params"])
    eps = apply(model, params, x, t, **condition)
    assert eps.shape == (2, 8, 8, model.out_channels or 1)
    other = {key: value.at[1].set(1 - value[1] if key == "label" else 0) for key, value in condition.items()}
    other = apply(model, params, x, t, **other)
    np.testing.assert_allclose(eps[0], other[0], rtol=1e-5, atol=1e-6)
    assert jnp.max(jnp.abs(eps[1] - other[1])) > 1e-3
    if "label" in condition:
        for wrong in (-2, 2):
            assert jnp.isnan(apply(model, params, x, t, label=jnp.array([0, wrong]))[1]).all()
        # No class is the vector 0.
        tables = {"class", "class_bias"}
        zeros = jax.tree_util.tree_map_with_path(
            lambda path, leaf: 0 * leaf if tables & {key.key for key in path} else leaf, params
        )
        np.testing.assert_allclose(
            apply(model, params, x, t, label=jnp.array([0, NO_LABEL]))[1],
            apply(model, zeros, x, t, label=jnp.array([0, 1]))[1],
            rtol=1e-5,
            atol=1e-6,
        )


@pytest.mark.parametrize("change", [
    {"num_heads": 2}, {"num_head_channels": 4}, {"norm_eps": 1e-5}, {"time_embedding": "cos_sin"}, {"freq_shift": 0},
    {"downsample_padding": (1, 1)}, {"activate_embedding": False}, {"activation": "relu"}, {"activation": "gelu"},
    {"activation": "mish"}, {"middle_attention_groups": 2}, {"middle_scale": 2.0}, {"center_input": True},
])  # fmt: skip
def test_every_option_that_leaves_the_parameters_changes_the_output(change):
    params, x, t = init(UNet(**SMALL))
    params = perturbed(params)
    a, b = (apply(UNet(**SMALL, **options), params, x, t) for options in ({}, change))
    assert jnp.linalg.norm(a - b) / jnp.linalg.norm(a) > 1e-6


@pytest.mark.parametrize(
    "name", [name if name in ("ddpm", "sr3") else pytest.param(name, marks=pytest.mark.slow) for name in FAMILY]
)
def test_every_parameter_has_a_gradient(name):
    model = member(name)
    x, t, condition = inputs(name)
    params = perturbed(_init(model, jax.random.key(0), x, t, **condition)["params"])
    gradient = fast(jax.grad(lambda p: jnp.sum(model.apply({"params": p}, x, t, **condition) ** 2)))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        label = jax.tree_util.keystr(path)
        # The softmax does not see a constant added to every key.
        assert np.any(np.abs(leaf) > 1e-6) or "['k']['bias']" in label, label


@pytest.mark.slow
def test_remat_changes_no_number():
    model = member("improved", channel_mults=(1,), attention_levels=(0,), dropout=0.5)
    x, t, condition = inputs("improved")
    params = perturbed(_init(model, jax.random.key(0), x, t, **condition)["params"])

    def gradient(model):
        rngs = {"dropout": jax.random.key(3)}
        return jax.grad(lambda p: jnp.sum(model.apply({"params": p}, x, t, **condition, train=True, rngs=rngs) ** 2))

    plain, remat = gradient(model), gradient(model.clone(remat=True))
    assert "remat" in str(jax.make_jaxpr(remat)(params))
    expected, got = fast(plain)(params), fast(remat)(params)
    scale = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * scale), got, expected)


def test_dropout_needs_training_and_a_key():
    model = UNet(**SMALL, dropout=0.5)
    params, x, t = init(model)
    params = perturbed(params)
    calm = [apply(model, params, x, t) for _ in range(2)]
    np.testing.assert_array_equal(*calm)
    noisy = [apply(model, params, x, t, train=True, rngs={"dropout": jax.random.key(n)}) for n in range(2)]
    assert jnp.max(jnp.abs(noisy[0] - noisy[1])) > 1e-3


def test_attention_by_level_is_the_same_network_at_any_size():
    by_level = UNet(**{**SMALL, "attention_levels": (1,), "attention_resolutions": ()})
    by_height = UNet(**SMALL)
    small, wide = (2, 8, 8, 1), (1, 16, 24, 1)
    assert names(abstract(by_level, small)) == names(abstract(by_level, wide)) == names(abstract(by_height, small))
    params, x, t = init(by_level)
    params = perturbed(params)
    np.testing.assert_array_equal(apply(by_level, params, x, t), apply(by_height, params, x, t))
    assert apply(by_level, params, jnp.zeros(wide), jnp.zeros(1)).shape == wide


def test_the_middle_may_go_without_attention():
    assert not any("attention" in name for name in abstract(
        UNet(**{**SMALL, "attention_levels": (), "middle_attention": False}), (1, 8, 8, 1)
    ))  # fmt: skip


@pytest.mark.parametrize("name", ["ddpm", "improved"])
def test_bfloat16_keeps_parameters_and_output_in_float32(name):
    model = member(name, dtype=jnp.bfloat16)
    x, t, condition = inputs(name)
    params = perturbed(_init(model, jax.random.key(0), x, t, **condition)["params"])
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    eps = apply(model, params, x, t, **condition)
    assert eps.dtype == jnp.float32
    exact = apply(member(name), params, x, t, **condition)
    error = jnp.linalg.norm(eps - exact) / jnp.linalg.norm(exact)
    assert 1e-5 < error < 0.05


@pytest.mark.usefixtures("x64")
@family
def test_float64_all_the_way(name):
    model = member(name, dtype=jnp.float64)
    x, t, condition = inputs(name, dtype=jnp.float64)
    params = jax.eval_shape(partial(model.init, jax.random.key(0)), x, t, **condition)["params"]
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float64), params)
    jaxpr = jax.make_jaxpr(lambda p, x: model.apply({"params": p}, x, t, **condition))(params, x)
    assert jaxpr.out_avals[0].dtype == jnp.float64
    assert "f64" in str(jaxpr)
    assert "f32" not in str(jaxpr)


@pytest.mark.usefixtures("x64")
def test_float64_and_float32_agree():
    params, x, t = init(UNet(**SMALL, dtype=jnp.float64), dtype=jnp.float64)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), perturbed(params))
    wide = apply(UNet(**SMALL, dtype=jnp.float64), params, x, t)
    narrow = apply(UNet(**SMALL), jax.tree.map(lambda p: p.astype(jnp.float32), params), x.astype(jnp.float32), t)
    error = float(jnp.linalg.norm(wide - narrow) / jnp.linalg.norm(wide))
    assert 1e-9 < error < 1e-5


def test_predictor_is_a_pytree_of_its_parameters():
    model = UNet(**SMALL)
    params, x, t = init(model)
    predict = predictor(model, params)
    assert len(jax.tree.leaves(predict)) == len(jax.tree.leaves(params))
    np.testing.assert_allclose(jax.jit(predict)(x, t), apply(model, params, x, t), rtol=1e-5, atol=1e-8)
    assert jax.tree.structure(predict) == jax.tree.structure(predictor(UNet(**SMALL), params))


def test_predictor_holds_a_condition():
    model = member("improved")
    x, t, condition = inputs("improved")
    params = perturbed(_init(model, jax.random.key(0), x, t, **condition)["params"])
    eps = jax.jit(predictor(model, params, **condition))(x, t)
    np.testing.assert_allclose(eps, apply(model, params, x, t, **condition), rtol=1e-5, atol=1e-6)


BOUND = 65536
NAN = float("nan")


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("base_channels", [0, -8, 8.0, "8", None, True, (), 10**12, BOUND + 1]),
        ("channel_mults", [(), 1, (0,), (1, -1), (1.1,), ("1",), (NAN,), None, (1, 10**12), (1,) * 17, (1024, 8000)]),
        ("num_res_blocks", [0, -1, 101, 10**12, 1.0, None, NAN]),
        ("attention_resolutions", [(5,), (4, 3), (0,), (-4,), 4, None, ("4",), (4.0,), (10**12,)]),
        ("dropout", [1.0, 1.5, -1.0, NAN, float("inf"), None, "0.1", (0.1,)]),
        ("num_groups", [0, -1, 3, 16, 10**12, 4.0, None]),
        ("out_channels", [0, -1, 10**12, 1.5, "3"]),
        ("dtype", ["int32", "nope", "", jnp.int32, None, 32]),
        ("attention_levels", [(2,), (-1,), 1, ("1",), (0, 10**12)]),
        ("middle_attention", [1, None, "yes"]),
        ("num_heads", [0, -1, 3, 10**12, 1.0, None]),
        ("num_head_channels", [0, -1, 17, 10**12, 1.0]),
        ("qkv_bias", [0, None]),
        ("norm_eps", [0.0, -1e-6, 1.0, NAN, 1e-300, float("inf"), None, "1e-6"]),
        ("time_embedding", ["sin", "", None, 1]),
        ("freq_shift", [2, -1, 4, 0.5, None, NAN]),
        ("time_channels", [(8, 32), (8, 32, 32, 32), (7, 32, 32), (2, 32, 32), (0, 32, 32), (8, -1, 8), 8,
                           (8, 10**12, 8)]),
        ("num_classes", [0, -1, 10**12, 2.0, "2"]),
        ("class_embedding", ["all", None]),
        ("activation", ["silu", "tanh", None, jnp.tanh]),
        ("middle_blocks", [1, None]),
        ("middle_attention_groups", [-1, 3, 32, 1.0]),
        ("middle_scale", [0.0, -1.0, NAN, "1", None]),
        ("center_input", [1, None]),
        ("resblock_down_levels", [(1,), (-1,), 0, ("0",)]),
        ("resblock_up_levels", [(0,), (2,), 1]),
        ("downsample_padding", [(1, 0), (0, 0), (2, 2), 1, (0, 1, 1), None]),
        ("remat", [1, "yes"]),
    ],
)  # fmt: skip
def test_invalid_fields_are_named_on_one_line(field, wrong):
    for value in wrong:
        with pytest.raises(ValueError, match=rf"^{field}=.* must ") as caught:
            abstract(UNet(**{**SMALL, field: value}), (1, 8, 8, 1))
        message = str(caught.value).split("\n--------------------")[0]  # JAX adds a note about its traceback
        assert "\n" not in message
        assert "config" not in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"attention_resolutions": (5,)},
            r"^attention_resolutions=\(5,\) must be heights of levels, which are 8, 4 for",
        ),
        ({"num_groups": 3}, "^num_groups=3 must divide base_channels=8"),
        (
            {"base_channels": 7, "num_groups": 7},
            "^base_channels=7 must begin the time embedding with an even width > 2",
        ),
        ({"num_heads": 3}, "^num_heads=3 must divide 16 channels"),
        ({"attention_levels": (2,)}, r"^attention_levels=\(2,\) must be levels within 0 … 1"),
        ({"time_channels": (7, 32, 32)}, r"^time_channels=\(7, 32, 32\) must begin .* an even width > 2"),
        ({"dropout": NAN}, "^dropout=nan must be a number ≥ 0 and < 1"),
        ({"class_embedding": "all"}, "^class_embedding='all' must be one of 'time', 'block'"),
        (
            {"channel_mults": (1, 1.3)},
            r"^channel_mults=\(1, 1.3\) must give whole numbers of channels, but base_channels=8 times 1.3 is 10.4",
        ),
        ({"channel_mults": (1, 1.25)}, r"^num_groups=4 must divide the channels of each level, \(8, 10\)"),
        ({"num_head_channels": 17}, "^num_head_channels=17 must be at most 16 channels"),
        ({"middle_attention_groups": 3}, "^middle_attention_groups=3 must divide 16 channels"),
        ({"middle_scale": 0}, "^middle_scale=0 must be a number > 0"),
        ({"resblock_down_levels": (1,)}, r"^resblock_down_levels=\(1,\) must be levels within 0 … 0"),
        ({"channel_mults": (1,), "attention_resolutions": (), "resblock_up_levels": (0,)}, "must be .. with one level"),
        ({"class_embedding": "identity", "num_classes": 3}, "^num_classes=3 must be None where class_embedding is"),
        ({"class_embedding": "identity"}, r"^class_embedding='identity' needs label=, float\[1, 32\]: a"),
        ({"num_classes": 3}, r"^label=None must be int\[1\]: the network has 3 classes"),
    ],
)
def test_messages_say_what_is_allowed(options, words):
    with pytest.raises(ValueError, match=words):
        abstract(UNet(**{**SMALL, **options}), (1, 8, 8, 1))


def test_attended_heights_are_checked_at_initialisation_alone():
    model = UNet(**SMALL)
    with pytest.raises(
        ValueError, match=r"attention_resolutions=\(4,\) must be heights of levels, which are 12, 6 for"
    ):
        abstract(model, (1, 12, 12, 1))
    params = abstract(UNet(**{**SMALL, "attention_resolutions": ()}), (1, 8, 8, 1))
    x = jnp.zeros((1, 12, 12, 1))
    assert jax.eval_shape(lambda p: model.apply({"params": p}, x, jnp.zeros(1)), params).shape == x.shape


@pytest.mark.parametrize(
    ("name", "condition", "words"),
    [
        ("ddpm", {"label": jnp.array([0, 0])}, r"label=int32\[2\] must be None: the network has no classes"),
        ("improved", {}, r"label=None must be int\[2\]: the network has 2 classes"),
        ("improved", {"label": jnp.array([0, 2])}, "label=2 must be within 0 … 1, or -1 for no class"),
        ("improved", {"label": jnp.array([-2, 0])}, "label=-2 must be within 0 … 1"),
        ("improved", {"label": jnp.array([0])}, r"label=int32\[1\] must be int\[2\]"),
        ("improved", {"label": jnp.array([0.0, 1.0])}, r"label=float32\[2\] must be int\[2\]"),
        (
            "sr3",
            {"image": jnp.zeros((2, 4, 4, 1))},
            r"image.shape=\(2, 4, 4, 1\) must agree with x.shape=\(2, 8, 8, 1\)",
        ),
        ("sr3", {"image": jnp.zeros((2, 8, 8, 3))}, r"channels=4 \(1 of x, 3 of image\) must be 2"),
        ("sr3", {}, r"channels=1 \(1 of x, 0 of image\) must be 2"),
        ("ddpm", {"image": jnp.zeros((2, 8, 8, 1))}, r"channels=2 \(1 of x, 1 of image\) must be 1"),
        ("ddpm", {"t": jnp.zeros(())}, r"t.shape=\(\) must be \(2,\)"),
        ("ddpm", {"x": jnp.zeros((2, 8, 1))}, r"x.shape=\(2, 8, 1\) must be \(batch, height, width, channels\)"),
        ("ddpm", {"x": jnp.zeros((2, 8, 8, 8, 1))}, r"x.shape=\(2, 8, 8, 8, 1\) must be \(batch, height, width"),
    ],
)
def test_bad_condition(name, condition, words):
    model = member(name)
    x, t, right = inputs(name)
    params = jax.eval_shape(partial(model.init, jax.random.key(0)), x, t, **right)["params"]
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(lambda p: model.apply({"params": p}, **{"x": x, "t": t, **condition}), params)
