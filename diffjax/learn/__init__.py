"""Samplers as something one optimises: optimal variances, optimal grids, learned tables."""

from diffjax.learn.grids import Found, bound_costs, search, search_all
from diffjax.learn.variances import Moments, analytic_variances, moments, with_variances

__all__ = ["Found", "Moments", "analytic_variances", "bound_costs", "moments", "search", "search_all", "with_variances"]
