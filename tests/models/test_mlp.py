import jax
import jax.numpy as jnp

from diffjax.models import MLP, count_params, init_params


def test_any_size_of_vectors():
    for network, out in ((MLP(width=8, depth=2), 3), (MLP(width=8, out_channels=5), 5)):
        params = init_params(network, (3,), jax.random.key(0))
        assert network.apply({"params": params}, jnp.ones((4, 3)), jnp.arange(4)).shape == (4, out)


def test_parameters():
    width, depth, size = 8, 2, 3

    def dense(a, b):
        return a * b + b

    expected = dense(width, width) + dense(size, width) + 3 * depth * dense(width, width) + dense(width, size)
    assert count_params(init_params(MLP(width=width, depth=depth), (size,), jax.random.key(0))) == expected


def test_the_output_depends_on_t():
    params = init_params(MLP(width=8), (2,), jax.random.key(0))
    early, late = MLP(width=8).apply({"params": params}, jnp.ones((2, 2)), jnp.array([0, 500]))
    assert jnp.abs(early - late).max() > 1e-3
