"""Compares diffjax's samplers with PyTorch's, number for number, along whole trajectories.

python experiments/crosscheck.py [--dtype both|float64|float32] [--quick] [--json FILE]

Takes 1 to 3 minutes on 2 cores (less with --quick, without the 1000-step runs), and prints one row per comparison:
‖Δ‖₂/‖ref‖₂ at the worst grid point, which passes up to 1e-6 in float64 and 1e-5 in float32. Both sides use the same
noise and call the same stand-in network, and both take their coefficients from float64 tables in either dtype; the
percentage beside a clip is the share of x̂0's values that it clips. The counterparts are diffusers, with its float32
tables overwritten in float64, k-diffusion's and azula's samplers, and ER-SDE-Solvers and the tutorial codes S0, S3 and
S4 rewritten by formula (experiments/torch_reference).
Rows marked "by design" show how large a difference of conventions is; they do not count. Exit status 1 if a row fails.
Without PyTorch nothing is compared; without diffusers, k-diffusion or azula, their rows are left out.
"""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

INSTALL = {"diffusers": "'.[parity]'", "k_diffusion": "--no-deps k-diffusion", "azula": "--no-deps azula"}
COLUMNS = ("schedule", "grid", "steps", "sampler", "η", "clip", "counterpart")


def main() -> int:
    """Parses the command line, runs the comparison, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("both", "float64", "float32"), default="both")
    parser.add_argument("--quick", action="store_true", help="leave out the 1000-step runs")
    parser.add_argument("--json", type=Path, help="a file for the same rows, as a list of objects")
    args = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        print("crosscheck: skipped, PyTorch is not installed (pip install '.[parity]')")
        return 0
    from diffjax.cli import launch
    from torch_reference.rows import ROWS

    launch.start()
    rows = [row for row in ROWS if row.is_quick or not args.quick]
    for package, install in INSTALL.items():
        if importlib.util.find_spec(package) is None:
            print(f"crosscheck: rows against {package} skipped, it is not installed (pip install {install})")
            rows = [row for row in rows if row.package != package]
    dtypes = ("float64", "float32") if args.dtype == "both" else (args.dtype,)
    records = compare_all(rows, dtypes)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n")
    return int(any(record["result"].startswith("FAILED") for record in records))


def compare_all(rows, dtypes) -> list[dict]:
    """Runs rows in the given dtypes, prints each when it is done, and returns them as records."""
    from torch_reference import compare

    widths = [max(len(name), *(len(cell) for cell in column)) for name, column in _columns(rows)]
    _print([*COLUMNS, *dtypes, "result"], widths)
    _print(["-" * width for width in [*widths, *[7] * len(dtypes), 6]], widths)
    records = []
    for row in rows:
        outcomes = {dtype: compare.run(row, dtype) for dtype in dtypes}
        problems = [f"{dtype} {what}" for dtype, o in outcomes.items() if (what := compare.problem(row, dtype, o))]
        clipped = min(outcome.clipped for outcome in outcomes.values())
        result = "FAILED: " + ", ".join(problems) if problems else f"by design: {row.by_design}" * bool(row.by_design)
        errors = {dtype: outcome.error for dtype, outcome in outcomes.items()}
        cells = _cells(row, clipped)
        _print([*cells, *(f"{error:.1e}" for error in errors.values()), result or "ok"], widths)
        records.append(dict(zip(COLUMNS, cells, strict=True)) | errors | {"clipped": clipped, "result": result or "ok"})
    print(_summary(records, dtypes))
    return records


def _summary(records, dtypes):
    agree = [record for record in records if record["result"] == "ok"]
    worst = ", ".join(f"{dtype} {max((record[dtype] for record in agree), default=0):.1e}" for dtype in dtypes)
    by_design = sum(record["result"].startswith("by design") for record in records)
    clipping = sum(record["clipped"] > 0 for record in records)
    return (
        f"\n{len(agree)} rows agree (worst: {worst}), {by_design} differ by design, "
        f"{len(records) - len(agree) - by_design} failed; clipping is at work in {clipping} of {len(records)}"
    )


def _columns(rows):
    return zip(COLUMNS, zip(*(_cells(row, 0.0) for row in rows), strict=True), strict=True)


def _cells(row, clipped):
    eta = "-" if row.eta is None else f"{row.eta:g}"
    clip = "-" if row.clip is None else f"{row.clip:.1f} ({clipped:4.0%})"
    return [row.schedule, row.grid, f"{row.steps}", row.sampler, eta, clip, row.counterpart]


def _print(cells, widths):
    widths = [*widths, *[7] * (len(cells) - len(widths) - 1), 0]
    print("| " + " | ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
