"""The UNet's options that diffusers' `UNet2DModel` brought: widths, the middle, heads, resampling, class embeddings."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.models import NO_LABEL, UNet

SMALL = {
    "base_channels": 8,
    "channel_mults": (1, 2),
    "num_res_blocks": 1,
    "attention_resolutions": (4,),
    "num_groups": 4,
}
TINY = {**SMALL, "channel_mults": (1,), "attention_levels": ()}


def abstract(model, shape, **condition):
    """The parameters' shapes; nothing is computed."""
    x, t = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    return jax.eval_shape(partial(model.init, jax.random.key(0)), x, t, **condition)["params"]


def random_params(model, shape, **condition):
    """Parameters of which none is zero."""
    rng = np.random.default_rng(0)
    shapes = abstract(model, shape, **condition)
    return jax.tree.map(lambda leaf: (0.3 * rng.normal(size=leaf.shape)).astype(np.float32), shapes)


@partial(jax.jit, static_argnums=0)
def apply(model, params, x, t, **condition):
    return model.apply({"params": params}, x, t, **condition)


def test_the_middle_may_be_left_out():
    plain, without = (set(abstract(UNet(**SMALL, middle_blocks=on), (1, 8, 8, 1))) for on in (True, False))
    assert plain - without == {name for name in plain if name.startswith("middle")}


def test_widths_between_the_multiples():
    model = UNet(base_channels=24, channel_mults=(1, 4 / 3, 0.5, 2.0), attention_resolutions=(), num_groups=4)
    assert model.widths == (24, 32, 12, 48)
    params = abstract(model, (1, 8, 8, 3))
    assert [params[f"down_{level}_0"]["conv1"]["kernel"].shape[-1] for level in range(4)] == [24, 32, 12, 48]
    # 49 · (1 / 49) is not 1 in float64.
    thin = UNet(base_channels=98, channel_mults=tuple(width / 98 for width in range(1, 99, 7)), num_groups=1)
    assert thin.widths == tuple(range(1, 99, 7))


def test_heads_that_leave_channels_over():
    params = abstract(UNet(**SMALL, num_head_channels=5), (1, 8, 8, 1))["middle_attention"]
    assert [params[name]["kernel"].shape for name in ("q", "k", "v", "out")] == [(16, 15)] * 3 + [(15, 16)]


def test_residual_blocks_resample_at_the_given_levels():
    def by_block(**options):
        params = abstract(UNet(**{**SMALL, "channel_mults": (1, 1, 1), **options}), (1, 16, 16, 1))
        return {name for name in params if "sample" in name and "conv1" in params[name]}

    down, up = ({f"{side}_{level}_{side}sample" for level in levels} for side, levels in
                (("down", (0, 1)), ("up", (1, 2))))  # fmt: skip
    assert by_block() == set()
    assert by_block(resblock_updown=True) == down | up
    assert by_block(resblock_updown=True, resblock_down_levels=()) == up
    assert by_block(resblock_up_levels=(1, 2)) == up
    assert by_block(resblock_down_levels=(1,), resblock_up_levels=(2,)) == {"down_1_downsample", "up_2_upsample"}


def test_classes_embedded_as_timesteps():
    unconditional = UNet(**TINY)
    model = unconditional.clone(num_classes=3, class_embedding="timestep")
    x, t = jnp.ones((4, 8, 8, 1)), jnp.full(4, 2)
    label = jnp.array([2, 0, NO_LABEL, 3])
    params = random_params(model, x.shape, label=jax.ShapeDtypeStruct((4,), jnp.int32))
    assert params["class_1"]["kernel"].shape == params["time_1"]["kernel"].shape == (8, 32)
    found = apply(model, params, x, t, label=label)
    assert jnp.isnan(found[3]).all()
    # Class 2 adds what timestep 2 adds if the layers are the same, and no class adds nothing.
    shared = {**params, "class_1": params["time_1"], "class_2": jax.tree.map(lambda leaf: -leaf, params["time_2"])}
    silent = jax.tree.map(jnp.zeros_like, params["time_2"])
    plain = {name: leaf for name, leaf in params.items() if not name.startswith("class")}
    np.testing.assert_allclose(
        apply(model, shared, x, t, label=label)[0],
        apply(unconditional, {**plain, "time_2": silent}, x, t)[0],
        rtol=1e-4,
        atol=1e-5,
    )
    np.testing.assert_allclose(found[2], apply(unconditional, plain, x, t)[2], rtol=1e-5, atol=1e-6)


def test_vectors_are_added_to_the_time_embedding():
    plain, model = UNet(**TINY), UNet(**TINY, class_embedding="identity")
    x, t = jnp.ones((2, 8, 8, 1)), jnp.array([3, 40])
    params = random_params(plain, x.shape)
    vectors = jnp.stack([jnp.zeros(32), jnp.linspace(-1, 1, 32)])
    shifted = {**params, "time_2": {**params["time_2"], "bias": params["time_2"]["bias"] + vectors[1]}}
    found = apply(model, params, x, t, label=vectors)
    np.testing.assert_allclose(found[0], apply(plain, params, x, t)[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], apply(plain, shifted, x, t)[1], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"label=int32\[2\] must be float\[2, 32\], a vector for each image"):
        apply(model, params, x, t, label=jnp.array([0, 1]))
