"""Things timed in turn, and what is told of them."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

HEADER = (
    "| measured | compared with | ratio (min … max) | measured: median (min … max) | the other |\n|---|---|---|---|---|"
)


class LeftOutError(Exception):
    """A row that cannot be measured here, and why."""


class Row(NamedTuple):
    """Two things compared, turn by turn."""

    measured: str
    other: str
    values: list[float]
    others: list[float]
    unit: str = "s"

    @property
    def ratios(self) -> list[float]:
        """The other's over what is measured: above 1, the latter is the faster or the smaller."""
        return [other / value for value, other in zip(self.values, self.others, strict=True)]


def record(row: Row) -> dict[str, Any]:
    """A row for JSON."""
    return {**row._asdict(), "ratio": statistics.median(row.ratios)}


def markdown(row: Row) -> str:
    """A row for the table."""
    cells = [_spread(row.ratios), *(f"{_spread(column)} {row.unit}" for column in (row.values, row.others))]
    return f"| {row.measured} | {row.other} | {' | '.join(cells)} |"


def take(functions: dict[str, Callable[[], Any]], repeats: int, least: float = 0.1) -> dict[str, list[float]]:
    """Seconds a call of each function, in turn, so that a slow spell of the machine meets them all.

    Each is called once before the clock starts; in each turn, waited for, as often as it takes to fill `least` seconds
    or what one call of the slowest takes: the first call after another function is slower, and none is to gain by that.
    """
    times = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function())
    once = {name: seconds(function) for name, function in functions.items()}
    least = max(least, *once.values())
    counts = {name: math.ceil(least / taken) for name, taken in once.items()}
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(seconds(function, counts[name]))
    return times


def seconds(function: Callable[[], Any], count: int = 1) -> float:
    """Seconds a call, the mean of `count`."""
    start = time.perf_counter()
    for _ in range(count):
        jax.block_until_ready(function())
    return (time.perf_counter() - start) / count


def scaled(times: list[float], factor: float) -> list[float]:
    """Each times a factor."""
    return [factor * t for t in times]


def _spread(values: list[float]) -> str:
    low, middle, high = (f"{value:.3g}" for value in (min(values), statistics.median(values), max(values)))
    return middle if low == high else f"{middle} ({low} … {high})"
