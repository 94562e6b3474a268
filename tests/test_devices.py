import jax
import jax.numpy as jnp
import pytest

from diffjax import devices


@pytest.mark.parametrize(("size", "whole"), [(1, 8), (8, 8), (9, 16)])
def test_whole_batches_are_those_that_split(size, whole):
    assert jax.local_device_count() == 8
    assert devices.round_up(size) == whole
    x = devices.split(jnp.arange(3.0 * whole).reshape(whole, 3), whole)
    assert {shard.data.shape for shard in x.addressable_shards} == {(whole // 8, 3)}
    tree = devices.replicate({"w": jnp.ones(3)}, whole)
    assert len(tree["w"].sharding.device_set) == 8
    assert tree["w"].sharding.is_fully_replicated


def test_other_batches_stay_where_they_are():
    x = jnp.ones((3, 2))
    assert devices.split(x, 3) is x
    assert devices.replicate(x, 3) is x
