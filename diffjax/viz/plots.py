"""Plots with Matplotlib: curves, heat maps, schedules and losses, as figures that a notebook shows or a file keeps.

All functions raise a `UserError` if Matplotlib is not installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffjax.errors import UserError
from diffjax.files import atomic, to_path
from diffjax.schedules import NoiseSchedule
from diffjax.viz.pixels import grid

if TYPE_CHECKING:
    from diffjax.viz.figure import Figure


def curves(
    series: Mapping[str, tuple[Sequence, Sequence[float]]],
    *,
    x: str,
    y: str,
    names: str | None = None,
) -> Figure:
    """Plots a line for each name through its points (x, y), where x are numbers or strings.

    The y-axis is logarithmic if all y are > 0, and the x-axis if all x are numbers > 0 that span a decade or more.

    Args:
      series: (x values, y values) by name.
      x, y: the labels of the axes.
      names: the title of the legend.
    """
    figure = _figure(6.4, 4.4)
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    numbers = all(isinstance(value, (int, float)) for xs, _ in series.values() for value in xs)
    for name, (xs, ys) in series.items():
        axes.plot(xs if numbers else list(map(str, xs)), ys, marker="o", label=name)
    points = {value for xs, _ in series.values() for value in xs}
    if numbers and 0 < 10 * min(points) <= max(points):
        axes.set_xscale("log")
        ticks = _apart(points)
        axes.set_xticks(ticks, list(map(str, ticks)), minor=False)
        axes.set_xticks([], minor=True)
    if min(min(ys) for _, ys in series.values()) > 0:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    if any(series):  # one without a name needs no legend
        axes.legend(title=names)
    return figure


def heat_map(
    values: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], title: str, higher_is_better: bool = False
) -> Figure:
    """Plots `values` `[rows, columns]` as colours, each with its number, on a logarithmic scale if all are > 0.

    The best value is the darkest, the scale beside the map says which end is better, and NaN is left white.
    """
    figure = _figure(1.6 + 0.9 * len(columns), 1.4 + 0.5 * len(rows))
    axes = figure.add_subplot(title=title)
    norm = "log" if np.nanmin(values) > 0 else "linear"
    colours = "viridis_r" if higher_is_better else "viridis"
    mapped = axes.imshow(values, norm=norm, cmap=colours, aspect="auto")
    scale = figure.colorbar(mapped, ax=axes)
    scale.set_label("higher is better" if higher_is_better else "lower is better")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            box = {"facecolor": "white", "alpha": 0.6, "edgecolor": "none", "pad": 1}
            axes.text(column, row, f"{value:.3g}", ha="center", va="center", bbox=box)
    return figure


def labelled_rows(rows: Mapping[str, np.ndarray]) -> Figure:
    """Plots a row of images `uint8[N, H, W, C]` beside each name, as many as the shortest row has.

    Matplotlib's font, unlike Pillow's default font, has letters such as η.
    """
    columns = min(map(len, rows.values()))
    picture = grid(np.concatenate([images[:columns] for images in rows.values()]), columns=columns)
    figure = _figure(0.6 * columns + 2.0, 0.6 * len(rows) + 0.2)
    axes = figure.add_subplot(frame_on=False)
    axes.imshow(picture)
    axes.set_xticks([])
    axes.set_yticks((np.arange(len(rows)) + 0.5) * (len(picture) / len(rows)), list(rows))
    axes.tick_params(length=0)
    return figure


def schedule(schedule: NoiseSchedule) -> Figure:
    """Plots β, ᾱ, log-SNR and the posterior variance β̃ over t, without infinite values."""
    figure = _figure(8.4, 5.6)
    panels = {
        "β": (schedule.betas, "linear"),
        "ᾱ": (schedule.alpha_bars, "linear"),
        "log SNR = log ᾱ/(1-ᾱ)": (schedule.log_snr, "linear"),
        "posterior variance β̃ (0 at t = 0)": (schedule.posterior_variance, "log"),
    }
    for axes, (title, (values, scale)) in zip(figure.subplots(2, 2, sharex=True).flat, panels.items(), strict=True):
        shown = np.isfinite(values) & ((values > 0) | (scale == "linear"))
        axes.plot(np.flatnonzero(shown), values[shown])
        axes.set(title=title, yscale=scale if shown.any() else "linear")
        axes.grid(alpha=0.3)
    for axes in figure.axes[2:]:
        axes.set_xlabel("t")
    return figure


def loss_by_timestep(t: Sequence[int], losses: Mapping[str, np.ndarray]) -> Figure:
    """Plots a line for each name: the mean loss over t and, shaded, its standard error on both sides.

    Args:
      t: `[K]`.
      losses: `[K, N]` by name, the losses of N ≥ 2 images each (`losses.by_timestep`).
    """
    figure = _figure(7.2, 4.4)
    axes = figure.add_subplot(xlabel="t", ylabel="loss")
    positive = True
    for name, values in losses.items():
        values = np.asarray(values, np.float64)
        root = np.sqrt(values.shape[1])
        mean, error = values.mean(axis=1), values.std(axis=1, ddof=1) / root
        overall = f"{mean.mean():.4f} ± {values.mean(axis=0).std(ddof=1) / root:.4f}"
        axes.plot(t, mean, linewidth=1, label=f"{name}: mean over t {overall}, {values.shape[1]} images")
        axes.fill_between(t, mean - error, mean + error, alpha=0.4, linewidth=0)
        positive &= bool(np.all(mean > error))
    axes.set_yscale("log" if positive else "linear")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    return figure


def training_loss(reports: Sequence[Mapping[str, Any]], *, num_timesteps: int, num_parts: int) -> Figure:
    """Plots the loss over steps, and the loss of each part of 0 … T-1, from the lines of `metrics.jsonl`.

    Args:
      reports: the reports; `loss_tN` is the loss of part N.
      num_timesteps: T.
      num_parts: the number of equal parts.

    Raises:
      ValueError: no report of a finite loss.
    """
    names = [name for name in dict.fromkeys(name for report in reports for name in report) if name.startswith("loss")]
    parts = [name for name in names if name.startswith("loss_t")]
    figure = _figure(7.2, 4.4)
    axes = figure.add_subplot(xlabel="step", ylabel="loss")
    for name in names:
        points = [(r["step"], r[name]) for r in reports if name in r and np.isfinite(r[name])]
        if points:
            if name in parts:
                part = int(name.removeprefix("loss_t"))
                first, end = (-(-n * num_timesteps // num_parts) for n in (part, part + 1))
                label, style = f"t = {first} … {end - 1}", {"linewidth": 1, "alpha": 0.7}
            else:
                label, style = "all t", {"linewidth": 2, "color": "black"}
            axes.plot(*zip(*points, strict=True), label=label, marker="o" if len(points) == 1 else None, **style)
    if not axes.lines:
        raise ValueError("no report of a finite loss")
    if min(line.get_ydata().min() for line in axes.lines) > 0:
        axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def save_figure(path: str | os.PathLike, figure: Figure) -> Path:
    """Writes a figure as a PNG file, whole or not at all, and returns its path."""
    with atomic(path) as part:
        part.write_bytes(figure._repr_png_())
    return to_path(path)


def _apart(values: Iterable[float]) -> list[float]:
    """Returns the values whose labels do not overlap on a logarithmic axis, smallest first."""
    kept = []
    for value in sorted(values):
        if not kept or value >= 1.3 * kept[-1]:
            kept.append(value)
    return kept


def _figure(width: float, height: float) -> Figure:
    try:
        from diffjax.viz.figure import Figure
    except ImportError:
        raise UserError("this picture needs Matplotlib: pip install '.[plots]'") from None
    return Figure(figsize=(width, height), layout="constrained")
