"""The rows of `experiments/crosscheck.py` for the solvers in x̄ and σ̄, against diffusers, k-diffusion, azula and papers."""

from functools import partial
from pathlib import Path

import numpy as np

from diffjax import samplers, timesteps
from torch_reference import azula_samplers, er_sde, k_diffusion, learned, restart, sigma_space
from torch_reference.compare import Row


def diffusers_row(sampler, counterpart, name, ours, *, draws=None, eta=None, num_steps=10):
    """A solver on the trailing grid, its middle between the timesteps."""
    grid = timesteps.trailing(1000, num_steps).astype(np.float64)
    return Row(
        schedule="linear",
        grid="trailing",
        steps=num_steps,
        sampler=sampler,
        counterpart=f"diffusers {counterpart}",
        ours=lambda sch: ours(sch, grid),
        theirs=sigma_space.runner(name, draws, timestep_spacing="trailing"),
        eta=eta,
    )


def k_diffusion_row(sampler, name, ours, *, draws=None, num_steps=10, clip=1.0, **options):
    """A solver on the levels of Karras et al."""
    return Row(
        schedule="linear",
        grid="karras",
        steps=num_steps,
        sampler=sampler,
        counterpart=f"k-diffusion sample_{name}",
        ours=lambda sch: ours(sch, timesteps.karras(sch, num_steps)),
        theirs=k_diffusion.runner(name, draws, **options),
        eta=options.get("eta"),
        clip=clip,
    )


def every_second(case):
    """The draws of a solver that makes two calls a step, of which the second adds noise."""
    return (case.noise(2 * step + 1) for step in range(case.num_steps))


def brownian(case):
    """The draws of a solver that makes two calls a step and adds noise, of one Brownian motion, after both."""
    return (sigma_space.brownian(case, call) for call in range(len(case.asked)))


def every_step(case):
    """The draws of a solver that makes one call a step."""
    return (case.noise(step) for step in range(case.num_steps))


def one_call_rows(num_steps) -> list[Row]:
    """k-diffusion's solvers of one call a step that `diffusers_row` does not compare."""
    pp = partial(samplers.dpm_solver_pp, lower_order_final=False)
    k_row = partial(k_diffusion_row, num_steps=num_steps)
    rows = [
        k_row("ddim", "euler_ancestral", partial(samplers.ddim, eta=eta), draws=every_step, eta=eta)
        for eta in (0.5, 1.0)
    ]
    rows.append(k_row("dpm_solver_pp order=2", "dpmpp_2m", pp))
    for eta in (0.5, 1.0):
        rows += [
            k_row(
                f"dpm_solver_pp order=2, {kind}",
                "dpmpp_2m_sde",
                partial(pp, eta=eta, solver_type=kind),
                draws=every_step,
                eta=eta,
                solver_type=kind,
            )
            for kind in ("midpoint", "heun")
        ]
        third = partial(pp, order=3, eta=eta, solver_type="heun")
        rows.append(k_row("dpm_solver_pp order=3, heun", "dpmpp_3m_sde", third, draws=every_step, eta=eta))
    return rows


def azula_row(num_steps, order, *, predict_x0) -> Row:
    """DEIS against azula's exponential Adams-Bashforth method, which ends above clean data."""
    return Row(
        schedule="linear",
        grid="log_snr, to 0",
        steps=num_steps,
        sampler=f"deis order={order}" + ", predict_x0" * predict_x0,
        counterpart=f"azula {'xEAB' if predict_x0 else 'zEAB'}",
        ours=lambda sch: samplers.deis(
            sch, timesteps.log_snr(sch, num_steps, end=0), order=order, predict_x0=predict_x0
        ),
        theirs=azula_samplers.runner("xEABSampler" if predict_x0 else "zEABSampler", order),
        clip=1.0,
    )


def er_sde_row(num_steps, order) -> Row:
    """ER-SDE-Solver against its formulas in PyTorch."""
    return Row(
        schedule="linear",
        grid="karras",
        steps=num_steps,
        sampler=f"er_sde order={order}",
        counterpart="ER-SDE-Solver by its paper",
        ours=lambda sch: samplers.er_sde(sch, timesteps.karras(sch, num_steps), order=order),
        theirs=er_sde.runner(order),
        clip=1.0,
    )


def restart_row(num_steps) -> Row:
    """Restart sampling against its algorithm in PyTorch; the table's own grid goes up and down."""
    options = {"intervals": [(0.2, 1.5, 3, 2), (2.0, 6.0, 2, 1)], "restart_noise": 1.01}
    return Row(
        schedule="linear",
        grid="karras",
        steps=num_steps,
        sampler="restart",
        counterpart="Restart by its paper",
        ours=lambda sch: samplers.restart(sch, timesteps.karras(sch, num_steps), **options),
        theirs=restart.runner(num_steps, **options),
        clip=1.0,
    )


def learned_row() -> Row:
    """The fitted table of the digits against a loop over its file."""
    path = Path(__file__).parents[1] / "pretrained" / "digits" / "learned_5.json"
    return Row(
        schedule="linear",
        grid="its own",
        steps=5,
        sampler="learned",
        counterpart="its JSON file in PyTorch",
        ours=lambda sch: samplers.learned(sch, timesteps.trailing(1000, 5), path=str(path)),
        theirs=learned.runner(path),
        clip=1.0,
    )


def rows() -> list[Row]:
    """Every row."""
    two_s, sde = samplers.dpm_solver_pp_2s_ancestral, samplers.dpm_solver_pp_sde
    ancestral = partial(samplers.dpm2, eta=1.0)
    made = [learned_row()]
    for num_steps in (10, 25):
        made += [
            diffusers_row("lms", "LMSDiscrete", "LMSDiscreteScheduler", samplers.lms, num_steps=num_steps),
            diffusers_row("dpm2", "KDPM2Discrete", "KDPM2DiscreteScheduler", samplers.dpm2, num_steps=num_steps),
            diffusers_row(
                "dpm2",
                "KDPM2AncestralDiscrete",
                "KDPM2AncestralDiscreteScheduler",
                ancestral,
                draws=sigma_space.ancestral,
                eta=1.0,
                num_steps=num_steps,
            ),
            diffusers_row(
                "dpm_solver_pp_sde",
                "DPMSolverSDE",
                "DPMSolverSDEScheduler",
                sde,
                draws=sigma_space.brownian,
                eta=1.0,
                num_steps=num_steps,
            ),
            k_diffusion_row("lms", "lms", samplers.lms, num_steps=num_steps),
            k_diffusion_row("euler", "euler", samplers.euler, num_steps=num_steps),
            k_diffusion_row("heun", "heun", samplers.heun, num_steps=num_steps),
            k_diffusion_row("dpm2", "dpm_2", samplers.dpm2, num_steps=num_steps),
            k_diffusion_row("dpm2", "dpm_2_ancestral", ancestral, draws=every_second, eta=1.0, num_steps=num_steps),
            k_diffusion_row(
                "dpm_solver_pp_2s_ancestral",
                "dpmpp_2s_ancestral",
                partial(two_s, eta=0.5),
                draws=every_second,
                eta=0.5,
                num_steps=num_steps,
            ),
            k_diffusion_row(
                "dpm_solver_pp_sde", "dpmpp_sde", partial(sde, eta=0.5), draws=brownian, eta=0.5, num_steps=num_steps
            ),
            *one_call_rows(num_steps),
            restart_row(num_steps),
            *(er_sde_row(num_steps, order) for order in (1, 2, 3)),
            *(azula_row(num_steps, order, predict_x0=in_x0) for order in (1, 2, 3) for in_x0 in (False, True)),
        ]
    return made
