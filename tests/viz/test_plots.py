import sys

import numpy as np
import pytest
from PIL import Image

from diffjax import schedules, viz
from diffjax.errors import UserError


def test_schedule_plots_its_tables_where_they_are_finite(tmp_path):
    schedule = schedules.zero_terminal_snr(schedules.cosine(20))
    figure = viz.schedule(schedule)
    path = viz.save_figure(tmp_path / "a" / "s.png", figure)
    assert Image.open(path).format == "PNG"
    tables = (schedule.betas, schedule.alpha_bars, schedule.log_snr, schedule.posterior_variance)
    for axes, table, kept in zip(figure.axes, tables, ((0, 20), (0, 20), (0, 19), (1, 20)), strict=True):
        (line,) = axes.lines
        np.testing.assert_array_equal(line.get_xdata(), range(*kept))
        np.testing.assert_array_equal(line.get_ydata(), table[slice(*kept)])


def test_loss_by_timestep_has_means_and_their_errors(tmp_path):
    losses = np.random.default_rng(0).uniform(1, 2, (3, 50))
    (axes,) = viz.loss_by_timestep([0, 5, 9], {"trained on": losses}).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), losses.mean(1))
    low, high = (f(axes.collections[0].get_paths()[0].vertices[:, 1]) for f in (np.min, np.max))
    bounds = losses.mean(1) + np.array([[-1], [1]]) * losses.std(1, ddof=1) / np.sqrt(50)
    assert (low, high) == (pytest.approx(bounds.min()), pytest.approx(bounds.max()))


def test_training_loss_leaves_out_what_is_not_finite(tmp_path):
    reports = [
        {"step": 10, "skipped": 3.0},
        {"step": 20, "loss": float("nan"), "loss_t0": 2.0},
        {"step": 30, "loss": 1.5, "loss_t0": 1.0},
        {"step": 40, "loss": 0.5, "loss_t0": 0.25, "loss_t1": 0.125, "grad_norm": 9.0},
    ]
    (axes,) = viz.training_loss(reports, num_timesteps=10, num_parts=4).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {
        "all t": [[30, 1.5], [40, 0.5]],
        "t = 0 … 2": [[20, 2.0], [30, 1.0], [40, 0.25]],
        "t = 3 … 4": [[40, 0.125]],
    }
    parts = np.arange(10) * 4 // 10  # as the training step counts
    assert [np.flatnonzero(parts == n)[[0, -1]].tolist() for n in (0, 1)] == [[0, 2], [3, 4]]
    with pytest.raises(ValueError, match="no report of a finite loss"):
        viz.training_loss(reports[:1], num_timesteps=10, num_parts=4)


def test_curves_are_labelled_where_their_points_are_apart(tmp_path):
    (wide,) = viz.curves({"a": ([10, 19, 20, 1000], [3, 2, 1, 1])}, x="calls", y="distance", names="sampler").axes
    (narrow,) = viz.curves({"a": ([20.5, 21.0], [-1, 2])}, x="PSNR", y="distance").axes
    assert [label.get_text() for label in wide.get_xticklabels()] == ["10", "19", "1000"]
    assert wide.get_legend().get_title().get_text() == "sampler"
    assert (wide.get_xscale(), wide.get_yscale()) == ("log", "log")
    assert (narrow.get_xscale(), narrow.get_yscale()) == ("linear", "linear")


def test_without_matplotlib(monkeypatch):
    monkeypatch.delitem(sys.modules, "diffjax.viz.figure", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"needs Matplotlib: pip install '\.\[plots\]'"):
        viz.schedule(schedules.linear(10))


@pytest.mark.parametrize("higher_is_better", [False, True])
def test_heat_map_says_which_end_is_better(higher_is_better):
    values = np.array([[1.0, 2.0], [np.nan, 4.0]])
    figure = viz.heat_map(values, rows="ab", columns="cd", title="", higher_is_better=higher_is_better)
    axes, scale = figure.axes
    assert scale.get_ylabel() == ("higher is better" if higher_is_better else "lower is better")
    (image,) = axes.images
    low, high = (sum(image.cmap(end)[:3]) for end in (0.0, 1.0))
    assert (high < low) == higher_is_better  # the best is the darkest


def test_a_notebook_shows_a_figure():
    assert viz.schedule(schedules.linear(10))._repr_png_().startswith(b"\x89PNG")


def test_labelled_rows(tmp_path):
    rows = {"σ̂ = black": np.zeros((3, 8, 8, 1), np.uint8), "grey": np.full((2, 8, 8, 1), 100, np.uint8)}
    path = viz.save_figure(tmp_path / "a" / "b.png", viz.labelled_rows(rows))
    picture = np.asarray(Image.open(path).convert("L"))
    tiles = picture[:, np.any(picture == 100, axis=0)]  # the labels are beside them
    assert tiles.shape[1] > 100
    assert np.flatnonzero(np.any(tiles == 0, axis=1)).max() < np.flatnonzero(np.any(tiles == 100, axis=1)).min()
    assert [p.name for p in path.parent.iterdir()] == ["b.png"]
