"""Builds a `Sampler` from a solver that is written step by step, as its paper writes it.

    recorder = Recorder()
    x = recorder.start
    for level, next_level in itertools.pairwise(levels):
        call = recorder.call(x, level)                       # one row: a network call at x
        x = next_level.signal * call.x0 + next_level.noise * call.eps
    sampler = recorder.finish(x, levels[-1])

`x`, `x0`, `eps` and `z` are linear expressions, and a solver may use those of any earlier call too. A row of a table
holds only its own x and earlier x̂0 and ε̂, so `finish` rewrites what else an expression has: an earlier x is
√ᾱ·x̂0 + √(1-ᾱ)·ε̂ of its row (which holds for a clipped x̂0 as well, since ε̂ is derived from it again), and an earlier z
follows from the x of the row after it.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler


class Level(NamedTuple):
    """A point of a schedule: a time, √ᾱ and √(1-ᾱ)."""

    t: float
    signal: float
    noise: float

    @property
    def sigma_bar(self) -> float:
        """σ̄ = √((1-ᾱ)/ᾱ); infinite without signal."""
        return self.noise / self.signal if self.signal > 0.0 else np.inf

    @property
    def half_log_snr(self) -> float:
        """λ = log(√ᾱ/√(1-ᾱ)), DPM-Solver's time; infinite at clean data, -infinite without signal."""
        with np.errstate(divide="ignore"):
            return float(np.log(self.signal) - np.log(self.noise))


def level_at(schedule: NoiseSchedule, t: ArrayLike) -> Level:
    """Returns the level of a schedule at an index or a real time."""
    t = np.asarray(t)
    alpha_bar = float(schedule.alpha_bar_at(t))
    return Level(t=t.item(), signal=float(np.sqrt(alpha_bar)), noise=float(np.sqrt(1.0 - alpha_bar)))


def level_of_sigma(schedule: NoiseSchedule, sigma_bar: float) -> Level:
    """Returns the level with noise level σ̄ = √((1-ᾱ)/ᾱ), at a real time."""
    scale = 1.0 / np.hypot(1.0, sigma_bar)
    return Level(t=float(schedule.timestep_at(sigma_bar)), signal=float(scale), noise=float(sigma_bar * scale))


class Expression:
    """A linear combination of the x, x̂0, ε̂ and z of calls, by (kind, number of the call)."""

    def __init__(self, terms: Mapping[tuple[str, int], float]):
        self.terms = dict(terms)

    def __add__(self, other: "Expression | int") -> "Expression":
        if isinstance(other, int) and other == 0:  # the start of sum(…)
            return self
        if not isinstance(other, Expression):
            return NotImplemented
        keys = [*self.terms, *(key for key in other.terms if key not in self.terms)]
        return Expression({key: self.terms.get(key, 0.0) + other.terms.get(key, 0.0) for key in keys})

    __radd__ = __add__

    def __mul__(self, factor: float) -> "Expression":
        return Expression({key: float(factor) * value for key, value in self.terms.items()})

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "Expression":
        return Expression({key: value / float(divisor) for key, value in self.terms.items()})

    def __neg__(self) -> "Expression":
        return -1.0 * self

    def __sub__(self, other: "Expression") -> "Expression":
        return self + -other


class Call(NamedTuple):
    """A network call, one row of the table: its input x, its predictions, and the noise z that its row may add."""

    level: Level
    x: Expression
    x0: Expression
    eps: Expression
    z: Expression


class _Row(NamedTuple):
    x: Expression  # the input, in terms of the calls before
    level: Level
    t: float
    t_net: float
    on_grid: bool


class Recorder:
    """Records the calls of a solver; see the module's text."""

    start = Expression({("x", 0): 1.0})
    """The initial x, at the level of the first call."""

    def __init__(self):
        self._rows: list[_Row] = []

    def call(
        self, x: Expression, level: Level, *, t: float | None = None, t_net: float | None = None, on_grid: bool = True
    ) -> Call:
        """Records a network call at `x`, which has the given level.

        Args:
          x: the input; `start` for the first call.
          level: the level of x.
          t: the time that the table shows for the level; None: the level's own.
          t_net: the time that the network is called with; None: that of the level, or 0 at clean data.
          on_grid: whether x is a result of a step, and not of a stage within one.
        """
        shown = level.t if t is None else t
        number = len(self._rows)
        self._rows.append(_Row(x, level, shown, max(level.t, 0) if t_net is None else t_net, on_grid))
        return Call(level, *(Expression({(kind, number): 1.0}) for kind in ("x", "x0", "eps", "z")))

    def finish(self, x: Expression, level: Level, *, dtype: np.dtype | type = np.float64) -> Sampler:
        """Builds the table whose last row leads to `x` at `level`.

        Args:
          x: the result.
          level: the level of the result, the last point of the grid.
          dtype: the dtype of the times, that of the grid.

        An expression may have the z of an earlier row whose own coefficient is 0; it then counts as 0.
        """
        rows = [*self._rows, _Row(x, level, level.t, 0.0, True)]
        results = [self._reduced(row.x, number) for number, row in enumerate(rows[1:])]

        def coefficients(kind):
            return np.array([result.terms.get((kind, number), 0.0) for number, result in enumerate(results)])

        def history(kind):
            lags = [number - of for number, result in enumerate(results) for k, of in result.terms if k == kind]
            table = np.zeros((len(results), max(lags, default=0)))
            for number, result in enumerate(results):
                for (k, of), value in result.terms.items():
                    if k == kind and of < number:
                        table[number, number - of - 1] = value
            return table

        before, after = rows[:-1], rows[1:]
        return Sampler(
            t_net=np.array([row.t_net for row in before], dtype),
            t_from=np.array([row.t for row in before], dtype),
            t_to=np.array([row.t for row in after], dtype),
            lands=np.array([row.on_grid for row in after]),
            signal=np.array([row.level.signal for row in before]),
            noise=np.array([row.level.noise for row in before]),
            signal_to=np.array([row.level.signal for row in after]),
            noise_to=np.array([row.level.noise for row in after]),
            a=coefficients("x"),
            b=coefficients("x0"),
            c=coefficients("eps"),
            d=coefficients("z"),
            x0_history=history("x0"),
            eps_history=history("eps"),
        )

    def _reduced(self, expression: Expression, number: int) -> Expression:
        """Rewrites the result of row `number` by the row's own x and z, and the x̂0 and ε̂ up to the row."""
        rest = {key: value for key, value in expression.terms.items() if not self._is_earlier(key, number)}
        total = Expression(rest)
        for (kind, of), value in expression.terms.items():
            if self._is_earlier((kind, of), number):
                total = total + value * (self._earlier_x(of) if kind == "x" else self._earlier_z(of, number))
        return total

    @staticmethod
    def _is_earlier(key: tuple[str, int], number: int) -> bool:
        return key[0] in ("x", "z") and key[1] < number

    def _earlier_x(self, of: int) -> Expression:
        level = self._rows[of].level
        return Expression({("x0", of): level.signal, ("eps", of): level.noise})

    def _earlier_z(self, of: int, number: int) -> Expression:
        """Solves the result of row `of`, which is the x of the row after it, for its z."""
        result = self._rows[of + 1].x
        scale = result.terms.get(("z", of), 0.0)
        others = Expression({key: value for key, value in result.terms.items() if key != ("z", of)})
        if scale == 0.0:
            # Without noise no row depends on z; the terms stay, so that the table keeps its shape.
            return 0.0 * self._reduced(Expression({("x", of + 1): 1.0}) - others, number)
        return self._reduced((Expression({("x", of + 1): 1.0}) - others) / scale, number)
