"""Times functions in turn, and formats the comparisons as rows of a table."""

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
    """Raised for a row that cannot be measured here; the message is the reason."""


class Row(NamedTuple):
    """Two things compared, with one value of each per turn."""

    measured: str
    other: str
    values: list[float]
    others: list[float]
    unit: str = "s"

    @property
    def ratios(self) -> list[float]:
        """The other's value divided by the measured one; above 1, the measured one is faster or smaller."""
        return [other / value for value, other in zip(self.values, self.others, strict=True)]


def record(row: Row) -> dict[str, Any]:
    """Returns a row for JSON."""
    return {**row._asdict(), "ratio": statistics.median(row.ratios)}


def markdown(row: Row) -> str:
    """Returns a row of the Markdown table."""
    cells = [_spread(row.ratios), *(f"{_spread(column)} {row.unit}" for column in (row.values, row.others))]
    return f"| {row.measured} | {row.other} | {' | '.join(cells)} |"


def take(functions: dict[str, Callable[[], Any]], repeats: int, least: float = 0.1) -> dict[str, list[float]]:
    """Returns the seconds per call of each function, timed in turn, so that a slow phase of the machine affects all.

    Each function is called once before it is timed. In each turn it is called until it has taken `least` seconds, or as
    long as one call of the slowest: the first call after another function is slower, which must not favour any of them.
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
    """Returns the seconds per call, the mean of `count` calls."""
    start = time.perf_counter()
    for _ in range(count):
        jax.block_until_ready(function())
    return (time.perf_counter() - start) / count


def scaled(times: list[float], factor: float) -> list[float]:
    """Returns each value multiplied by a factor."""
    return [factor * t for t in times]


def _spread(values: list[float]) -> str:
    low, middle, high = (f"{value:.3g}" for value in (min(values), statistics.median(values), max(values)))
    return middle if low == high else f"{middle} ({low} … {high})"
