import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from diffjax import models
from diffjax.models import convolution, layers

USUAL = ("NHWC", "HWIO", "NHWC")
IN_ORDER = "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"


def call(function, x, kernel, strides=(1, 1), padding=((1, 1), (1, 1)), dilations=((1, 1), (1, 1))):
    """Convolves as `nn.Conv` does."""
    numbers = lax.conv_dimension_numbers(x.shape, kernel.shape, USUAL)
    image, window = dilations
    options = {"lhs_dilation": image, "rhs_dilation": window, "dimension_numbers": numbers}
    return function(x, kernel, strides, padding, **options)


def arrays(size=(7, 5), channels=(3, 4), seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(2, *size, channels[0]))), jnp.asarray(rng.normal(size=(3, 3, *channels)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dilations", [((1, 1), (1, 1)), ((2, 1), (1, 2))])
@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((0, 1), (0, 1)), ((0, 0), (2, 1))])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1)])
def test_all_derivatives_are_those_of_jax(strides, padding, dilations):
    x, kernel = arrays()

    @partial(jax.jit, static_argnums=0)
    def derivatives(function, x, kernel):
        def conv(x, kernel):
            return call(function, x, kernel, strides, padding, dilations)

        def loss(x, kernel):
            return jnp.sum(jnp.sin(conv(x, kernel)))

        first = jax.grad(loss, (0, 1))
        second = jax.grad(lambda *args: sum(jnp.sum(jnp.cos(part)) for part in first(*args)), (0, 1))
        return (
            conv(x, kernel),
            first(x, kernel),
            second(x, kernel),
            jax.jvp(conv, (x, kernel), (x + 1, kernel - 1)),
            jax.vmap(lambda factor: first(factor * x, kernel))(jnp.arange(3.0)),
            jax.vmap(first)(jnp.stack([x, 2 * x]), jnp.stack([kernel, -kernel])),
        )

    expected = derivatives(lax.conv_general_dilated, x, kernel)
    for ours, theirs in zip(
        jax.tree.leaves(derivatives(convolution.conv_general_dilated, x, kernel)),
        jax.tree.leaves(expected),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)


def gradient(function):
    """The program of the derivatives by image and kernel."""
    return jax.jit(jax.grad(lambda x, kernel: jnp.sum(call(function, x, kernel, (2, 2)) ** 2), (0, 1)))


def orders(text):
    """The orders of the axes of the convolutions in a program's text."""
    return set(re.findall(r"dim_numbers = (\S+, .*?->.*?\])", text))


def test_other_devices_get_the_program_of_jax():
    texts = [
        gradient(function).trace(*arrays()).lower(lowering_platforms=("tpu",)).as_text()
        for function in (convolution.conv_general_dilated, lax.conv_general_dilated)
    ]
    ours, theirs = (sorted(re.findall(r"stablehlo\.\w+", text)) for text in texts)
    assert ours == theirs
    ours, theirs = map(orders, texts)
    assert ours == theirs
    assert len(ours) == 3


def test_a_network_and_its_gradients_have_the_usual_order_of_axes_on_a_cpu():
    network = models.UNet(
        base_channels=8, channel_mults=(1, 1), num_res_blocks=1, num_groups=4, attention_resolutions=()
    )
    x, t = jnp.zeros((2, 8, 8, 1)), jnp.zeros(2, jnp.int32)
    params = models.init_params(network, (8, 8, 1), jax.random.key(0))
    loss = jax.jit(jax.value_and_grad(lambda params, x: jnp.sum(network.apply({"params": params}, x, t)), (0, 1)))
    text = loss.trace(params, x).lower().as_text()
    assert orders(text) == {IN_ORDER}
    assert text.count("stablehlo.convolution") > 10


def test_what_is_no_plain_convolution_of_images_is_left_to_jax():
    x, kernel = arrays()
    jaxpr = str(jax.make_jaxpr(partial(call, convolution.conv_general_dilated))(x, kernel))
    assert "conv_general_dilated" not in jaxpr
    for options in ({"padding": "SAME"}, {"precision": "highest"}):
        numbers = lax.conv_dimension_numbers(x.shape, kernel.shape, USUAL)
        options = {"padding": ((1, 1), (1, 1)), "lhs_dilation": (1, 1), "rhs_dilation": (1, 1)} | options
        conv = partial(convolution.conv_general_dilated, window_strides=(1, 1), dimension_numbers=numbers, **options)
        assert "conv_general_dilated" in str(jax.make_jaxpr(conv)(x, kernel))
    signal, kernel = jnp.ones((2, 8, 3)), jnp.ones((3, 3, 4))
    module = layers.nn.Conv(4, (3,), conv_general_dilated=convolution.conv_general_dilated)
    assert module.apply({"params": {"kernel": kernel, "bias": jnp.zeros(4)}}, signal).shape == (2, 8, 4)


@pytest.mark.parametrize(
    ("kernel", "error"), [(jnp.ones((3, 3, 5, 4)), ValueError), (jnp.ones((3, 3, 3, 4), jnp.int8), TypeError)]
)
def test_what_does_not_match_is_refused_as_by_jax(kernel, error):
    for function in (convolution.conv_general_dilated, lax.conv_general_dilated):
        with pytest.raises(error):
            jax.eval_shape(partial(call, function), jnp.ones((2, 8, 8, 3)), kernel)


@pytest.mark.usefixtures("x64")
def test_gradients_are_summed_over_devices_inside_shard_map():
    x, kernel = arrays()
    x = jnp.tile(x, (4, 1, 1, 1))

    def loss(x, kernel):
        return jnp.sum(jnp.sin(call(convolution.conv_general_dilated, x, kernel)))

    split = jax.shard_map(
        jax.grad(loss, 1),
        mesh=jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)),
        in_specs=(PartitionSpec("data"), PartitionSpec()),
        out_specs=PartitionSpec(),
    )
    np.testing.assert_allclose(jax.jit(split)(x, kernel), jax.grad(loss, 1)(x, kernel), rtol=1e-11, atol=1e-11)
