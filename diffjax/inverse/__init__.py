"""Posterior sampling for inverse problems y = A·x + noise with an unconditional network."""

from diffjax.inverse import operators
from diffjax.inverse.by_row import ddnm_plus, ddrm, dps
from diffjax.inverse.linear import conjugate_gradients, minimal_residuals, weighted_adjoint
from diffjax.inverse.methods import ddnm, diffpir, diffpir_noise, mmps, pigdm
from diffjax.inverse.mixtures import GaussianMixture
from diffjax.inverse.operators import SVD, Operator
from diffjax.inverse.particles import Particles, twisted
from diffjax.inverse.registry import METHODS, OPERATORS, Problem
from diffjax.inverse.registry import sample as sample_posterior

__all__ = [
    "METHODS",
    "OPERATORS",
    "SVD",
    "GaussianMixture",
    "Operator",
    "Particles",
    "Problem",
    "conjugate_gradients",
    "ddnm",
    "ddnm_plus",
    "ddrm",
    "diffpir",
    "diffpir_noise",
    "dps",
    "minimal_residuals",
    "mmps",
    "operators",
    "pigdm",
    "sample_posterior",
    "twisted",
    "weighted_adjoint",
]
