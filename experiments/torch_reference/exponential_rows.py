"""Rows of `experiments/crosscheck.py`: DPM-Solver, UniPC, DEIS and SA-Solver against diffusers."""

from functools import partial

import numpy as np

from diffjax import samplers
from torch_reference import lifted
from torch_reference.compare import Row

MULTISTEP, SINGLESTEP = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
SDE, IN_EPS = {"algorithm_type": "sde-dpmsolver++"}, {"algorithm_type": "dpmsolver"}
TO_0 = {"final_sigmas_type": "sigma_min"}


def row(num_steps, name, theirs, ours, *, end=-1, inverse=False, clip=None, by_design="", **options):
    """diffusers' scheduler `name` with the options `theirs`, on its linspace grid, and our sampler with `options`."""
    grid = np.linspace(0, 999, num_steps + 1).round().astype(np.int32)
    if not inverse:
        grid = np.append(grid[:0:-1], end)
    shown = ", ".join(f"{option}={value}" for option, value in options.items())
    spacing = None if name == SINGLESTEP else "linspace"
    return Row(
        schedule="linear",
        grid="linspace of S + 1, " + ("ascending" if inverse else "to 0" if end == 0 else "no 0"),
        steps=num_steps,
        sampler=f"{ours.__name__} {shown}",
        counterpart="diffusers " + name.removesuffix("Scheduler"),
        ours=lambda schedule: partial(ours, **options)(schedule, grid),
        theirs=lifted.exponential(name, spacing=spacing, **theirs),
        clip=clip,
        by_design=by_design,
    )


def _rows():
    pp, eps = samplers.dpm_solver_pp, samplers.dpm_solver
    single, single_eps = samplers.dpm_solver_pp_singlestep, samplers.dpm_solver_singlestep
    unipc, deis, sa = "UniPCMultistepScheduler", "DEISMultistepScheduler", "SASolverScheduler"
    inverse = "DPMSolverMultistepInverseScheduler"
    below_15 = {"lower_order_final": True}
    rows = []
    for order in (1, 2, 3):
        theirs = {"solver_order": order}
        rows += [
            row(10, MULTISTEP, theirs, pp, order=order, clip=1.0, **below_15),
            row(25, MULTISTEP, theirs | {"solver_type": "heun"}, pp, order=order, solver_type="heun", clip=1.0),
            row(25, MULTISTEP, theirs | IN_EPS | TO_0, eps, order=order, end=0),
            row(25, SINGLESTEP, theirs, single, order=order, clip=1.0),
            row(25, SINGLESTEP, theirs | IN_EPS | TO_0 | below_15, single_eps, order=order, end=0),
            row(25, SINGLESTEP, theirs | SDE, single, order=order, eta=1.0, clip=1.0),
            row(10, unipc, theirs, samplers.unipc, order=order, clip=1.0),
            row(
                25, unipc, theirs | TO_0 | {"solver_type": "bh1"}, samplers.unipc, order=order, solver_type="bh1", end=0
            ),
            row(25, unipc, theirs | TO_0 | {"predict_x0": False}, samplers.unipc, order=order, predict_x0=False, end=0),
            row(25, deis, theirs, samplers.deis, order=order, end=0),
            row(25, inverse, theirs, pp, order=order, inverse=True),
        ]
    design = "theirs has the wrong sign of 1/2 in the weight of the second difference"
    rows += [
        row(25, MULTISTEP, {"solver_order": 1} | SDE, pp, order=1, eta=1.0),
        row(25, MULTISTEP, {"solver_order": 2} | SDE, pp, order=2, eta=1.0, clip=1.0),
        row(25, MULTISTEP, {"solver_order": 3} | SDE, pp, order=3, eta=1.0, by_design=design),
        row(25, MULTISTEP, {"solver_order": 2, "algorithm_type": "sde-dpmsolver"} | TO_0, eps, eta=1.0, end=0),
    ]
    for predictor, corrector in ((1, 1), (2, 2), (3, 4)):
        orders = {"predictor_order": predictor, "corrector_order": corrector}
        rows.append(row(25, sa, orders, samplers.sa_solver, **orders, tau_interval=(200, 800), end=0))
    return rows


ROWS = tuple(_rows())
