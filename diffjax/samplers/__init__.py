"""Samplers as tables: pure functions (schedule, grid, options) → `Sampler`, in float64 on the host.

Every step of DDPM, DDIM and related methods is affine in x, x̂0, ε̂ and noise, so a sampler is a table with one row for
each network call (`steps.Sampler`), and `sampling.sample` is the one loop that runs it. A table can be printed,
plotted, compared with another library's, stacked (`steps.stack`) and `vmap`ped. A step leads from level t to level s.
"""

from diffjax.samplers.analytic import (
    Moments,
    analytic,
    analytic_variances,
    load_moments,
    save_moments,
    with_variances,
)
from diffjax.samplers.ancestral import ddim, ddpm
from diffjax.samplers.base import SAMPLERS
from diffjax.samplers.deis import deis
from diffjax.samplers.dpm2 import dpm2, dpm_solver_pp_2s_ancestral, dpm_solver_pp_sde
from diffjax.samplers.dpm_solver import dpm_solver, dpm_solver_pp, dpm_solver_pp_singlestep, dpm_solver_singlestep
from diffjax.samplers.er_sde import er_sde
from diffjax.samplers.karras import euler, heun
from diffjax.samplers.learned import learned, load_table, save_table
from diffjax.samplers.lms import lms
from diffjax.samplers.network_times import with_network_times
from diffjax.samplers.ode import probability_flow
from diffjax.samplers.pndm import plms, pndm
from diffjax.samplers.restart import restart
from diffjax.samplers.sa_solver import sa_solver
from diffjax.samplers.unipc import unipc

__all__ = [
    "SAMPLERS",
    "Moments",
    "analytic",
    "analytic_variances",
    "ddim",
    "ddpm",
    "deis",
    "dpm2",
    "dpm_solver",
    "dpm_solver_pp",
    "dpm_solver_pp_2s_ancestral",
    "dpm_solver_pp_sde",
    "dpm_solver_pp_singlestep",
    "dpm_solver_singlestep",
    "er_sde",
    "euler",
    "heun",
    "learned",
    "lms",
    "load_moments",
    "load_table",
    "plms",
    "pndm",
    "probability_flow",
    "restart",
    "sa_solver",
    "save_moments",
    "save_table",
    "unipc",
    "with_network_times",
    "with_variances",
]
