"""The registry of networks and the functions that work with any network."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from diffjax import fields
from diffjax.models import NETWORKS, DiT, UNet, count_params, init_params, num_classes, predictor

SMALL_UNET = UNet(
    base_channels=8, channel_mults=(1, 2), num_res_blocks=1, attention_resolutions=(4,), num_groups=4, dropout=0.0
)
SMALL_DIT = DiT(hidden_size=8, depth=1, num_heads=2)
small = pytest.mark.parametrize("network", [SMALL_UNET, SMALL_DIT], ids=["unet", "dit"])
SHAPE = (8, 8, 1)


class Linear(nn.Module):
    """The least that a network needs: neither `num_classes` nor `dtype`."""

    out_channels: int | None = None

    @nn.compact
    def __call__(self, x, t, label=None, image=None, *, train: bool = False):
        assert label is None
        x = x if image is None else jnp.concatenate([x, image], axis=-1)
        return nn.Dense(self.out_channels or x.shape[-1])(x)


def test_networks_are_registered():
    assert set(NETWORKS) == {"unet", "dit"}
    assert NETWORKS["unet"] is UNet
    assert NETWORKS["dit"] is DiT


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_every_field_is_an_option_with_a_sentence(name):
    network = NETWORKS[name]
    options = fields.options(network)
    assert options.keys() == network.__dataclass_fields__.keys() - {"parent", "name"}
    for option, field in options.items():
        assert field.doc.endswith("."), option
        assert field.check(field.default) == field.default


@small
def test_repr_is_short_and_linen_still_works(network):
    assert "\n" not in repr(network)
    assert len(repr(network)) < 200
    assert repr(type(network)()) == str(type(network)()) == f"{type(network).__name__}()"
    assert repr(network.clone(dtype=jnp.bfloat16)).endswith("dtype=bfloat16)")
    assert network == network.clone()
    assert hash(network) == hash(network.clone())
    assert network != network.clone(dropout=0.5)
    params = jax.eval_shape(lambda: init_params(network, SHAPE, jax.random.key(0)))
    assert repr(network.bind({"params": params})) == repr(network)
    x, t = jnp.zeros((2, *SHAPE)), jnp.zeros(2)
    assert jax.eval_shape(lambda params: predictor(network, params)(x, t), params).shape == x.shape


def test_repr_shows_the_fields_that_differ():
    assert repr(SMALL_DIT) == "DiT(hidden_size=8, depth=1, num_heads=2)"
    assert repr(UNet(channel_mults=(1, 2), num_classes=10)) == "UNet(channel_mults=(1, 2), num_classes=10)"
    assert repr(UNet(dtype="nope")) == "UNet(dtype='nope')"
    assert repr(UNet(dropout=float("nan"))) == "UNet(dropout=nan)"


def test_a_module_without_classes_is_unconditional():
    assert num_classes(Linear()) is None
    assert num_classes(UNet()) is None
    assert num_classes(DiT(num_classes=3)) == 3
    params = init_params(Linear(), SHAPE, jax.random.key(0))
    assert count_params(params) == 2
    assert count_params(init_params(Linear(), SHAPE, jax.random.key(0), image_channels=3)) == 20


def test_init_params_passes_what_the_network_needs():
    network = SMALL_DIT.clone(num_classes=3)
    key = jax.random.key(3)
    x, t = jnp.zeros((1, *SHAPE)), jnp.zeros(1, jnp.int32)

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def both():
        expected = network.init(key, x, t, label=t, image=jnp.zeros((1, 8, 8, 2)))["params"]
        return init_params(network, SHAPE, key, image_channels=2), expected

    found, expected = both()
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    plain = jax.eval_shape(lambda: init_params(network, SHAPE, key))
    assert count_params(plain) < count_params(found)


def dtypes(params: Any) -> set[str]:
    return {leaf.dtype.name for leaf in jax.tree.leaves(params)}


@small
@pytest.mark.parametrize(
    ("dtype", "expected"), [("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")]
)
def test_parameters_are_in_float32_or_wider(network, dtype, expected, x64):
    network = network.clone(dtype=jnp.dtype(dtype))
    for channels in (0, 1):
        params = jax.eval_shape(lambda c=channels: init_params(network, SHAPE, jax.random.key(0), image_channels=c))
        assert dtypes(params) == {expected}
