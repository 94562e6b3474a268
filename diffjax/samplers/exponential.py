"""Exponential integrators in λ = log(√ᾱ/√(1-ᾱ)): what DPM-Solver, UniPC, DEIS and SA-Solver share.

A step from level t to level s, with h = λ_s - λ_t, solves the linear part of the equation exactly and integrates a
polynomial in λ through the predictions m of several calls (m is x̂0, or ε̂):

    x_s = a·x_t + w·Σ_k p_k·m_k + d·z,     Σ_k p_k·((λ_k - λ_t)/h)^j = M_j,     M_j = j!·φ_{j+1}(y)/φ_1(y)

    of x̂0:  a = e^{-ηh}·√(1-ᾱ_s)/√(1-ᾱ_t),  w = √ᾱ_s(1 - e^{-(1+η)h}),      d = √(1-ᾱ_s)·√(1 - e^{-2ηh}),   y = -(1+η)h
    of ε̂:   a = √ᾱ_s/√ᾱ_t,                  w = -(1+η)√(1-ᾱ_s)(e^h - 1),     d = √η·√(1-ᾱ_s)·√(e^{2h} - 1),  y = h

φ_1(y) = (e^y - 1)/y and φ_{k+1}(y) = (φ_k(y) - 1/k!)/y. With the M_j above the polynomial is integrated exactly; the
methods differ in the calls that they use, and some replace an M_j by a value that is equal to leading order in h. η = 0
is the probability-flow ODE, and η = 1 the reverse SDE of the forward process.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffjax.samplers.base import check_signal, descending, levels_of, sigma_bar
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Levels, Sampler, one_call_a_step


class Transfer(NamedTuple):
    """The coefficients of steps, `[S]` each: x_s = a·x_t + weight·Σ p_k·m_k + from_clean·ε̂ + d·z."""

    a: np.ndarray
    weight: np.ndarray
    from_clean: np.ndarray
    d: np.ndarray
    y: np.ndarray


def levels_and_lambda(
    schedule: NoiseSchedule, grid: ArrayLike, *, predict_x0: bool, eta: ArrayLike = 0.0, may_encode: bool = False
) -> tuple[Levels, np.ndarray]:
    """Returns the levels of a grid's steps, and λ at its S + 1 points (infinite at clean data and without signal).

    Raises:
      ValueError: an invalid grid; one that ascends, unless `may_encode` and η = 0; or, for a method in ε̂, a step from
        ᾱ = 0.
    """
    levels = levels_of(schedule, grid) if may_encode and not np.any(eta) else descending(schedule, grid)
    if not predict_x0:
        check_signal(levels.ab_t)
    with np.errstate(divide="ignore"):
        return levels, -np.log(sigma_bar(np.append(levels.ab_t, levels.ab_s[-1])))


def transfer(levels: Levels, *, predict_x0: bool, eta: ArrayLike = 0.0) -> Transfer:
    """Returns the coefficients of steps by the module's formulas.

    A step to clean data is x_s = x̂0, and the step from clean data x_s = √ᾱ_s·x̂0 + √(1-ᾱ_s)·ε̂.

    Args:
      levels: the levels that the steps lead from and to.
      predict_x0: whether m is x̂0, and not ε̂.
      eta: η, a number or one for each step.
    """
    eta = np.broadcast_to(np.asarray(eta, np.float64), levels.ab_t.shape)
    signal_t, signal_s = np.sqrt(levels.ab_t), np.sqrt(levels.ab_s)
    noise_t, noise_s = np.sqrt(1.0 - levels.ab_t), np.sqrt(1.0 - levels.ab_s)
    from_clean = levels.ab_t == 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        h = np.log(sigma_bar(levels.ab_t)) - np.log(sigma_bar(levels.ab_s))
        if predict_x0:
            decay = np.where(eta > 0.0, eta * h, 0.0)
            a = np.where(from_clean, 0.0, np.sqrt((1.0 - levels.ab_s) / (1.0 - levels.ab_t)) * np.exp(-decay))
            return Transfer(
                a=a,
                weight=signal_s - signal_t * a,
                from_clean=np.where(from_clean, noise_s, 0.0),
                d=noise_s * np.sqrt(-np.expm1(-2.0 * decay)),
                y=-(1.0 + eta) * h,
            )
    a = signal_s / signal_t
    eta = np.where(levels.ab_s == 1.0, 0.0, eta)
    return Transfer(
        a=a,
        weight=(1.0 + eta) * (noise_s - a * noise_t),
        from_clean=np.zeros_like(a),
        d=np.sqrt(eta * np.maximum((a * noise_t) ** 2 - noise_s**2, 0.0)),
        y=h,
    )


def usable_orders(half_log_snr: np.ndarray, orders: Sequence[int], *, singlestep: bool = False) -> list[int]:
    """Returns the order of each step, lowered to the calls that have a finite λ unlike that of the call before.

    Step i of order o uses the calls i - o + 1 … i. Where its own h is infinite or 0, its order is 1; the step of a
    singlestep method, which begins at the first of these calls, may also end at the λ of the last one.
    """
    usable = []
    for i, wanted in enumerate(orders):
        order = min(wanted, i + 1)
        while order > 1:
            points = half_log_snr[i - order + 1 : i + 2]
            if singlestep and points[-1] == points[-2]:
                points = points[:-1]
            if _are_distinct(points):
                break
            order -= 1
        usable.append(order)
    return usable


def _are_distinct(points: np.ndarray) -> bool:
    return bool(np.all(np.isfinite(points)) and np.all(np.diff(points) != 0.0))


def moments(y: float, count: int) -> np.ndarray:
    """Returns M_0 … M_{count-1} of the module's text; M_0 is 1, also at an infinite y."""
    if count == 1:
        return np.ones(1)
    phi = _phi(y, count)
    return np.array([math.factorial(j) for j in range(count)]) * phi / phi[0]


def _phi(y: float, count: int) -> np.ndarray:
    """Returns φ_1(y) … φ_count(y): a series for small y, where the recursion cancels."""
    if abs(y) < 1.0:
        return np.array([sum(y**n / math.factorial(n + k) for n in range(20)) for k in range(1, count + 1)])
    phi = [np.expm1(y) / y]
    for k in range(1, count):
        phi.append((phi[-1] - 1.0 / math.factorial(k)) / y)
    return np.array(phi)


def interpolation(calls: np.ndarray, start: float, end: float, means: np.ndarray) -> np.ndarray:
    """Returns the p_k of the module's text.

    Args:
      calls: λ_k of each call; with two calls the first must be at `start`.
      start: λ_t.
      end: λ_s.
      means: M_0, M_1, …, as many as there are calls.
    """
    if len(calls) == 1:
        return np.ones(1)
    distances, h = calls - start, end - start
    if len(calls) == 2:
        second = means[1] * h / distances[1]
        return np.array([1.0 - second, second])
    return np.linalg.solve(np.vander(distances / h, increasing=True).T, means)


def corrected(step: Transfer, predictor: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Returns the weights of the predictions in the rows of a predictor-corrector method, `[S, K + 1]`.

    A corrector makes x_s again from the same x_t and z once m_s is known. So it adds to x the difference of both sums
    of predictions, without another call: row i + 1 starts from x + Σ_k change[i, k]·m_k.

    Args:
      step: the coefficients of the steps.
      predictor: the weights of m_t and those before it, `[S, K]`.
      change: corrector less predictor: of m_s, m_t and those before it, `[S, K + 1]`.
    """
    weights = np.pad(predictor, ((0, 0), (0, 1)))
    weights[1:] += step.a[1:, None] * change[:-1]
    return weights


def table(levels: Levels, step: Transfer, weights: np.ndarray, *, predict_x0: bool) -> Sampler:
    """Builds the table of one call a step whose predictions, newest first, have the given weights `[S, K]`."""
    if predict_x0:
        return one_call_a_step(
            levels, a=step.a, b=weights[:, 0], c=step.from_clean, d=step.d, x0_history=weights[:, 1:]
        )
    return one_call_a_step(levels, a=step.a, c=weights[:, 0], d=step.d, eps_history=weights[:, 1:])


def check_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Checks an option with few values.

    Raises:
      ValueError: a value that is not allowed.
    """
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}")


def check_eta(name: str, value: float) -> None:
    """Checks a factor of the noise.

    Raises:
      ValueError: a number below 0, or one that is not finite.
    """
    if not 0.0 <= value < np.inf:
        raise ValueError(f"{name}={value} must be ≥ 0 and finite")
