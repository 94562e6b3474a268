"""Prints, as Markdown tables, how reads of damaged files and wrong calls end.

python tests/cli/counts.py [WORKDIR]      with a run of its own if no trained one is given; takes some minutes
"""

import collections
import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

import damage
import wrong_calls

from diffjax.cli import launch
from diffjax.runs import config_files, resolve
from diffjax.runs.train import train

TINY = {
    "model.base_channels": 8, "model.channel_mults": (1,), "model.num_res_blocks": 1, "optimizer.warmup_steps": 1,
    "train.steps": 4, "train.batch_size": 8, "train.log_every": 1, "train.final_pictures": False, "sample.num_steps": 2,
}  # fmt: skip


def of_damage(folder: Path, workdir: Path, most: int = 1500) -> str:
    """Returns the table of damaged files, each damaged at `most` places."""
    lines = [f"| file | bytes | damages | {' | '.join(damage.OUTCOMES)} |", "|---" * (3 + len(damage.OUTCOMES)) + "|"]
    total = collections.Counter()
    for name, kind in damage.kinds(folder, workdir).items():
        counts = damage.count(kind, most)
        total += counts
        lines.append(_row(name, kind.path.stat().st_size, counts.total(), *map(counts.get, damage.OUTCOMES)))
    return "\n".join([*lines, _row("all", "", total.total(), *map(total.get, damage.OUTCOMES))])


def of_wrong_calls(folder: Path, workdir: Path) -> str:
    """Returns the table of wrong calls."""
    lines, total = ["| command | wrong calls | exit status 1 | exit status 2 | traceback |", "|---" * 5 + "|"], []
    (folder / "out").mkdir(parents=True)
    os.chdir(folder)
    launch.start = lambda **_: None
    for name, arguments in wrong_calls.right_calls(workdir, folder).items():
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            counts = wrong_calls.count(name, arguments)
        total.append(counts)
        lines.append(_row(name, counts.total(), counts[1], counts[2], 0))
    every = sum(total, collections.Counter())
    return "\n".join([*lines, _row("all", every.total(), every[1], every[2], 0)])


def _row(*cells: str | int | None) -> str:
    return "| " + " | ".join(cell if isinstance(cell, str) else f"{cell or 0:,}" for cell in cells) + " |"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        run = Path(sys.argv[1]).resolve() if sys.argv[1:] else Path(temporary) / "run"
        if not sys.argv[1:]:
            train(resolve.override(config_files.load("digits"), TINY), run, progress=False)
        print(of_wrong_calls(Path(temporary) / "calls", run), flush=True)
        print(of_damage(Path(temporary) / "files", run))
