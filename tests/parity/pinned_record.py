"""What one pinned loop of diffusers is, and how the records of a file are made."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Pinned(NamedTuple):
    """One pinned loop of a diffusers scheduler: how it is driven, and the sum and mean of |x| that it must end with.

    Fields:
      test: `file::name`, the test `test_<name>` of `tests/schedulers/test_scheduler_<file>.py` (`unipc_1d`: of the
        class for one dimension in `test_scheduler_unipc.py`).
      scheduler: the class of diffusers.
      config: all arguments that the test gives to the class.
      num_steps: what `set_timesteps` is asked for; None where the test calls it otherwise or not at all, which leaves
        all timesteps of training.
      timesteps: those handed to `set_timesteps` instead of a number.
      through: classes that the config is handed through by `from_config` before the loop is run; the last is
        `scheduler` again.
      shape: of the state, `[4, 3, 8]` in tests of one dimension and `[4, 3, 8, 8]` in all others.
      scaled_start: the loop starts at x · `init_noise_sigma`, not at x.
      scaling: what becomes of `scale_model_input(x)`. "unused": it is not called; "network": the network sees it and
        the state is kept; "state": it also replaces the state, which the scheduler does not expect.
      start: the loop skips so many of the scheduler's timesteps (those of Heun and KDPM2 have both calls of a step).
      noised: x is noised to the first timestep by `add_noise` with the numbered noise, before the loop.
      passes: the loop runs so many times over all timesteps; the history of outputs is kept, the step index set anew.
      kind: "loop"; "batch": no loop but one `batch_step_no_noise` of x, x + 0.1 and x - 0.1 at t = 0, 1 and 2;
        "corrected": at each timestep a correction and a prediction, with a call of network(x, σ) each.
      noise: where z comes from. "": none is drawn; "generator": standard normal z in float32 of the state's shape from
        a CPU generator with `seed`; "brownian": increments of a Brownian tree over σ with `seed`, from one σ to the
        next, divided by the square root of their distance.
      seed: of the noise.
      draws: the scheduler calls (0 is the first of the loop) that draw one z each, in the order drawn.
      sum: of |x| over all values at the end, None where only the mean is pinned.
      sum_atol: the absolute tolerance of the sum.
      mean, mean_atol: the mean of |x| and its absolute tolerance.
      float64_sum: what the sum is with all of diffusers' formulas in float64 and the same z.
    """

    test: str
    scheduler: str
    config: dict[str, Any]
    num_steps: int | None
    timesteps: tuple[int, ...] | None
    through: tuple[str, ...]
    shape: tuple[int, ...]
    scaled_start: bool
    scaling: str
    start: int
    noised: bool
    passes: int
    kind: str
    noise: str
    seed: int | None
    draws: Sequence[int]
    sum: float | None
    sum_atol: float
    mean: float
    mean_atol: float
    float64_sum: float


def missed(record, total):
    """Why a sum of |x| does not meet what is pinned, in one line; "" where it does."""
    mean = total / (math.prod(record.shape) * (3 if record.kind == "batch" else 1))
    if record.sum is not None and not abs(total - record.sum) < record.sum_atol:
        return f"{record.test}: sum={total} must be {record.sum} within {record.sum_atol}"
    if not abs(mean - record.mean) < record.mean_atol:
        return f"{record.test}: mean={mean} must be {record.mean} within {record.mean_atol}"
    return ""


FLOAT64_SUMS: dict[str, float] = json.loads(Path(__file__).with_name("pinned_float64_sums.json").read_text())
"""`float64_sum` by test: `pinned_loops.run_diffusers(record, dtype="float64").sum`, by diffusers 0.42.1."""

DEFAULTS: dict[str, Any] = {
    "config": {},
    "num_steps": 10,
    "timesteps": None,
    "through": (),
    "shape": (4, 3, 8, 8),
    "scaled_start": False,
    "scaling": "unused",
    "start": 0,
    "noised": False,
    "passes": 1,
    "kind": "loop",
    "noise": "",
    "seed": None,
    "draws": (),
    "sum": None,
    "sum_atol": 1e-2,
    "mean_atol": 1e-3,
}
"""The fields of a record where neither its test nor its file says otherwise."""


def records(file, scheduler, config, tests, **common):
    """The records of one file's tests, name → fields; the config of each is `config` with the test's own changes."""
    made = []
    for name, fields in tests.items():
        test, fields = f"{file}::{name}", DEFAULTS | common | fields
        fields["config"] = config | fields["config"]
        made.append(Pinned(test=test, scheduler=scheduler, float64_sum=FLOAT64_SUMS[test], **fields))
    return made
