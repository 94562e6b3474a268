"""Figures that can be defended: each goes with the protocol that it was made by, into JSON and a table."""

import dataclasses
from typing import Any, NamedTuple


class Figure(NamedTuple):
    """A number, with what helps to judge it where there is any."""

    value: float
    std: float | None = None
    """Its standard deviation over parts or subsets."""
    floor: float | None = None
    """What as many real images would get."""
    error: float | None = None
    """The standard error of a mean."""

    def __str__(self) -> str:
        spread = "" if self.std is None else f" ± {self.std:.2g}"
        spread += "" if self.error is None else f" ± {self.error:.2g} (s.e.)"
        return f"{self.value:.4g}{spread}" + ("" if self.floor is None else f" (real: {self.floor:.4g})")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What a figure depends on beside the model. Nothing has a default: what is not known has to be said."""

    samples: str
    """What was evaluated: a workdir and its step, a folder, a file."""
    num: int
    """How many samples."""
    reference: str
    """Which real images, of which split, and how many."""
    extractor: dict[str, Any]
    """`Extractor.protocol`: its name and its resize."""
    rounding: str
    """How samples became uint8: "nearest", "truncated", "unknown"."""
    ema: str
    """Which parameters: "EMA 0.9999", "raw", "unknown"."""
    sampler: str
    """With steps, grid, η, clipping; "unknown" for images from elsewhere."""
    seed: int | None
    """Of the samples; None is unknown."""

    def cells(self) -> dict[str, str]:
        """As columns of a table."""
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
    """For JSON: `{"figures": {name: {"value": …, …}}, "protocol": {…}}`; what is None in a figure is left out."""
    return {
        "figures": {
            name: {key: value for key, value in figure._asdict().items() if value is not None}
            for name, figure in figures.items()
        },
        "protocol": dataclasses.asdict(protocol),
    }


def from_record(saved: dict[str, Any]) -> tuple[dict[str, Figure], Protocol]:
    """What `record` was given."""
    return {name: Figure(**figure) for name, figure in saved["figures"].items()}, Protocol(**saved["protocol"])


def markdown(rows: list[tuple[dict[str, Figure], Protocol]]) -> str:
    """A Markdown table: a row for each (figures, protocol), figures first; a figure that a row lacks is a dash."""
    names = list(dict.fromkeys(name for figures, _ in rows for name in figures))
    header = names + list(rows[0][1].cells())
    lines = [header, ["---"] * len(header)]
    for figures, protocol in rows:
        lines.append([str(figures.get(name, "–")) for name in names] + list(protocol.cells().values()))
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)
