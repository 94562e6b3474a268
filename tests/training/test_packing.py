import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax.training import packing


@pytest.fixture(autouse=True)
def small_limit(monkeypatch):
    monkeypatch.setattr(packing, "LARGE", 6)


def tree(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"a": (2, 3), "b": {"c": (7,), "d": ()}, "e": (4, 4), "f": (0,)}
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32), shapes, is_leaf=lambda s: isinstance(s, tuple)
    )


def test_small_arrays_are_one_and_large_ones_are_left():
    packed, unpack = packing.pack(tree())
    assert packed.small.shape == (2 * 3 + 1,)
    assert [array.shape for array in packed.large] == [(7,), (4, 4)]
    jax.tree.map(np.testing.assert_array_equal, unpack(packed), tree())


@pytest.mark.parametrize("limit", [-1, 0, 6, 100])
def test_packed_trees_are_a_tree_whatever_the_limit(monkeypatch, limit):
    monkeypatch.setattr(packing, "LARGE", limit)
    packed, unpack = packing.pack(tree())
    doubled = unpack(jax.tree.map(lambda array: 2 * array, packed))
    jax.tree.map(np.testing.assert_array_equal, doubled, jax.tree.map(lambda array: 2 * array, tree()))


def test_each_array_keeps_its_type():
    mixed = {"weight": jnp.ones(3, jnp.bfloat16), "count": jnp.full(2, 7, jnp.int32), "big": jnp.ones(9)}
    packed, unpack = packing.pack(mixed)
    assert jax.tree.map(lambda a: a.dtype, unpack(packed)) == jax.tree.map(lambda a: a.dtype, mixed)


def test_a_packed_optimizer_updates_as_it_does_unpacked():
    plain = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.1, weight_decay=0.2))
    results = []
    for optimizer in (plain, packing.packed(plain)):
        params, state = tree(), optimizer.init(tree())
        for n in range(4):
            updates, state = optimizer.update(tree(n + 1), state, params)
            params = optax.apply_updates(params, updates)
        results.append(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *results)
    assert not np.allclose(results[0]["a"], tree()["a"])
