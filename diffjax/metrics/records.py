"""Records of figures with the protocol by which they were computed, as JSON and as rows of a table."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np


class Figure(NamedTuple):
    """A number, with the facts that help to judge it; an unknown fact is None."""

    value: float
    std: float | None = None
    """The standard deviation over parts, subsets or images."""
    floor: float | None = None
    """The value for the same number of real images."""
    error: float | None = None
    """The standard error of a mean."""

    def __str__(self) -> str:
        spread = "" if self.std is None else f" ± {self.std:.2g}"
        spread += "" if self.error is None else f" ± {self.error:.2g} (s.e.)"
        return f"{self.value:.4g}{spread}" + ("" if self.floor is None else f" (real: {self.floor:.4g})")


def mean_and_std(values: np.ndarray) -> Figure:
    """Returns the mean of values `[N]` with their (population) standard deviation."""
    return Figure(float(np.mean(values)), float(np.std(values)))


def mean_and_error(values: np.ndarray) -> Figure:
    """Returns the mean of values `[N]` with its standard error, for N > 1."""
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return Figure(float(np.mean(values)), error=error)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What a figure depends on besides the model. No field has a default: unknown values must be given as such."""

    samples: str
    """What was measured: a workdir and its step, a folder, a file."""
    num: int
    """The number of samples."""
    reference: str
    """Which real images, of which split, and how many."""
    extractor: dict[str, Any]
    """`Extractor.protocol`: its name and its resize."""
    rounding: str
    """How samples became uint8: "nearest", "truncated", "unknown"."""
    ema: str
    """Which parameters: "EMA 0.9999", "raw", "unknown"."""
    sampler: str
    """The sampler with its steps, grid, η and clipping; "unknown" for images from elsewhere."""
    seed: int | None
    """The seed of the samples; None is unknown."""

    def cells(self) -> dict[str, str]:
        """Returns the protocol as columns of a table."""
        return {
            "samples": self.samples,
            "N": str(self.num),
            "reference": self.reference,
            "extractor": self.extractor["extractor"],
            "resize": self.extractor["resize"],
            "rounding": self.rounding,
            "parameters": self.ema,
            "sampler": self.sampler,
            "seed": "unknown" if self.seed is None else str(self.seed),
        }


def record(figures: dict[str, Figure], protocol: Protocol) -> dict[str, Any]:
    """Returns `{"figures": {name: {"value": …, …}}, "protocol": {…}}` for JSON, without the fields that are None."""
    return {
        "figures": {
            name: {key: value for key, value in figure._asdict().items() if value is not None}
            for name, figure in figures.items()
        },
        "protocol": dataclasses.asdict(protocol),
    }


def from_record(saved: dict[str, Any]) -> tuple[dict[str, Figure], Protocol]:
    """Returns the arguments of `record`, from its result."""
    return {name: Figure(**figure) for name, figure in saved["figures"].items()}, Protocol(**saved["protocol"])


def markdown(rows: list[tuple[dict[str, Figure], Protocol]]) -> str:
    """Returns a Markdown table with a row for each (figures, protocol); a figure that a row lacks is a dash."""
    names = list(dict.fromkeys(name for figures, _ in rows for name in figures))
    header = names + list(rows[0][1].cells())
    lines = [header, ["---"] * len(header)]
    for figures, protocol in rows:
        lines.append([str(figures.get(name, "–")) for name in names] + list(protocol.cells().values()))
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)
