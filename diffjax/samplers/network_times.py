"""The times at which a table calls the network, where they differ from those of its levels."""

import dataclasses

import numpy as np

from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler

NETWORK_TIMES = ("exact", "nearest", "nearest_at_starts", "floor", "linear_sigma", "linear_sigma_at_starts")


def with_network_times(sampler: Sampler, schedule: NoiseSchedule, rule: str) -> Sampler:
    """Returns the same table with other times for its network calls; x keeps its levels.

    Args:
      sampler: a table on a grid of real times; a table of indices is returned unchanged.
      schedule: the noise schedule of the table.
      rule: "exact": the times of the levels; "nearest" or "floor": the index nearest to them or below, for networks
        that take whole timesteps only; "linear_sigma": at levels of the grid, the time at which σ̄ has this value if it
        is linear between two indices, as in diffusers' Euler, Heun and LMS schedulers; "linear_sigma_at_starts" and
        "nearest_at_starts": so, or at the nearest index, at the first call of each step alone, as in its KDPM2
        schedulers.

    Raises:
      ValueError: an unknown rule.
    """
    if rule not in NETWORK_TIMES:
        raise ValueError(f"network_times={rule!r} is not one of {', '.join(map(repr, NETWORK_TIMES))}")
    times = np.asarray(sampler.t_net)
    if rule == "exact" or times.dtype.kind != "f":
        return sampler
    if rule in ("nearest", "floor"):
        whole = np.round(times) if rule == "nearest" else np.floor(times)
        return dataclasses.replace(sampler, t_net=whole.astype(np.int32))
    starts = np.append(True, np.asarray(sampler.lands)[:-1])
    if rule == "nearest_at_starts":
        return dataclasses.replace(sampler, t_net=np.where(starts, np.round(times), times))
    linear = np.interp(sampler.noise / sampler.signal, schedule.sigma_bars, np.arange(schedule.num_timesteps))
    chosen = np.isin(sampler.t_from, sampler.grid) if rule == "linear_sigma" else starts
    return dataclasses.replace(sampler, t_net=np.where(chosen, linear, times))
