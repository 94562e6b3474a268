"""Samplers as something one optimises: optimal variances, optimal grids, learned tables."""

from diffjax.learn.fitting import COLUMNS, Fitted, Pairs, distance, fit, teacher
from diffjax.learn.grids import Found, bound_costs, search, search_all
from diffjax.learn.terms import Terms, decoder_terms
from diffjax.learn.variances import Moments, analytic_variances, moments, with_variances

__all__ = [
    "COLUMNS",
    "Fitted",
    "Found",
    "Moments",
    "Pairs",
    "Terms",
    "analytic_variances",
    "bound_costs",
    "decoder_terms",
    "distance",
    "fit",
    "moments",
    "search",
    "search_all",
    "teacher",
    "with_variances",
]
