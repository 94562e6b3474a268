"""Tables recorded step by step equal tables of formulas, and earlier x and z are rewritten exactly."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import samplers, sampling, schedules, timesteps
from diffjax.noise import sample_noise
from diffjax.samplers.recorder import Recorder, level_at, level_of_sigma

pytestmark = pytest.mark.usefixtures("x64")

SCHEDULE = schedules.linear(100)


def levels(grid):
    return [level_at(SCHEDULE, t) for t in grid]


@pytest.mark.parametrize("dtype", [np.int32, np.float64])
def test_a_recorded_ddim_is_ddim(dtype):
    grid = timesteps.trailing(100, 7).astype(dtype)
    recorder, x = Recorder(), Recorder.start
    points = levels(grid)
    for here, there in itertools.pairwise(points):
        call = recorder.call(x, here)
        x = there.signal * call.x0 + there.noise * call.eps
    recorded = recorder.finish(x, points[-1], dtype=dtype)
    expected = samplers.ddim(SCHEDULE, grid)
    assert jax.tree.structure(recorded) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(recorded), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-15)


def test_a_recorded_heun_gives_the_same_samples():
    grid = timesteps.trailing(100, 5)
    recorder, x = Recorder(), Recorder.start
    points = levels(grid)
    for here, there in itertools.pairwise(points):
        first = recorder.call(x, here)
        x = there.signal * first.x0 + there.noise * first.eps
        if there.t >= 0:
            h = there.signal * (there.sigma_bar - here.sigma_bar)
            second = recorder.call(x, there, on_grid=False)
            x = there.signal / here.signal * first.x + h / 2 * (first.eps + second.eps)
    table = recorder.finish(x, points[-1], dtype=np.int32)
    assert table.grid.tolist() == grid.tolist()
    assert table.num_rows == 9
    x = jax.random.normal(jax.random.key(0), (2, 3), jnp.float64)
    expected = sampling.sample(samplers.heun(SCHEDULE, grid), _predict, x, clip=1.0)
    np.testing.assert_allclose(sampling.sample(table, _predict, x, clip=1.0), expected, rtol=1e-11)


def test_a_noise_shared_by_two_rows():
    points = levels([60, 30, -1])
    recorder = Recorder()
    first = recorder.call(recorder.start, points[0])
    x = 0.7 * first.x + 0.1 * first.x0 + 0.5 * first.z
    second = recorder.call(x, points[1])
    x = 0.3 * second.x + 0.2 * first.x + 0.9 * second.x0 - 0.4 * first.z + 0.25 * second.z
    table = recorder.finish(x, points[-1])
    keys = jax.random.split(jax.random.key(1), 2)
    x = jax.random.normal(jax.random.key(0), (2, 3), jnp.float64)
    result = sampling.sample(table, _predict, x, keys)
    z = [sample_noise(keys, row, (3,), jnp.float64) for row in (0, 1)]

    def x0_of(x, level):
        return (x - level.noise * _predict(x, jnp.full(2, level.t))) / level.signal

    middle = 0.7 * x + 0.1 * x0_of(x, points[0]) + 0.5 * z[0]
    expected = 0.3 * middle + 0.2 * x + 0.9 * x0_of(middle, points[1]) - 0.4 * z[0] + 0.25 * z[1]
    np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_a_table_keeps_its_shape_where_no_noise_is_added():
    def table(scale):
        points = levels([60, 30, -1])
        recorder = Recorder()
        first = recorder.call(recorder.start, points[0])
        second = recorder.call(first.x + scale * first.z, points[1])
        return recorder.finish(second.x0 + scale * first.z, points[-1])

    shapes = [[np.shape(column) for column in jax.tree.leaves(table(scale))] for scale in (0.0, 0.5)]
    assert shapes[0] == shapes[1]


def test_levels_between_timesteps():
    level = level_of_sigma(SCHEDULE, 0.75)
    assert 0 < level.t < 99
    assert level.t != int(level.t)
    again = level_at(SCHEDULE, level.t)
    np.testing.assert_allclose([again.signal, again.noise, again.sigma_bar], [0.8, 0.6, 0.75], rtol=1e-12)
    np.testing.assert_allclose(again.half_log_snr, -np.log(0.75), rtol=1e-12)


def _predict(x, t):
    return jnp.sin(x) * (1 + t[:, None] / 100)
