"""Searches for a short schedule on which a network that is conditioned on the noise level restores images well."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffjax.errors import UserError
from diffjax.metrics import registry
from diffjax.metrics.records import Figure

FIRST_BETAS = (1e-6, 1e-4, 1e-2)
LAST_ALPHA_BARS = (1e-2, 1e-3, 1e-4)


def candidates(num_steps: int) -> list[dict[str, Any]]:
    """Returns linear schedules of `num_steps` timesteps, all of which are sampled, as fields of `config.sample`.

    There is one for each first β and last ᾱ; the last β follows from these.

    Raises:
      ValueError: num_steps < 2.
    """
    from scipy.optimize import brentq

    if num_steps < 2:
        raise ValueError(f"num_steps={num_steps} must be ≥ 2")

    def excess(last_beta, first_beta, last_alpha_bar):
        return np.sum(np.log1p(-np.linspace(first_beta, last_beta, num_steps))) - np.log(last_alpha_bar)

    found = []
    for first in FIRST_BETAS:
        for alpha_bar in LAST_ALPHA_BARS:
            last = brentq(excess, first, 1.0 - 1e-9, args=(first, alpha_bar))
            schedule = {"num_timesteps": num_steps, "beta_start": first, "beta_end": float(f"{last:.4g}")}
            fields = {f"schedule.{name}": value for name, value in schedule.items()}
            found.append({"num_steps": num_steps, "schedule.name": "linear"} | fields)
    return found


def best(figures: Mapping[str, Mapping[str, Figure]], metric: str) -> str:
    """Returns the row with the best figure: the highest or the lowest, as the metric is registered.

    Args:
      figures: the figures by row, then by metric.
      metric: the name of the metric.

    Raises:
      UserError: a row that lacks the metric.
    """
    for row in figures.values():
        if metric not in row:
            raise UserError(f"{metric} is not computed for these images; there are {', '.join(row)}")
    sign = -1.0 if registry.higher_is_better(metric) else 1.0
    return min(figures, key=lambda name: sign * figures[name][metric].value)
