"""Samplers as something one optimises: optimal variances, optimal grids, learned tables, few-step students."""

from diffjax.learn.distillation import StepPairs, progressive, two_step_target
from diffjax.learn.fitting import COLUMNS, Fitted, Pairs, distance, fit, teacher
from diffjax.learn.grids import Found, bound_costs, search, search_all
from diffjax.learn.variances import Moments, analytic_variances, moments, with_variances

__all__ = [
    "COLUMNS",
    "Fitted",
    "Found",
    "Moments",
    "Pairs",
    "StepPairs",
    "analytic_variances",
    "bound_costs",
    "distance",
    "fit",
    "moments",
    "progressive",
    "search",
    "search_all",
    "teacher",
    "two_step_target",
    "with_variances",
]
