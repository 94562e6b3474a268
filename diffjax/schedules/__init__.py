"""Noise schedules: β_t and all tables derived from it, in float64 on the host.

The index is `t = 0 … T-1`: `alpha_bars[t]` is ᾱ after `t + 1` noising steps, the paper's ᾱ_{t+1}. Index -1 is clean
data, ᾱ = 1. Tables stay float64 NumPy until they reach the device: in float32, 1 - ᾱ is off by 1.7e-4 at t = 0.
"""

from diffjax.schedules.base import (
    MAX_TIMESTEPS,
    SCHEDULES,
    NoiseSchedule,
    Table,
    at,
    from_alpha_bars,
    from_betas,
)
from diffjax.schedules.betas import constant, jsd, linear, quadratic, scaled_linear, sigmoid
from diffjax.schedules.levels import cosine, edm, flow
from diffjax.schedules.transforms import respace, zero_terminal_snr

SCHEDULES.register(from_betas)

__all__ = [
    "MAX_TIMESTEPS",
    "SCHEDULES",
    "NoiseSchedule",
    "Table",
    "at",
    "constant",
    "cosine",
    "edm",
    "flow",
    "from_alpha_bars",
    "from_betas",
    "jsd",
    "linear",
    "quadratic",
    "respace",
    "scaled_linear",
    "sigmoid",
    "zero_terminal_snr",
]
