import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from diffjax import schedules, viz
from diffjax.errors import UserError


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures, savefig = [], Figure.savefig

    def save(self, *args, **options):
        figures.append(self)
        savefig(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", save)
    return figures


def test_schedule_plots_its_tables_where_they_are_finite(drawn, tmp_path):
    schedule = schedules.zero_terminal_snr(schedules.cosine(20))
    path = viz.schedule(tmp_path / "a" / "s.png", schedule)
    assert Image.open(path).format == "PNG"
    tables = (schedule.betas, schedule.alpha_bars, schedule.log_snr, schedule.posterior_variance)
    for axes, table, kept in zip(drawn[0].axes, tables, ((0, 20), (0, 20), (0, 19), (1, 20)), strict=True):
        (line,) = axes.lines
        np.testing.assert_array_equal(line.get_xdata(), range(*kept))
        np.testing.assert_array_equal(line.get_ydata(), table[slice(*kept)])


def test_loss_by_timestep_has_means_and_their_errors(drawn, tmp_path):
    losses = np.random.default_rng(0).uniform(1, 2, (3, 50))
    viz.loss_by_timestep(tmp_path / "l.png", [0, 5, 9], {"trained on": losses})
    (axes,) = drawn[0].axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), losses.mean(1))
    low, high = (f(axes.collections[0].get_paths()[0].vertices[:, 1]) for f in (np.min, np.max))
    bounds = losses.mean(1) + np.array([[-1], [1]]) * losses.std(1, ddof=1) / np.sqrt(50)
    assert (low, high) == (pytest.approx(bounds.min()), pytest.approx(bounds.max()))


def test_training_loss_leaves_out_what_is_not_finite(drawn, tmp_path):
    reports = [
        {"step": 10, "skipped": 3.0},
        {"step": 20, "loss": float("nan"), "loss_t0": 2.0},
        {"step": 30, "loss": 1.5, "loss_t0": 1.0},
        {"step": 40, "loss": 0.5, "loss_t0": 0.25, "loss_t1": 0.125, "grad_norm": 9.0},
    ]
    viz.training_loss(tmp_path / "t.png", reports, num_timesteps=10, num_parts=4)
    lines = {line.get_label(): line.get_xydata().tolist() for line in drawn[0].axes[0].lines}
    assert lines == {
        "all t": [[30, 1.5], [40, 0.5]],
        "t = 0 … 2": [[20, 2.0], [30, 1.0], [40, 0.25]],
        "t = 3 … 4": [[40, 0.125]],
    }
    parts = np.arange(10) * 4 // 10  # as the training step counts
    assert [np.flatnonzero(parts == n)[[0, -1]].tolist() for n in (0, 1)] == [[0, 2], [3, 4]]
    with pytest.raises(ValueError, match="no report of a finite loss"):
        viz.training_loss(tmp_path / "t.png", reports[:1], num_timesteps=10, num_parts=4)


def test_curves_are_labelled_where_their_points_are_apart(drawn, tmp_path):
    viz.curves(tmp_path / "c.png", {"a": ([10, 19, 20, 1000], [3, 2, 1, 1])}, x="calls", y="distance", names="sampler")
    viz.curves(tmp_path / "d.png", {"a": ([20.5, 21.0], [-1, 2])}, x="PSNR", y="distance")
    wide, narrow = (figure.axes[0] for figure in drawn)
    assert [label.get_text() for label in wide.get_xticklabels()] == ["10", "19", "1000"]
    assert wide.get_legend().get_title().get_text() == "sampler"
    assert (wide.get_xscale(), wide.get_yscale()) == ("log", "log")
    assert (narrow.get_xscale(), narrow.get_yscale()) == ("linear", "linear")


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"needs Matplotlib: pip install '\.\[plots\]'"):
        viz.schedule(tmp_path / "s.png", schedules.linear(10))
    assert not list(tmp_path.iterdir())


def test_labelled_rows(tmp_path):
    rows = {"σ̂ = black": np.zeros((3, 8, 8, 1), np.uint8), "grey": np.full((2, 8, 8, 1), 100, np.uint8)}
    path = viz.labelled_rows(tmp_path / "a" / "b.png", rows)
    picture = np.asarray(Image.open(path).convert("L"))
    tiles = picture[:, np.any(picture == 100, axis=0)]  # the labels are beside them
    assert tiles.shape[1] > 100
    assert np.flatnonzero(np.any(tiles == 0, axis=1)).max() < np.flatnonzero(np.any(tiles == 100, axis=1)).min()
    assert [p.name for p in path.parent.iterdir()] == ["b.png"]
