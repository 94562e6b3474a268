import json

import numpy as np
import pytest

from diffjax.errors import UserError
from diffjax.evaluation import sweeps

AXES = {
    "S": {"10": {"steps": 10}, "20": {"steps": 20, "num": 5}},
    "noise": {"η = 0": {"eta": 0.0}, "σ̂": {"sigma_hat": True}},
}


def test_cells_are_all_combinations():
    grid = sweeps.cells(AXES)
    assert [cell.name for cell in grid] == ["S=10,noise=η = 0", "S=10,noise=σ̂", "S=20,noise=η = 0", "S=20,noise=σ̂"]
    assert grid[3].fields == {"steps": 20, "num": 5, "sigma_hat": True}
    assert len(sweeps.cells(AXES, skip=({"S": "10", "noise": "σ̂"},))) == 3
    assert len(sweeps.cells(AXES, skip=({"S": "10"},))) == 2


def test_shards_share_out_the_cells():
    grid = sweeps.cells(AXES)
    parts = [sweeps.shard(grid, f"{k}/3") for k in range(3)]
    assert sorted(cell.name for part in parts for cell in part) == sorted(cell.name for cell in grid)
    for text in ("3/3", "1", "a/b", "-1/2"):
        with pytest.raises(UserError, match=r"must be k/n"):
            sweeps.shard(grid, text)


@pytest.mark.parametrize(
    ("axes", "skip", "words"),
    [({}, (), "must have axes"), ({"S": {}}, (), "each of them labels"), (AXES, ({"S": "30"},), "S='30' is none")],
)
def test_bad_axes(axes, skip, words):
    with pytest.raises(UserError, match=words):
        sweeps.cells(axes, skip=skip)


def test_results_go_on(tmp_path):
    grid = sweeps.cells(AXES)
    results = sweeps.Results(tmp_path, {"num": 100})
    pictures = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    results.save(grid[0], {"distance": 2.0}, pictures)
    (tmp_path / "cells" / "x.json.1.part").write_text("{")  # what a kill leaves
    again = sweeps.Results(tmp_path, {"num": 100})
    assert [again.done(cell) for cell in grid] == [True, False, False, False]
    np.testing.assert_array_equal(again.pictures(grid[0]), pictures)
    assert again.pictures(grid[1]) is None
    changed = sweeps.Cell(grid[0].labels, {**grid[0].fields, "eta": 0.5})
    assert not again.done(changed)
    assert [(cell.name, figures) for cell, figures in again.rows(grid)] == [(grid[0].name, {"distance": 2.0})]
    with pytest.raises(UserError, match=r"another protocol \(num differ\)"):
        sweeps.Results(tmp_path, {"num": 200})
    assert json.loads((tmp_path / "protocol.json").read_text()) == {"num": 100}


def test_tables():
    rows = [(cell, {"distance": value}) for cell, value in zip(sweeps.cells(AXES), (1.0, 2.5, 3.0, 0.25), strict=True)]
    rows[0][1]["calls"] = 10
    assert sweeps.to_csv(rows).splitlines() == [
        "S,noise,distance,calls", "10,η = 0,1.0,10", "10,σ̂,2.5,", "20,η = 0,3.0,", "20,σ̂,0.25,",
    ]  # fmt: skip
    assert sweeps.to_markdown(rows, "distance").splitlines() == [
        "| noise \\ S | 10 | 20 |", "|---|---|---|", "| η = 0 | **1** | 3 |", "| σ̂ | 2.5 | **0.25** |",
    ]  # fmt: skip
    shares = [(cell, {"accuracy": found["distance"]}) for cell, found in rows]
    assert sweeps.to_markdown(shares, "accuracy").splitlines()[2:] == [
        "| η = 0 | 1 | **3** |",
        "| σ̂ | **2.5** | 0.25 |",
    ]
    assert sweeps.to_markdown(rows[:3], "distance").splitlines()[-1] == "| σ̂ | 2.5 |  |"
    # What real images get is a last row, and never the best.
    floors = [(cell, {**found, "distance_floor": 0.125}) for cell, found in rows if cell.labels["S"] == "10"]
    assert sweeps.to_markdown([*floors, *rows[2:]], "distance").splitlines()[2:] == [
        "| η = 0 | **1** | 3 |", "| σ̂ | 2.5 | **0.25** |", "| real images | 0.125 |  |",
    ]  # fmt: skip
    rows = [(cell, {"bits": 4.0, "bits_error": 0.123}) for cell, _ in rows[:1]]
    assert sweeps.to_markdown(rows, "bits").splitlines()[-1] == "| η = 0 | 4 ± 0.12 |"


def test_a_folder_is_loaded_in_the_order_of_its_table(tmp_path):
    grid = sweeps.cells({"S": {"20": {"steps": 20}, "100": {"steps": 100}, "3": {"steps": 3}}})
    results = sweeps.Results(tmp_path, {"num": 100})
    for n, cell in enumerate(grid):
        results.save(cell, {"distance": float(n)})
    rows = list(results.rows(grid))
    (tmp_path / "table.csv").write_text(sweeps.to_csv(rows[:2]))
    assert sweeps.load(tmp_path) == ({"num": 100}, rows)
    table = sweeps.pivot(rows, "distance")
    assert table == (["distance \\ S", "20", "100", "3"], [["", "0", "1", "2"]], set())


def test_folders_that_cannot_be_loaded(tmp_path):
    with pytest.raises(UserError, match="is no folder that ablate.py has written"):
        sweeps.load(tmp_path)
    sweeps.Results(tmp_path, {})
    with pytest.raises(UserError, match="no cell of this sweep is done"):
        sweeps.load(tmp_path)
    (tmp_path / "cells" / "x.json").write_text("[]")
    with pytest.raises(UserError, match="is no folder that ablate.py has written"):
        sweeps.load(tmp_path)


def test_calls_within():
    """By hand: ddim is near its 1000 steps from 20 calls on, heun nowhere before its end, and pndm has no end yet."""
    distances = {
        "ddim": {10: 1.2, 20: 1.04, 50: 1.1, 1000: 1.0},
        "heun": {19: 2.2, 1999: 2.0},
        "below": {10: -1.0, 1000: -0.5},
        "pndm": {10: 1.0},
    }
    rows = [
        (sweeps.Cell({"S": "1000" if calls > 500 else str(calls), "sampler": name}, {}), {"frechet": value, "calls": calls})
        for name, line in distances.items()
        for calls, value in line.items()
    ]  # fmt: skip
    near = sweeps.calls_within(rows, "frechet")
    assert [(cell.labels["sampler"], *figures.values()) for cell, figures in near] == [
        ("ddim", 20, 1.04, 1.0), ("heun", None, None, 2.0), ("below", 10, -1.0, -0.5),
    ]  # fmt: skip
    assert sweeps.calls_within(rows, "frechet", within=0.15)[1][1]["calls"] == 19
    assert sweeps.to_lines(near).splitlines() == [
        "| sampler | calls | frechet | frechet at S = 1000 |", "|---|---|---|---|",
        "| ddim | 20 | 1.04 | 1 |", "| heun | none | none | 2 |", "| below | 10 | -1 | -0.5 |",
    ]  # fmt: skip
    assert sweeps.to_csv(near).splitlines()[2] == "heun,,,2.0"
