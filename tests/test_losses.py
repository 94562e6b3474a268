import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import losses, schedules

SCHEDULE = schedules.linear(10)


def test_zero_for_the_oracle_and_known_for_a_constant_error():
    x0, noise = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 1))
    t = np.array([0, 4, 9])
    for norm, expected in (("l2", 0.25), ("l1", 0.5)):
        assert jnp.all(losses.noise_prediction(SCHEDULE, lambda x, t: noise, x0, t, noise, norm=norm) == 0)
        off = losses.noise_prediction(SCHEDULE, lambda x, t: noise - 0.5, x0, t, noise, norm=norm)
        assert off.shape == (3,)
        np.testing.assert_allclose(off, expected, rtol=1e-6)


def test_network_sees_x_t_and_t():
    x0, noise = jnp.full((2, 1), 2.0), jnp.full((2, 1), 3.0)
    t = np.array([1, 8])
    seen = []
    losses.noise_prediction(SCHEDULE, lambda x, t: seen.append((x, t)) or x, x0, t, noise)
    ab = SCHEDULE.alpha_bars[t][:, None]
    np.testing.assert_allclose(seen[0][0], np.sqrt(ab) * 2 + np.sqrt(1 - ab) * 3, rtol=1e-6)
    np.testing.assert_array_equal(seen[0][1], t)


def test_unknown_norm():
    with pytest.raises(ValueError, match="norm='l3' is not one of 'l2', 'l1'"):
        losses.noise_prediction(
            SCHEDULE, lambda x, t: x, jnp.zeros((1, 1)), np.zeros(1, int), jnp.zeros((1, 1)), norm="l3"
        )
