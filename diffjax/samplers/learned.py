"""Tables in files: fitted ones, as a sampler that a config names with its path."""

import hashlib
import json
import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from diffjax import files
from diffjax.samplers.base import SAMPLERS, levels_of
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler

_TIMES = ("t_net", "t_from", "t_to")
_COLUMNS = (
    *_TIMES,
    "lands",
    "signal",
    "noise",
    "signal_to",
    "noise_to",
    "a",
    "b",
    "c",
    "d",
    "x0_history",
    "eps_history",
)


def save_table(path: str | os.PathLike, table: Sampler, **facts: Any) -> None:
    """Writes a table as JSON, with facts about how it was made (numbers, strings, lists).

    Raises:
      ValueError: a table of learned variance, or a stack of tables.
    """
    if table.log_var is not None or np.ndim(table.t_net) != 1:
        raise ValueError("only a table of one sampler, without learned variance, can be saved")
    columns = {name: np.asarray(getattr(table, name)).tolist() for name in _COLUMNS}
    content = {
        "columns": columns,
        "integer_times": np.asarray(table.t_net).dtype.kind == "i",
        "rederive_eps": table.rederive_eps,
        "facts": facts,
    }
    files.write(path, json.dumps(content | {"sha256": _digest(content)}, indent=1) + "\n")


def load_table(path: str | os.PathLike) -> Sampler:
    """Reads a table that `save_table` has written.

    Raises:
      ValueError: a file that is missing or damaged.
    """
    try:
        content = json.loads(files.to_path(path).read_text())
        digest = content.pop("sha256")
        columns, integer = content["columns"], content["integer_times"]
        if digest != _digest(content):
            raise ValueError("its checksum differs")
        times = np.int32 if integer else np.float64
        dtypes = dict.fromkeys(_TIMES, times) | {"lands": bool}
        arrays = {name: np.array(columns[name], dtypes.get(name, np.float64)) for name in _COLUMNS}
        rows = len(arrays["t_net"])
        for name in ("x0_history", "eps_history"):
            arrays[name] = arrays[name].reshape(rows, -1)
        return Sampler(**arrays, rederive_eps=content["rederive_eps"])
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"path={os.fspath(path)!r} holds no table: {' '.join(str(error).split())}") from error


@SAMPLERS.register
def learned(schedule: NoiseSchedule, grid: ArrayLike, *, path: str) -> Sampler:
    """Reads a fitted table (`learn.fit`, `save_table`); its grid is its own, and must have as many steps as `grid`.

    Args:
      schedule: the noise schedule; the levels of the table must be its levels.
      grid: `[S+1]`; only its number of steps counts.
      path: the file of the table.

    Raises:
      ValueError: a file that is missing or damaged, another number of steps, or a table of another schedule.
    """
    table, num_steps = load_table(path), len(np.asarray(grid)) - 1
    if table.num_steps != num_steps:
        raise ValueError(f"path={path!r} is a table of {table.num_steps} steps, and num_steps={num_steps}")
    levels = levels_of(schedule, table.grid)
    first = np.flatnonzero(np.append(True, table.lands[:-1]))
    if not np.allclose(table.signal[first], np.sqrt(levels.ab_t), rtol=1e-6, atol=1e-12):
        raise ValueError(f"path={path!r} is a table of another schedule: its levels are not those of this one")
    return table


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
