"""Other times of network calls leave the levels of a table as they are."""

import numpy as np
import pytest

from diffjax import samplers, schedules, timesteps

SCHEDULE = schedules.linear(1000)
TABLE = samplers.heun(SCHEDULE, timesteps.karras(SCHEDULE, 6))


@pytest.mark.parametrize(("rule", "whole"), [("nearest", np.round), ("floor", np.floor)])
def test_whole_times(rule, whole):
    table = samplers.with_network_times(TABLE, SCHEDULE, rule)
    assert table.t_net.dtype == np.int32
    assert table.t_net.tolist() == whole(TABLE.t_net).tolist() != TABLE.t_net.tolist()
    np.testing.assert_array_equal(table.signal, TABLE.signal)
    np.testing.assert_array_equal(table.grid, TABLE.grid)


def test_times_where_sigma_is_linear():
    grid = np.array([700.5, 20.25, -1.0])
    sigma_bars = np.interp(grid[:2], np.arange(1000), SCHEDULE.sigma_bars)
    table = samplers.ddim(SCHEDULE, timesteps.from_sigmas(SCHEDULE, [*sigma_bars, 0.0]))
    assert np.max(np.abs(table.t_net - grid[:2])) > 1e-4
    np.testing.assert_allclose(samplers.with_network_times(table, SCHEDULE, "linear_sigma").t_net, grid[:2], rtol=1e-9)


def test_tables_of_indices_are_unchanged():
    table = samplers.ddim(SCHEDULE, timesteps.trailing(1000, 5))
    for rule in ("exact", "nearest", "floor", "linear_sigma"):
        assert samplers.with_network_times(table, SCHEDULE, rule) is table


def test_unknown_rule():
    with pytest.raises(ValueError, match="network_times='never' is not one of 'exact'"):
        samplers.with_network_times(TABLE, SCHEDULE, "never")


def test_stages_at_the_levels_of_the_grid_keep_their_times():
    linear, at_starts, nearest = (
        samplers.with_network_times(TABLE, SCHEDULE, rule).t_net
        for rule in ("linear_sigma", "linear_sigma_at_starts", "nearest_at_starts")
    )
    starts = np.append(True, TABLE.lands[:-1])
    np.testing.assert_array_equal(at_starts, np.where(starts, linear, TABLE.t_net))
    assert np.any(at_starts != linear)
    np.testing.assert_array_equal(nearest, np.where(starts, np.round(TABLE.t_net), TABLE.t_net))
