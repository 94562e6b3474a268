"""Samplers as something one optimises: optimal variances, optimal grids, learned tables, few-step students."""

from diffjax.learn.costs import fine_grid, kl_costs, trajectory_costs
from diffjax.learn.distillation import StepPairs, progressive, two_step_target
from diffjax.learn.fitting import Fitted, Pairs, fit, teacher, trajectories
from diffjax.learn.grids import Found, bound_costs, search, search_all
from diffjax.learn.losses import distance, kernel_distance, step_distance
from diffjax.learn.moving import COLUMNS
from diffjax.learn.terms import Terms, decoder_terms
from diffjax.learn.variances import moments
from diffjax.samplers import Moments, analytic_variances, load_moments, save_moments, with_variances

__all__ = [
    "COLUMNS",
    "Fitted",
    "Found",
    "Moments",
    "Pairs",
    "StepPairs",
    "Terms",
    "analytic_variances",
    "bound_costs",
    "decoder_terms",
    "distance",
    "fine_grid",
    "fit",
    "kernel_distance",
    "kl_costs",
    "load_moments",
    "moments",
    "progressive",
    "save_moments",
    "search",
    "search_all",
    "step_distance",
    "teacher",
    "trajectories",
    "trajectory_costs",
    "two_step_target",
    "with_variances",
]
