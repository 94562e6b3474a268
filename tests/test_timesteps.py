import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffjax import timesteps

RULES = [timesteps.leading, timesteps.trailing, timesteps.linspace]
sizes = st.integers(1, 1200).flatmap(lambda total: st.tuples(st.just(total), st.integers(1, total)))


@pytest.mark.parametrize("rule", RULES)
@given(size=sizes)
def test_every_rule_gives_exactly_s_steps_down_to_clean(rule, size):
    total, steps = size
    grid = rule(total, steps)
    assert grid.dtype == np.int32
    assert grid.shape == (steps + 1,)
    assert np.all(np.diff(grid) < 0)
    assert grid[0] < total
    assert grid[-1] == -1


@given(size=sizes)
def test_formulas_of_diffusers(size):
    total, steps = size
    leading = (np.arange(steps) * (total // steps)).round()[::-1]
    np.testing.assert_array_equal(timesteps.leading(total, steps)[:-1], leading)
    trailing = np.round(np.arange(total, 0, -total / steps)) - 1
    np.testing.assert_array_equal(timesteps.trailing(total, steps)[:-1], trailing[:steps])
    if steps > 1:
        linspace = np.linspace(0, total - 1, steps).round()[::-1]
        np.testing.assert_array_equal(timesteps.linspace(total, steps)[:-1], linspace)


def test_lists_of_ten_steps():
    assert timesteps.leading(1000, 10).tolist() == [*range(900, -1, -100), -1]
    assert timesteps.leading(1000, 10, offset=1).tolist() == [*range(901, 0, -100), -1]
    assert timesteps.trailing(1000, 10).tolist() == [*range(999, 0, -100), -1]
    assert timesteps.linspace(1000, 10).tolist() == [*range(999, -1, -111), -1]
    assert timesteps.full(4).tolist() == [3, 2, 1, 0, -1]
    assert timesteps.linspace(1000, 1).tolist() == [999, -1]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [0, -1, 1001, 2.5])
def test_a_number_of_steps_that_cannot_be(rule, steps):
    with pytest.raises(ValueError, match=rf"num_steps={steps} is out of range: allowed is 1 … 1000"):
        rule(1000, steps)


def test_offset_that_leaves_the_schedule():
    with pytest.raises(ValueError, match="offset=100 puts index 1000 outside 0 … 999"):
        timesteps.leading(1000, 10, offset=100)
    with pytest.raises(ValueError, match="offset=-1"):
        timesteps.leading(1000, 10, offset=-1)


def test_check_takes_grids_both_ways():
    assert timesteps.check([5, 2, -1], 10).dtype == np.int32
    assert timesteps.check([-1, 2, 5], 10).tolist() == [-1, 2, 5]


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ([3], "shape"),
        ([[3, 1]], "shape"),
        ([3, 1.5, 0], "whole numbers; this one has 1.5"),
        ([10, 5, -1], "leaves -1 … 9"),
        ([5, -2], "leaves -1 … 9"),
        ([5, 5], "from 5 to 5 at step 0"),
        ([5, -1, -1], "from -1 to -1 at step 1"),
        ([5, 2, 3], "from 2 to 3 at step 1"),
    ],
)
def test_check_refuses(grid, words):
    with pytest.raises(ValueError, match=words):
        timesteps.check(grid, 10)
