"""DPM-Solver and DPM-Solver++, multistep and singlestep, for the ODE and the SDE."""

import itertools

import numpy as np
from numpy.typing import ArrayLike

from diffjax.samplers.base import SAMPLERS
from diffjax.samplers.exponential import (
    check_choice,
    check_eta,
    interpolation,
    levels_and_lambda,
    moments,
    table,
    transfer,
    usable_orders,
)
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Levels, Sampler, one_call_a_step

FEW_STEPS = 15
"""`lower_order_final` acts on grids of fewer steps than this, as in diffusers."""


@SAMPLERS.register
def dpm_solver_pp(
    schedule: NoiseSchedule,
    grid: ArrayLike,
    *,
    order: int = 2,
    solver_type: str = "midpoint",
    eta: float = 0.0,
    lower_order_final: bool = False,
    euler_at_final: bool = False,
) -> Sampler:
    """Builds the multistep DPM-Solver++ in x̂0 (Lu et al. 2022b), of order 1, 2 ("2M", Alg. 2) or 3 ("3M").

        x_s = √(1-ᾱ_s)/√(1-ᾱ_t)·x_t + √ᾱ_s(1 - e^{-h})·D,     λ = log(√ᾱ/√(1-ᾱ)),  h = λ_s - λ_t
        D = x̂0 (order 1);   D = (1 + 1/2r)·x̂0 - 1/2r·x̂0₍₋₁₎,  r = h₍₋₁₎/h (order 2)

    The first step is of order 1, the second at most of order 2, and a step to clean data, where h is infinite, is
    x_s = x̂0. Order 3 has half the second difference that makes it of third order, as in the authors' code and in
    diffusers, and converges with order 2; `deis(predict_x0=True, order=3)` and `unipc(order=3, corrector=False)` have
    the whole.

    With `eta` > 0 it is the SDE form (Lu et al. 2022b, App. D; k-diffusion's dpmpp_2m_sde and dpmpp_3m_sde):

        x_s = e^{-ηh}·√(1-ᾱ_s)/√(1-ᾱ_t)·x_t + √ᾱ_s(1 - e^{-(1+η)h})·D + √(1-ᾱ_s)·√(1 - e^{-2ηh})·z

    An ascending grid encodes (diffusers' DPMSolverMultistepInverseScheduler).

    Args:
      schedule: the noise schedule.
      grid: `[S+1]`, within -1 … T-1, descending, or ascending with η = 0.
      order: the order of the method, 1, 2 or 3.
      solver_type: how order 2 weights the difference of x̂0: "midpoint" by (1 - e^{-h})/2, or "heun" by the exact
        integral 1 - (1 - e^{-h})/h.
      eta: η ≥ 0; 0 is the ODE and 1 the SDE ("sde-dpmsolver++").
      lower_order_final: whether, on a grid of fewer than 15 steps, the last step is of order 1 and the one before it of
        at most 2 (diffusers).
      euler_at_final: whether the last step is of order 1 on any grid.

    Raises:
      ValueError: another order or solver type, η < 0, or an invalid grid.
    """
    return _multistep(schedule, grid, order, solver_type, eta, lower_order_final, euler_at_final, predict_x0=True)


@SAMPLERS.register
def dpm_solver(
    schedule: NoiseSchedule,
    grid: ArrayLike,
    *,
    order: int = 2,
    solver_type: str = "midpoint",
    eta: float = 0.0,
    lower_order_final: bool = False,
    euler_at_final: bool = False,
) -> Sampler:
    """Builds the multistep DPM-Solver in ε̂ (Lu et al. 2022a), of order 1, 2 or 3 (diffusers' "dpmsolver").

        x_s = √ᾱ_s/√ᾱ_t·x_t - (1+η)√(1-ᾱ_s)(e^h - 1)·D + √η·√(1-ᾱ_s)·√(e^{2h} - 1)·z,     h = λ_s - λ_t

    D is as in `dpm_solver_pp`, but of ε̂, and so are the order of the first and last steps and that of order 3. A step
    to clean data is x_s = x̂0, also with η > 0.

    Args:
      schedule: the noise schedule.
      grid: `[S+1]`, within -1 … T-1, descending, or ascending with η = 0; it must not begin at ᾱ = 0.
      order: the order of the method, 1, 2 or 3.
      solver_type: how order 2 weights the difference of ε̂: "midpoint" by (e^h - 1)/2, or "heun" by the exact integral
        (e^h - 1)/h - 1.
      eta: η ≥ 0; 0 is the ODE and 1 the SDE ("sde-dpmsolver").
      lower_order_final: whether, on a grid of fewer than 15 steps, the last step is of order 1 and the one before it of
        at most 2 (diffusers).
      euler_at_final: whether the last step is of order 1 on any grid.

    Raises:
      ValueError: another order or solver type, η < 0, or an invalid grid.
    """
    return _multistep(schedule, grid, order, solver_type, eta, lower_order_final, euler_at_final, predict_x0=False)


@SAMPLERS.register
def dpm_solver_pp_singlestep(
    schedule: NoiseSchedule,
    grid: ArrayLike,
    *,
    order: int = 2,
    solver_type: str = "midpoint",
    eta: float = 0.0,
    lower_order_final: bool = True,
) -> Sampler:
    """Builds the singlestep DPM-Solver++ in x̂0 (Lu et al. 2022b, Alg. 1), of order 1, 2 ("2S") or 3 ("3S").

    A step of order k spans k steps of the grid, whose inner points are its stages, and uses no prediction from before
    it (diffusers' DPMSolverSinglestepScheduler). So S steps of the grid make S network calls, and the orders of the
    rows are 1, 2, 3, 1, 2, 3, …: row 2 of such a group starts again from the x of row 1. The formulas are those of
    `dpm_solver_pp` with λ_t at the start of the group; order 3 has the exact second difference in "heun", and in
    "midpoint" uses the first and last stage alone.

    Args:
      schedule: the noise schedule.
      grid: `[S+1]`, descending within -1 … T-1.
      order: the order of the method, 1, 2 or 3.
      solver_type: how differences of x̂0 are weighted, "midpoint" or "heun", as in `dpm_solver_pp`.
      eta: η ≥ 0; 0 is the ODE and 1 the SDE.
      lower_order_final: whether the last group is shorter, so that the last step is of order 1 or completes the grid;
        needed unless S is a multiple of the order.

    Raises:
      ValueError: another order or solver type, η < 0, an invalid grid, or S that is no multiple of the order without
        `lower_order_final`.
    """
    return _singlestep(schedule, grid, order, solver_type, eta, lower_order_final, predict_x0=True)


@SAMPLERS.register
def dpm_solver_singlestep(
    schedule: NoiseSchedule,
    grid: ArrayLike,
    *,
    order: int = 2,
    solver_type: str = "midpoint",
    eta: float = 0.0,
    lower_order_final: bool = True,
) -> Sampler:
    """Builds the singlestep DPM-Solver in ε̂ (Lu et al. 2022a, Alg. 1 and 2), of order 1, 2 or 3.

    It is `dpm_solver_pp_singlestep` with the formulas of `dpm_solver`.

    Args:
      schedule: the noise schedule.
      grid: `[S+1]`, descending within -1 … T-1; it must not begin at ᾱ = 0.
      order: the order of the method, 1, 2 or 3.
      solver_type: how differences of ε̂ are weighted, "midpoint" or "heun", as in `dpm_solver`.
      eta: η ≥ 0; 0 is the ODE and 1 the SDE.
      lower_order_final: whether the last group is shorter, so that the last step is of order 1 or completes the grid;
        needed unless S is a multiple of the order.

    Raises:
      ValueError: another order or solver type, η < 0, an invalid grid, or S that is no multiple of the order without
        `lower_order_final`.
    """
    return _singlestep(schedule, grid, order, solver_type, eta, lower_order_final, predict_x0=False)


def final_orders(order: int, num_steps: int, *, lower_order_final: bool, euler_at_final: bool = False) -> list[int]:
    """Returns the order of each step, lower for the last ones; the first ones are lowered by `usable_orders`."""
    orders = np.full(num_steps, order)
    if lower_order_final and num_steps < FEW_STEPS:
        orders[-2:] = np.minimum(orders[-2:], [2, 1][-num_steps:])
    if euler_at_final:
        orders[-1] = 1
    return orders.tolist()


def _multistep(
    schedule, grid, order, solver_type, eta, lower_order_final, euler_at_final, *, predict_x0: bool
) -> Sampler:
    _check(order, solver_type, eta)
    levels, points = levels_and_lambda(schedule, grid, predict_x0=predict_x0, eta=eta, may_encode=True)
    step = transfer(levels, predict_x0=predict_x0, eta=eta)
    orders = final_orders(order, len(levels.t), lower_order_final=lower_order_final, euler_at_final=euler_at_final)
    weights = np.zeros((len(levels.t), order))
    for i, used in enumerate(usable_orders(points, orders)):
        means = moments(step.y[i], used)
        if used == 2 and solver_type == "midpoint":
            means[1] = 0.5
        if used == 3:
            means[2] /= 2.0
        calls = np.arange(i, i - used, -1)
        p = interpolation(points[calls], points[i], points[i + 1], means)
        weights[i, :used] = step.weight[i] * p
    return table(levels, step, weights, predict_x0=predict_x0)


def _singlestep(schedule, grid, order, solver_type, eta, lower_order_final, *, predict_x0: bool) -> Sampler:
    _check(order, solver_type, eta)
    levels, points = levels_and_lambda(schedule, grid, predict_x0=predict_x0, eta=eta)
    num_steps = len(levels.t)
    orders = usable_orders(points, _group_orders(order, num_steps, lower_order_final), singlestep=True)
    starts = np.arange(num_steps) - orders + 1
    spans = Levels(levels.t[starts], levels.s, levels.ab_t[starts], levels.ab_s)
    step = transfer(spans, predict_x0=predict_x0, eta=eta)
    predictions = np.zeros((num_steps, order))  # weights by the age of the call
    for i, (start, used) in enumerate(zip(starts, orders, strict=True)):
        calls = np.arange(start, i + 1)
        if solver_type == "midpoint" and used == 3:
            calls = calls[[0, 2]]
        means = moments(step.y[i], len(calls))
        if solver_type == "midpoint" and used == 2:
            means[1] = 0.5
        p = interpolation(points[calls], float(points[start]), points[i + 1], means)
        predictions[i, i - calls] = step.weight[i] * p
    # The x of an earlier call is √ᾱ·x̂0 + √(1-ᾱ)·ε̂.
    first = np.array(orders) == 1
    again = np.zeros((num_steps, order))
    again[np.arange(num_steps), np.array(orders) - 1] = np.where(first, 0.0, step.a)
    x0 = again * np.sqrt(spans.ab_t)[:, None] + (predictions if predict_x0 else 0.0)
    eps = again * np.sqrt(1.0 - spans.ab_t)[:, None] + (0.0 if predict_x0 else predictions)
    return one_call_a_step(
        levels,
        a=np.where(first, step.a, 0.0),
        b=x0[:, 0],
        c=eps[:, 0],
        d=step.d,
        x0_history=x0[:, 1:],
        eps_history=eps[:, 1:],
    )


def _group_orders(order: int, num_steps: int, lower_order_final: bool) -> list[int]:
    """Returns the order of each row: 1 … order for each group, the last of which may be shorter."""
    if not lower_order_final and num_steps % order:
        raise ValueError(
            f"lower_order_final=False needs a number of steps that is a multiple of order={order}, not {num_steps}"
        )
    orders = list(itertools.islice(itertools.cycle(range(1, order + 1)), num_steps))
    if lower_order_final and num_steps % order == 0:
        orders[-1] = 1
    return orders


def _check(order: int, solver_type: str, eta: float) -> None:
    check_choice("order", order, (1, 2, 3))
    check_choice("solver_type", solver_type, ("midpoint", "heun"))
    check_eta("eta", eta)
