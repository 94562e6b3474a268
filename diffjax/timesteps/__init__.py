"""Time grids `[S+1]`, from the noisiest timestep down to -1, which is clean data: int32 indices, or real times.

A real time lies between two timesteps (`continuous_time`); grids that are spaced by noise levels have such times.

Step i of a sampler goes from `grid[i]` to `grid[i+1]`; only `samplers.ddim(stride_end=…)` has another notion of a
"previous timestep", that of diffusers. A reversed grid encodes. Spacings with `num_steps` give exactly S steps from S
different indices: where a formula repeats an index, the repeat moves to the nearest free index (upwards in a tie). With
`end=0` a grid stops at index 0, where x still has a little noise (ᾱ_0 < 1), as in some code.
"""

from diffjax.timesteps.base import SPACINGS, Grid, check, starting_at
from diffjax.timesteps.indices import (
    explicit,
    exponential,
    full,
    leading,
    linspace,
    quadratic,
    sections,
    trailing,
    uniform,
)
from diffjax.timesteps.levels import beta, flow, from_sigmas, karras, log_snr

__all__ = [
    "SPACINGS",
    "Grid",
    "beta",
    "check",
    "explicit",
    "exponential",
    "flow",
    "from_sigmas",
    "full",
    "karras",
    "leading",
    "linspace",
    "log_snr",
    "quadratic",
    "sections",
    "starting_at",
    "trailing",
    "uniform",
]
