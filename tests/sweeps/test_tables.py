import pytest

from diffjax.sweeps import cells, tables

AXES = {
    "S": {"10": {"steps": 10}, "20": {"steps": 20}},
    "noise": {"η = 0": {"eta": 0.0}, "σ̂": {"sigma_hat": True}},
}


def test_tables():
    rows = [(cell, {"distance": value}) for cell, value in zip(cells.cells(AXES), (1.0, 2.5, 3.0, 0.25), strict=True)]
    rows[0][1]["calls"] = 10
    assert tables.to_csv(rows).splitlines() == [
        "S,noise,distance,calls", "10,η = 0,1.0,10", "10,σ̂,2.5,", "20,η = 0,3.0,", "20,σ̂,0.25,",
    ]  # fmt: skip
    assert tables.to_markdown(rows, "distance").splitlines() == [
        "| noise \\ S | 10 | 20 |", "|---|---|---|", "| η = 0 | **1** | 3 |", "| σ̂ | 2.5 | **0.25** |",
    ]  # fmt: skip
    accuracies = [(cell, {"accuracy": found["distance"]}) for cell, found in rows]
    assert tables.to_markdown(accuracies, "accuracy").splitlines()[2:] == [
        "| η = 0 | 1 | **3** |",
        "| σ̂ | **2.5** | 0.25 |",
    ]
    assert tables.to_markdown(rows[:3], "distance").splitlines()[-1] == "| σ̂ | 2.5 |  |"
    # The floor is the last row, and never the best.
    floors = [(cell, {**found, "distance_floor": 0.125}) for cell, found in rows if cell.labels["S"] == "10"]
    assert tables.to_markdown([*floors, *rows[2:]], "distance").splitlines()[2:] == [
        "| η = 0 | **1** | 3 |", "| σ̂ | 2.5 | **0.25** |", "| real images | 0.125 |  |",
    ]  # fmt: skip
    rows = [(cell, {"bits": 4.0, "bits_error": 0.123}) for cell, _ in rows[:1]]
    assert tables.to_markdown(rows, "bits").splitlines()[-1] == "| η = 0 | 4 ± 0.12 |"


@pytest.mark.parametrize(
    ("figure", "best"),
    [(name, "highest") for name in ("accuracy", "precision", "recall", "inception_score", "psnr", "ssim")]
    + [(name, "lowest") for name in ("kernel", "frechet", "lpips", "consistency", "bound", "mse", "seconds", "calls")],
)
def test_the_best_value_is_bold(figure, best):
    rows = [(cell, {figure: value}) for cell, value in zip(cells.cells(AXES), (0.25, 0.5, 3.0, 2.0), strict=True)]
    low = [["η = 0", "**0.25**", "3"], ["σ̂", "0.5", "**2**"]]
    high = [["η = 0", "0.25", "**3**"], ["σ̂", "**0.5**", "2"]]
    shown = [line.strip("| ").split(" | ") for line in tables.to_markdown(rows, figure).splitlines()[2:]]
    assert shown == (high if best == "highest" else low)


def test_the_direction_of_a_metric_by_import_path(tmp_path, monkeypatch):
    (tmp_path / "own_directions.py").write_text(
        "def sharpness(images): return 0.0\nsharpness.higher_is_better = True\ndef blur(images): return 0.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name, best in (
        ("own_directions:sharpness", {(1, 1)}),
        ("own_directions:blur", {(0, 1)}),
        ("gone:blur", {(0, 1)}),
    ):
        rows = [(cell, {name: n}) for n, cell in enumerate(cells.cells({"S": {"1": {}}, "eta": {"0": {}, "1": {}}}))]
        assert tables.pivot(rows, name).best == best


def test_calls_within():
    """By hand: ddim is near its 1000 steps from 20 calls on, heun nowhere before its end, and pndm has no end yet."""
    distances = {
        "ddim": {10: 1.2, 20: 1.04, 50: 1.1, 1000: 1.0},
        "heun": {19: 2.2, 1999: 2.0},
        "below": {10: -1.0, 1000: -0.5},
        "pndm": {10: 1.0},
    }
    rows = [
        (cells.Cell({"S": "1000" if calls > 500 else str(calls), "sampler": name}, {}), {"frechet": value, "calls": calls})
        for name, line in distances.items()
        for calls, value in line.items()
    ]  # fmt: skip
    near = tables.calls_within(rows, "frechet")
    assert [(cell.labels["sampler"], *figures.values()) for cell, figures in near] == [
        ("ddim", 20, 1.04, 1.0), ("heun", None, None, 2.0), ("below", 10, -1.0, -0.5),
    ]  # fmt: skip
    assert tables.calls_within(rows, "frechet", within=0.15)[1][1]["calls"] == 19
    assert tables.to_lines(near).splitlines() == [
        "| sampler | calls | frechet | frechet at S = 1000 |", "|---|---|---|---|",
        "| ddim | 20 | 1.04 | 1 |", "| heun | none | none | 2 |", "| below | 10 | -1 | -0.5 |",
    ]  # fmt: skip
    assert tables.to_csv(near).splitlines()[2] == "heun,,,2.0"


def test_calls_within_where_higher_is_better():
    rows = [
        (cells.Cell({"S": str(calls), "sampler": "ddim"}, {}), {"recall": value, "calls": calls})
        for calls, value in ((10, 0.5), (20, 0.77), (50, 0.9), (1000, 0.8))
    ]
    assert tables.calls_within(rows, "recall")[0][1] == {"calls": 20, "recall": 0.77, "recall at S = 1000": 0.8}
