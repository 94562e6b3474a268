import numpy as np
import pytest

from diffjax import json_files
from diffjax.errors import UserError
from diffjax.sweeps import cells, tables

AXES = {
    "S": {"10": {"steps": 10}, "20": {"steps": 20, "num": 5}},
    "noise": {"η = 0": {"eta": 0.0}, "σ̂": {"sigma_hat": True}},
}


def test_cells_are_all_combinations():
    grid = cells.cells(AXES)
    assert [cell.name for cell in grid] == ["S=10,noise=η = 0", "S=10,noise=σ̂", "S=20,noise=η = 0", "S=20,noise=σ̂"]
    assert grid[3].fields == {"steps": 20, "num": 5, "sigma_hat": True}
    assert len(cells.cells(AXES, skip=({"S": "10", "noise": "σ̂"},))) == 3
    assert len(cells.cells(AXES, skip=({"S": "10"},))) == 2


def test_shards_share_out_the_cells():
    grid = cells.cells(AXES)
    parts = [cells.shard(grid, f"{k}/3") for k in range(3)]
    assert sorted(cell.name for part in parts for cell in part) == sorted(cell.name for cell in grid)
    for text in ("3/3", "1", "a/b", "-1/2"):
        with pytest.raises(UserError, match=r"must be 'k/n'"):
            cells.shard(grid, text)


@pytest.mark.parametrize(
    ("axes", "skip", "words"),
    [({}, (), "must have axes"), ({"S": {}}, (), "each axis labels"), (AXES, ({"S": "30"},), "S='30' is not one of")],
)
def test_bad_axes(axes, skip, words):
    with pytest.raises(UserError, match=words):
        cells.cells(axes, skip=skip)


def test_results_go_on(tmp_path):
    grid = cells.cells(AXES)
    results = cells.Results(tmp_path, {"num": 100})
    pictures = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    results.save(grid[0], {"distance": 2.0}, pictures)
    (tmp_path / "cells" / "x.json.1.part").write_text("{")  # what a kill leaves
    again = cells.Results(tmp_path, {"num": 100})
    assert [again.done(cell) for cell in grid] == [True, False, False, False]
    np.testing.assert_array_equal(again.pictures(grid[0]), pictures)
    assert again.pictures(grid[1]) is None
    changed = cells.Cell(grid[0].labels, {**grid[0].fields, "eta": 0.5})
    assert not again.done(changed)
    assert [(cell.name, figures) for cell, figures in again.rows(grid)] == [(grid[0].name, {"distance": 2.0})]
    with pytest.raises(UserError, match=r"another protocol \(num differ\)"):
        cells.Results(tmp_path, {"num": 200})
    assert json_files.read_record(tmp_path / "protocol.json", "") == {"num": 100}


def test_a_folder_is_loaded_in_the_order_of_its_table(tmp_path):
    grid = cells.cells({"S": {"20": {"steps": 20}, "100": {"steps": 100}, "3": {"steps": 3}}})
    results = cells.Results(tmp_path, {"num": 100})
    for n, cell in enumerate(grid):
        results.save(cell, {"distance": float(n)})
    rows = list(results.rows(grid))
    (tmp_path / "table.csv").write_text(tables.to_csv(rows[:2]))
    assert cells.load(tmp_path) == ({"num": 100}, rows)
    found = tables.pivot(rows, "distance")
    assert found == (["distance \\ S", "20", "100", "3"], [["", "0", "1", "2"]], set())


def test_folders_without_a_sweep(tmp_path):
    with pytest.raises(UserError, match="is not the folder of a sweep"):
        cells.load(tmp_path)
    results = cells.Results(tmp_path, {})
    with pytest.raises(UserError, match="no cell of this sweep is done"):
        cells.load(tmp_path)
    results.save(cells.cells(AXES)[0], {"distance": 2.0})
    (tmp_path / "protocol.json").unlink()
    with pytest.raises(UserError, match=r"protocol.json does not exist: .* is not the folder of a sweep"):
        cells.load(tmp_path)
    (tmp_path / "cells" / "x.json").write_text("[]")
    with pytest.raises(UserError, match=r"cannot read .*x.json: it is damaged; `diffjax ablate` computes it again"):
        cells.load(tmp_path)
