"""The rows of `experiments/crosscheck.py`: what is compared with what. `compare` runs them.

Those of the exponential solvers are in `exponential_rows`.
"""

import dataclasses
from functools import partial

import numpy as np
import torch

from diffjax import samplers, timesteps
from torch_reference import exponential_rows, lifted, s0, s3, s4, sigma_rows
from torch_reference.compare import Row


def grid_of(spacing: str, num_steps: int) -> timesteps.Grid:
    """diffusers' spacings at T = 1000, by diffjax's rules. DPM-Solver++'s "leading" leaves index 0 out."""
    if spacing == "dpm leading":
        return np.append(timesteps.leading(1000, num_steps + 1)[:-2], -1)
    return getattr(timesteps, spacing)(1000, num_steps)


def diffusers_ddpm(schedule, spacing, num_steps, variance, clip, **changes):
    """Ancestral sampling against diffusers."""
    grid = grid_of(spacing, num_steps)
    row = Row(
        schedule=schedule,
        grid=spacing,
        steps=num_steps,
        sampler=f"ddpm {variance}",
        counterpart="diffusers DDPM",
        ours=lambda sch: samplers.ddpm(sch, grid, variance=variance),
        theirs=lifted.ddpm(spacing=spacing, variance=variance),
        clip=clip,
        network=variance if variance.startswith("learned") else "eps",
    )
    return dataclasses.replace(row, **changes)


def diffusers_ddim(schedule, spacing, num_steps, eta, clip, *, rederive=True, network="eps", **changes):
    """DDIM against diffusers: ε̂ re-derived after clipping in both (`use_clipped_model_output`), or in neither."""
    grid = grid_of(spacing, num_steps)
    prediction = {"prediction_type": "v_prediction"} if network == "v" else {}
    row = Row(
        schedule=schedule,
        grid=spacing,
        steps=num_steps,
        sampler=f"ddim {'rederived' if rederive else 'raw'} eps",
        counterpart="diffusers DDIM" + (" use_clipped" if rederive else ""),
        ours=lambda sch: samplers.ddim(sch, grid, eta=eta, rederive_eps=rederive),
        theirs=lifted.ddim(spacing=spacing, eta=eta, rederive=rederive, **prediction),
        eta=eta,
        clip=clip,
        network=network,
    )
    return dataclasses.replace(row, **changes)


def diffusers_inverse(spacing, num_steps, *, network_at="destination", by_design=""):
    """Encoding against diffusers."""
    ascending = np.append(-1, grid_of(spacing, num_steps)[-2::-1])
    return Row(
        schedule="linear",
        grid=f"{spacing}, ascending",
        steps=num_steps,
        sampler=f"probability_flow eq13, network at the {network_at}",
        counterpart="diffusers DDIMInverse",
        ours=lambda sch: samplers.probability_flow(sch, ascending, network_at=network_at),
        theirs=lifted.ddim("DDIMInverseScheduler", spacing=spacing),
        by_design=by_design,
    )


def diffusers_dpm(schedule, spacing, num_steps, order, clip):
    """DPM-Solver++ against diffusers."""
    grid = grid_of(f"dpm {spacing}" if spacing == "leading" else spacing, num_steps)
    return Row(
        schedule=schedule,
        grid="leading, no 0" if spacing == "leading" else spacing,
        steps=num_steps,
        sampler=f"dpm_solver_pp order {order}",
        counterpart="diffusers DPMSolverMultistep",
        ours=lambda sch: samplers.dpm_solver_pp(sch, grid, order=order),
        theirs=lifted.exponential("DPMSolverMultistepScheduler", spacing=spacing, solver_order=order),
        clip=clip,
    )


def diffusers_other(spacing, num_steps, sampler, counterpart, ours, theirs, **options):
    """A sampler of ours, (schedule, grid) → Sampler, against any runner."""
    grid = grid_of(spacing, num_steps)
    return Row(
        schedule="linear",
        grid=spacing,
        steps=num_steps,
        sampler=sampler,
        counterpart=counterpart,
        ours=lambda sch: ours(sch, grid),
        theirs=theirs,
        **options,
    )


def rows_against_diffusers() -> list[Row]:
    """Every row against diffusers."""
    rows = [
        diffusers_ddpm("linear", "leading", 10, "fixed_small", 1.0),
        diffusers_ddpm("linear", "leading", 50, "fixed_small", None),
        diffusers_ddpm("linear", "leading", 1000, "fixed_small", 1.0),
        diffusers_ddpm("cosine", "leading", 1000, "fixed_small", 1.0),
        diffusers_ddpm("scaled_linear", "trailing", 50, "fixed_small", 1.0),
        diffusers_ddpm("linear", "linspace", 50, "fixed_small", 1.0),
        diffusers_ddpm("linear", "leading", 50, "fixed_large", 1.0),
        diffusers_ddpm("linear", "leading", 1000, "fixed_large", 1.0),
        diffusers_ddpm("linear", "leading", 50, "learned", 1.0),
        diffusers_ddpm("linear", "leading", 50, "learned_range", 1.0),
        diffusers_ddpm("linear", "leading", 1000, "learned_range", 1.0),
        diffusers_ddpm(
            "linear", "trailing", 50, "fixed_large", 1.0, by_design="theirs adds noise on the step to clean data"
        ),
        diffusers_ddpm(
            "linear",
            "leading",
            1000,
            "fixed_small",
            1.0,
            counterpart="diffusers DDPM, not lifted",
            theirs=lifted.ddpm(spacing="leading", variance="fixed_small", lifted=False),
            by_design="its own schedule is float32",
        ),
    ]
    for eta in (0.0, 0.2, 0.5, 1.0):
        rows += [diffusers_ddim("linear", "leading", 50, eta, 1.0, rederive=rederive) for rederive in (True, False)]
    rows += [
        diffusers_ddim("linear", "leading", 10, 0.0, 1.0),
        diffusers_ddim("linear", "trailing", 10, 0.0, None),
        diffusers_ddim("linear", "leading", 1000, 0.0, None),
        diffusers_ddim("linear", "leading", 1000, 0.0, 1.0),
        diffusers_ddim("linear", "leading", 1000, 0.5, 1.0),
        diffusers_ddim("linear", "leading", 1000, 1.0, 1.0, rederive=False),
        diffusers_ddim("cosine", "trailing", 50, 0.0, 1.0),
        diffusers_ddim("scaled_linear", "trailing", 50, 0.5, 1.0),
        diffusers_ddim("zero_snr", "trailing", 50, 0.0, 1.0, network="v", sampler="ddim of a v-network"),
        diffusers_ddim(
            "linear",
            "trailing",
            50,
            1.0,
            1.0,
            sampler="ddim to index 0",
            counterpart="diffusers DDIM use_clipped, set_alpha_to_one=False",
            ours=lambda sch: samplers.ddim(sch, grid_of("trailing", 50), eta=1.0, stride_end=0),
            theirs=lifted.ddim(spacing="trailing", eta=1.0, rederive=True, set_alpha_to_one=False),
        ),
        diffusers_ddim(
            "linear",
            "linspace",
            10,
            0.0,
            1.0,
            sampler="ddim, each step to t - T//S",
            ours=lambda sch: samplers.ddim(sch, grid_of("linspace", 10), stride_end=-1),
        ),
        diffusers_ddim("linear", "linspace", 10, 0.0, 1.0, by_design="theirs steps to t - T//S, not to the next t"),
        diffusers_ddim(
            "linear",
            "leading",
            50,
            0.0,
            1.0,
            counterpart="diffusers DDIM",
            theirs=lifted.ddim(spacing="leading", eta=0.0, rederive=False),
            by_design="by default theirs keeps ε̂ after clipping",
        ),
        diffusers_ddim(
            "linear",
            "leading",
            1000,
            1.0,
            1.0,
            counterpart="diffusers DDIM use_clipped, not lifted",
            theirs=lifted.ddim(spacing="leading", eta=1.0, rederive=True, lifted=False),
            by_design="its own schedule is float32",
        ),
        diffusers_inverse("leading", 10),
        diffusers_inverse("leading", 50),
        diffusers_inverse("leading", 1000),
        diffusers_inverse("trailing", 50),
        diffusers_inverse("leading", 50, network_at="source", by_design="theirs calls the network at the destination"),
        diffusers_dpm("linear", "trailing", 10, 1, 1.0),
        diffusers_dpm("linear", "trailing", 10, 2, 1.0),
        diffusers_dpm("linear", "leading", 50, 2, 1.0),
        diffusers_dpm("cosine", "trailing", 50, 2, 1.0),
        diffusers_dpm("linear", "trailing", 50, 2, None),
        diffusers_dpm("linear", "trailing", 1000, 2, 1.0),
    ]
    flow = samplers.probability_flow
    euler = lifted.euler(spacing="leading")
    ancestral = lifted.euler("EulerAncestralDiscreteScheduler", spacing="leading")
    rows += [
        diffusers_other("leading", 50, "ddim", "diffusers Euler", samplers.ddim, euler, eta=0.0),
        diffusers_other("leading", 50, "probability_flow eq13", "diffusers Euler", flow, euler),
        diffusers_other("leading", 1000, "probability_flow eq13", "diffusers Euler", flow, euler),
        diffusers_other(
            "leading", 50, "ddim", "diffusers EulerAncestral", partial(samplers.ddim, eta=1.0), ancestral, eta=1.0
        ),
    ]
    for spacing, num_steps, clip in (("trailing", 10, 1.0), ("leading", 50, None), ("trailing", 1000, 1.0)):
        theirs = lifted.heun(spacing=spacing)
        rows.append(diffusers_other(spacing, num_steps, "heun", "diffusers Heun", samplers.heun, theirs, clip=clip))
    theirs = lifted.pndm(spacing="leading", skip_prk_steps=False)
    rows += [diffusers_other("leading", n, "pndm", "diffusers PNDM", samplers.pndm, theirs) for n in (10, 50)]
    rows.append(
        diffusers_other(
            "leading",
            50,
            "plms",
            "diffusers PNDM skip_prk_steps",
            samplers.plms,
            lifted.pndm(spacing="leading", skip_prk_steps=True),
            by_design="theirs makes one more call, to improve the first step",
        )
    )
    return rows


def _s0(num_steps, noise, counterpart, **options):
    """noise: η, or the names of the flags of `samplers.ddim` that set it; options: those of `s0.ddim`."""
    grid = timesteps.trailing(1000, num_steps)
    flags = dict.fromkeys(noise.split(), True) if isinstance(noise, str) else {"eta": noise}
    return Row(
        schedule="linear",
        grid="trailing",
        steps=num_steps,
        sampler=f"ddim {noise}" if isinstance(noise, str) else "ddim",
        counterpart=counterpart,
        ours=lambda sch: samplers.ddim(sch, grid, **flags),
        theirs=lambda case: s0.ddim(
            case.betas, case.x, case.model, case.noise, num_steps=num_steps, dtype=case.dtype, **options
        ),
        eta=flags.get("eta"),
    )


def _s0_ddpm(schedule, variance, clip):
    return Row(
        schedule=schedule,
        grid="full",
        steps=1000,
        sampler=f"ddpm {variance}",
        counterpart="S0 DDPM" + (" simple_var" if variance == "fixed_large" else ""),
        ours=lambda sch: samplers.ddpm(sch, timesteps.full(1000), variance=variance),
        theirs=lambda case: s0.ddpm(
            case.betas,
            case.x,
            case.model,
            case.noise,
            dtype=case.dtype,
            simple_var=variance == "fixed_large",
            clip=case.clip,
        ),
        clip=clip,
    )


def _s3(grid, name, num_steps, *, eta=0.0, **options):
    return Row(
        schedule="linear",
        grid=name,
        steps=num_steps,
        sampler="ddim",
        counterpart="S3 DDIM",
        ours=lambda sch: samplers.ddim(sch, grid, eta=eta),
        theirs=lambda case: s3.ddim(case.betas, case.x, case.model, case.noise, eta=eta, dtype=case.dtype, **options),
        eta=eta,
    )


def _s3_flow(stride, *, reverse):
    grid = timesteps.uniform(1000, stride=stride, last=True, end=0)
    grid = grid if reverse else grid[::-1]
    return Row(
        schedule="linear",
        grid=f"uniform stride {stride}, {'from T-1 to 0' if reverse else 'from 0 to T-1'}",
        steps=len(grid) - 1,
        sampler="probability_flow eq15",
        counterpart="S3 probability flow",
        ours=lambda sch: samplers.probability_flow(sch, grid, form="eq15"),
        theirs=lambda case: s3.probability_flow(
            case.betas, case.x, case.model, tau=stride, reverse=reverse, dtype=case.dtype
        ),
    )


def _s4(schedule, clip):
    def theirs(case):
        process = s4.GaussianDiffusion(case.betas)
        pictures = process.p_sample_loop(case.model, case.x, case.noise, dtype=case.dtype, clip=case.clip)
        return torch.cat([case.x[None], pictures])

    return Row(
        schedule=schedule,
        grid="full",
        steps=1000,
        sampler="ddpm fixed_small",
        counterpart="S4 p_sample_loop",
        ours=lambda sch: samplers.ddpm(sch, timesteps.full(1000)),
        theirs=theirs,
        clip=clip,
    )


def rows_against_tutorials() -> list[Row]:
    """Every row against `s0`, `s3` and `s4`."""
    stride = partial(timesteps.uniform, 1000, last=True)
    square = partial(timesteps.quadratic, 1000, last=True, allow_repeats=True)
    return [
        _s0_ddpm("linear", "fixed_large", 1.0),
        _s0_ddpm("linear", "fixed_small", 1.0),
        _s0_ddpm("linear", "fixed_small", None),
        _s0(10, 0.0, "S0 DDIM", eta=0.0),
        _s0(50, 0.5, "S0 DDIM", eta=0.5),
        _s0(1000, 0.5, "S0 DDIM", eta=0.5),
        _s0(50, 0.5, "S0 DDIM, its own eta = 0.25", eta=0.25, eta_scales_variance=True),
        _s0(50, "sigma_hat", "S0 DDIM simple_var, none at the end", simple_var=True),
        _s0(50, "sigma_hat final_noise", "S0 DDIM simple_var", simple_var=True, final_noise=True),
        _s3(stride(stride=100, end=0), "uniform stride 100, to 0", 10, tau=100, end="alpha_bar_0"),
        _s3(stride(stride=20, end=0), "uniform stride 20, to 0", 50, tau=20, end="alpha_bar_0"),
        _s3(stride(stride=1, end=0), "uniform stride 1, to 0", 999, tau=1, end="alpha_bar_0"),
        _s3(stride(stride=20), "uniform stride 20", 51, eta=0.5, tau=20),
        _s3(
            square(50, end=0),
            "quadratic with repeats, to 0",
            50,
            tau=50,
            scheduling="exp",
            end="alpha_bar_0",
            historical_list=True,
        ),
        *(_s3_flow(n, reverse=reverse) for n in (100, 20, 1) for reverse in (True, False)),
        _s4("linear", 1.0),
        _s4("cosine", 1.0),
        _s4("linear", None),
    ]


ROWS = (*rows_against_diffusers(), *exponential_rows.ROWS, *sigma_rows.rows(), *rows_against_tutorials())
