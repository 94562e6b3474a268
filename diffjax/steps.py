"""The `Sampler` table, with one row for each network call, and the functions that build and join such tables."""

import dataclasses
import html
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffjax import timesteps

Column = NDArray[Any] | jax.Array
"""A column of a table."""

_HTML_ROWS = 30


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
    """A sampler: a table of R rows, one for each network call. A pytree whose leaves are the columns, float64 as built.

    A row maps x, the network's x̂0 and ε̂, and z ~ N(0, I) to

        x_s = a·x + b·x̂0 + c·ε̂ + d·z + Σ_k x0_history[k]·x̂0₍₋₁₋ₖ₎ + Σ_k eps_history[k]·ε̂₍₋₁₋ₖ₎

    Tables of the same shape share one compiled program. `print(sampler)` shows the rows.
    """

    t_net: Column  # int32 (or, between the timesteps, float) [R]: the time that the network is called with
    t_from: Column  # like t_net: the level of x before the row
    t_to: Column  # like t_net: the level of x after it
    lands: Column  # bool [R]: whether t_to is on the grid (False for inner calls of higher-order methods)
    signal: Column  # float [R]: √ᾱ of x at the network call
    noise: Column  # float [R]: √(1-ᾱ) there
    signal_to: Column  # float [R]: √ᾱ of x after the row
    noise_to: Column  # float [R]: √(1-ᾱ) there
    a: Column  # float [R]: coefficient of x
    b: Column  # float [R]: of x̂0, after clipping
    c: Column  # float [R]: of ε̂, after re-derivation
    d: Column  # float [R]: of z ~ N(0, I); with `log_var`, of exp(½ log σ²)·z
    x0_history: Column  # float [R, H]: of the x̂0 of the H rows before, newest first
    eps_history: Column  # float [R, H']: of the ε̂ of the H' rows before, newest first
    log_var: Column | None = None
    """float [R, 2]: (low, high); the network's `log_var_frac` f sets log σ² = low + f·(high - low)."""
    rederive_eps: bool = dataclasses.field(default=True, metadata={"static": True})
    """Whether ε̂ is derived from a clipped x̂0, ε̂ = (x - √ᾱ x̂0)/√(1-ᾱ), or stays the network's."""

    @property
    def num_rows(self) -> int:
        """The number R of network calls."""
        return np.shape(self.t_net)[-1]

    @property
    def num_steps(self) -> int:
        """The number S of grid steps."""
        return int(np.sum(self.lands))

    @property
    def grid(self) -> timesteps.Grid:
        """The time grid `[S+1]` of the table, int32 or float64 like its times."""
        return np.append(self.t_from[0], np.asarray(self.t_to)[np.asarray(self.lands)])

    @property
    def is_stochastic(self) -> bool:
        """Whether any row adds noise, so that a key is needed."""
        return bool(np.any(np.asarray(self.d) != 0))

    def __getitem__(self, rows: slice) -> "Sampler":
        """Returns the table of consecutive rows: `sampler[10:20]`; `sample` runs it with `first_row=10`.

        Raises:
          TypeError: an index that is not a slice of consecutive rows.
        """
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise TypeError(f"a sampler takes a slice of consecutive rows, as in sampler[10:20], not {rows!r}")
        return jax.tree.map(lambda column: column[rows], self)

    def __str__(self):
        names, columns = self._cells(np.arange(self.num_rows))
        return "\n".join("".join(f"{cell:>12}" for cell in line) for line in [names, *zip(*columns, strict=True)])

    def __repr__(self):
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(self)) or np.ndim(self.t_net) != 1:
            return f"Sampler(columns of shape {np.shape(self.t_net)})"
        kind = "stochastic" if self.is_stochastic else "deterministic"
        return f"Sampler({self.num_rows} rows, grid {self.grid[0]:.6g} … {self.grid[-1]:.6g}, {kind})"

    def _repr_html_(self) -> str:
        """Returns the table for notebooks: at most `_HTML_ROWS` rows, with an ellipsis in place of the middle ones."""
        if np.ndim(self.t_net) != 1:
            return html.escape(repr(self))
        rows, ellipsis = np.arange(self.num_rows), None
        if self.num_rows > _HTML_ROWS:
            rows, ellipsis = np.delete(rows, slice(_HTML_ROWS - 6, -5)), _HTML_ROWS - 6
        names, columns = self._cells(rows)
        lines = [[str(row), *cells] for row, cells in zip(rows, zip(*columns, strict=True), strict=True)]
        if ellipsis is not None:
            lines.insert(ellipsis, ["…"] * (1 + len(names)))
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *names))
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" for cells in lines)
        return f"<p>{html.escape(repr(self))}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _cells(self, rows: np.ndarray) -> tuple[list[str], list[list[str]]]:
        """Returns the names of the columns and their texts in the given rows."""
        history = [("x0", self.x0_history), ("eps", self.eps_history)]
        names = ["t_net", "from", "to", "lands", "signal", "noise", "a·x", "b·x0", "c·eps", "d·z"]
        names += [f"·{kind}[-{k + 1}]" for kind, table in history for k in range(np.shape(table)[1])]
        floats = [self.signal, self.noise, self.a, self.b, self.c, self.d]
        floats += [column for _, table in history for column in np.transpose(table)]
        if self.log_var is not None:
            names += ["logvar.lo", "logvar.hi"]
            floats += list(np.transpose(self.log_var))
        cells = [[f"{v:.6g}" for v in np.asarray(column)[rows]] for column in (self.t_net, self.t_from, self.t_to)]
        cells += [["yes" if v else "no" for v in np.asarray(self.lands)[rows]]]
        cells += [[f"{v + 0.0:.6g}" for v in np.asarray(column)[rows]] for column in floats]
        return names, cells


def stack(samplers: Sequence[Sampler]) -> Sampler:
    """Stacks samplers of equal shape: each column gains a leading axis `[N, …]`, and `jax.vmap` over it runs them all.

    Raises:
      ValueError: samplers of different shapes or conventions.

    Examples:
      >>> import diffjax as dj
      >>> schedule, grid = dj.schedules.linear(1000), dj.timesteps.trailing(1000, 10)
      >>> stack([dj.samplers.ddim(schedule, grid, eta=eta) for eta in (0.0, 0.5, 1.0)]).d.shape
      (3, 10)
    """
    shapes = [(jax.tree.structure(one), [np.shape(column) for column in jax.tree.leaves(one)]) for one in samplers]
    if not samplers or any(shape != shapes[0] for shape in shapes):
        raise ValueError(
            "samplers can be stacked if they have equal numbers of rows, equal histories and the same conventions"
        )
    return jax.tree.map(lambda *columns: np.stack(columns), *samplers)


class Levels(NamedTuple):
    """The source (t) and the destination (s) of each step: index and ᾱ, `[S]`."""

    t: np.ndarray
    s: np.ndarray
    ab_t: np.ndarray
    ab_s: np.ndarray


def one_call_a_step(
    levels: Levels,
    *,
    a: ArrayLike = 0.0,
    b: ArrayLike = 0.0,
    c: ArrayLike = 0.0,
    d: ArrayLike = 0.0,
    t_net: ArrayLike | None = None,
    lands: ArrayLike = True,
    x0_history: Column | None = None,
    eps_history: Column | None = None,
    num_eps_history: int = 0,
    log_var: Column | None = None,
    rederive_eps: bool = True,
) -> Sampler:
    """Builds a `Sampler` with one row for each step; coefficients are `[S]` or scalars, histories `[S, H]` or None."""
    rows = len(levels.t)
    a, b, c, d = (np.broadcast_to(np.asarray(column, np.float64), rows) for column in (a, b, c, d))
    return Sampler(
        t_net=np.asarray(np.maximum(levels.t, 0) if t_net is None else t_net, levels.t.dtype),
        t_from=levels.t,
        t_to=levels.s,
        lands=np.broadcast_to(lands, rows),
        signal=np.sqrt(levels.ab_t),
        noise=np.sqrt(1.0 - levels.ab_t),
        signal_to=np.sqrt(levels.ab_s),
        noise_to=np.sqrt(1.0 - levels.ab_s),
        a=a,
        b=b,
        c=c,
        d=d,
        x0_history=np.zeros((rows, 0)) if x0_history is None else x0_history,
        eps_history=np.zeros((rows, num_eps_history)) if eps_history is None else eps_history,
        log_var=log_var,
        rederive_eps=rederive_eps,
    )


def interleave(tables: Sequence[Sampler], kept: Sequence[np.ndarray]) -> Sampler:
    """Joins tables as row 0 of each, then row 1 of each, …, leaving out rows that are not `kept` (`bool[S]` each)."""
    mask = np.stack(kept, axis=1).ravel()
    return jax.tree.map(
        lambda *columns: np.stack(columns, axis=1).reshape(len(mask), *columns[0].shape[1:])[mask], *tables
    )
