"""Tables in files come back to the bit, or one line says what is wrong with the file."""

import json

import jax
import numpy as np
import pytest

from diffjax import samplers, schedules, timesteps

SCHEDULE = schedules.linear()
GRID = timesteps.trailing(1000, 5)


@pytest.mark.parametrize("grid", [GRID, timesteps.karras(SCHEDULE, 5)], ids=["indices", "real times"])
@pytest.mark.parametrize("sampler", [samplers.ddim, samplers.heun, samplers.dpm_solver_pp])
def test_saved_tables_are_equal(tmp_path, grid, sampler):
    table = sampler(SCHEDULE, grid)
    samplers.save_table(tmp_path / "table.json", table, loss=0.1, network="digits")
    again = samplers.learned(SCHEDULE, GRID, path=str(tmp_path / "table.json"))
    assert jax.tree.structure(again) == jax.tree.structure(table)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(table), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert json.loads((tmp_path / "table.json").read_text())["facts"] == {"loss": 0.1, "network": "digits"}


def test_every_damaged_byte_is_noticed(tmp_path):
    path = tmp_path / "table.json"
    samplers.save_table(path, samplers.ddim(SCHEDULE, GRID))
    whole = path.read_bytes()
    for place in range(0, len(whole) - 1, 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(bytes(damaged))
        error = None
        try:
            table = samplers.load_table(path)
        except ValueError as raised:
            error = str(raised)
        if error is None:  # another last digit of the same float64
            np.testing.assert_array_equal(table.b, samplers.ddim(SCHEDULE, GRID).b)
        else:
            assert "\n" not in error


def test_wrong_files(tmp_path):
    path = str(tmp_path / "table.json")
    with pytest.raises(ValueError, match="holds no table"):
        samplers.learned(SCHEDULE, GRID, path=path)
    samplers.save_table(path, samplers.ddim(SCHEDULE, GRID))
    with pytest.raises(ValueError, match="is a table of 5 steps, and num_steps=4"):
        samplers.learned(SCHEDULE, GRID[1:], path=path)
    with pytest.raises(ValueError, match="a table of another schedule"):
        samplers.learned(schedules.cosine(), GRID, path=path)
    learned = samplers.ddpm(SCHEDULE, GRID, variance="learned_range")
    with pytest.raises(ValueError, match="without learned variance"):
        samplers.save_table(path, learned)
