"""What a sampler is: a table with one row a network call, and how such tables are put together."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from diffjax import timesteps


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """A sampler: R rows, one a network call. A pytree whose leaves are the columns; NumPy float64 as built.

    What a row makes of x, of the network's x̂0 and ε̂, and of z ~ N(0, I):

        x_s = a·x + b·x̂0 + c·ε̂ + d·z + Σ_k x0_history[k]·x̂0₍₋₁₋ₖ₎ + Σ_k eps_history[k]·ε̂₍₋₁₋ₖ₎

    Another table of the same shape runs without a new compilation.
    """

    t_net: ArrayLike  # int32 [R]: the timestep the network is asked at
    t_from: ArrayLike  # int32 [R]: the level of x before the row
    t_to: ArrayLike  # int32 [R]: the level of x after it
    lands: ArrayLike  # bool [R]: whether t_to is on the grid (not so for inner calls of higher-order methods)
    signal: ArrayLike  # float [R]: √ᾱ of x where the network is asked
    noise: ArrayLike  # float [R]: √(1-ᾱ) there
    signal_to: ArrayLike  # float [R]: √ᾱ of x after the row
    noise_to: ArrayLike  # float [R]: √(1-ᾱ) there
    a: ArrayLike  # float [R]: coefficient of x
    b: ArrayLike  # float [R]: of x̂0, after clipping
    c: ArrayLike  # float [R]: of ε̂, after re-derivation
    d: ArrayLike  # float [R]: of z ~ N(0, I); with `log_var`, of exp(½ log σ²)·z
    x0_history: ArrayLike  # float [R, H]: of the x̂0 of the H rows before, newest first
    eps_history: ArrayLike  # float [R, H']: of the ε̂ of the H' rows before, newest first
    log_var: ArrayLike | None = None
    """float [R, 2]: (low, high), between which the network's `log_var_frac` f sets log σ² = low + f·(high - low)."""
    rederive_eps: bool = dataclasses.field(default=True, metadata={"static": True})
    """Whether ε̂ follows a clipped x̂0, ε̂ = (x - √ᾱ x̂0)/√(1-ᾱ), or stays as the network gave it."""

    @property
    def num_rows(self) -> int:
        """R, the number of network calls."""
        return np.shape(self.t_net)[-1]

    @property
    def num_steps(self) -> int:
        """S, the number of grid steps."""
        return int(np.sum(self.lands))

    @property
    def grid(self) -> timesteps.Grid:
        """The time grid `int32[S+1]` that the table walks along."""
        return np.append(self.t_from[0], np.asarray(self.t_to)[np.asarray(self.lands)]).astype(np.int32)

    @property
    def is_stochastic(self) -> bool:
        """Whether any row adds noise, so that a key is needed."""
        return bool(np.any(np.asarray(self.d) != 0))

    def __str__(self):
        history = [("x0", self.x0_history), ("eps", self.eps_history)]
        names = ["t_net", "from", "to", "lands", "signal", "noise", "a·x", "b·x0", "c·eps", "d·z"]
        names += [f"·{kind}[-{k + 1}]" for kind, table in history for k in range(np.shape(table)[1])]
        floats = [self.signal, self.noise, self.a, self.b, self.c, self.d]
        floats += [column for _, table in history for column in np.transpose(table)]
        if self.log_var is not None:
            names += ["logvar.lo", "logvar.hi"]
            floats += list(np.transpose(self.log_var))
        cells = [[f"{v:d}" for v in column] for column in (self.t_net, self.t_from, self.t_to)]
        cells += [["yes" if v else "no" for v in self.lands]]
        cells += [[f"{v + 0.0:.6g}" for v in column] for column in floats]
        return "\n".join("".join(f"{cell:>12}" for cell in line) for line in [names, *zip(*cells, strict=True)])


def stack(tables: Sequence[Steps]) -> Steps:
    """Tables of equal shape as one, each column with a leading axis `[N, …]`: `jax.vmap` over it runs them all.

    Raises:
      ValueError: tables of different shapes or conventions.
    """
    shapes = [(jax.tree.structure(table), [np.shape(column) for column in jax.tree.leaves(table)]) for table in tables]
    if not tables or any(shape != shapes[0] for shape in shapes):
        raise ValueError(
            "tables can be stacked if they have equally many rows, equal history, and the same conventions"
        )
    return jax.tree.map(lambda *columns: np.stack(columns), *tables)


class Levels(NamedTuple):
    """Where each step goes from (t) and to (s): index and ᾱ, `[S]`."""

    t: np.ndarray
    s: np.ndarray
    ab_t: np.ndarray
    ab_s: np.ndarray


def one_call_a_step(
    levels: Levels,
    *,
    a=0.0,
    b=0.0,
    c=0.0,
    d=0.0,
    t_net=None,
    lands=True,
    x0_history=None,
    eps_history=None,
    num_eps_history: int = 0,
    log_var=None,
    rederive_eps: bool = True,
) -> Steps:
    """`Steps` with one row for each of `levels`; coefficients are `[S]` or scalars, histories `[S, H]` or none."""
    rows = len(levels.t)
    a, b, c, d = (np.broadcast_to(np.asarray(column, np.float64), rows) for column in (a, b, c, d))
    return Steps(
        t_net=np.asarray(np.maximum(levels.t, 0) if t_net is None else t_net, np.int32),
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


def interleave(tables: Sequence[Steps], kept: Sequence[np.ndarray]) -> Steps:
    """Row 0 of each table, then row 1 of each, …, without the rows that are not `kept` (`bool[S]` a table)."""
    mask = np.stack(kept, axis=1).ravel()
    return jax.tree.map(
        lambda *columns: np.stack(columns, axis=1).reshape(len(mask), *columns[0].shape[1:])[mask], *tables
    )
