"""Every byte of every file that commands read again, damaged; `counts.py` prints the counts."""

import pytest
from damage import RIGHT, count, kinds

NAMES = (
    "config.json", "metrics.jsonl", "evaluation.json", "likelihood.json", "moments.json", "parts/run.json",
    "parts/N.npz", "a sweep's protocol.json", "a cell's json", "a cell's npz", "a sweep's table.csv",
    "samples.npz, images of a data set",
    "an image, PNG", "reference statistics", "a classifier", "exported weights", "exported config.json",
    "exported scheduler_config.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(workdir, tmp_path_factory):
    return kinds(tmp_path_factory.mktemp("damage"), workdir)


def test_the_kinds_are_all(made):
    assert tuple(made) == NAMES


@pytest.mark.parametrize(
    "most", [12, pytest.param(1500, marks=pytest.mark.slow)], ids=["some bytes", "every byte or 1500 of them"]
)
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file(made, name, most):
    counts = count(made[name], most)
    # A file that says whose the parts are is written again; each part says it too. A table gives the order of the rows.
    assert counts.total() > counts[RIGHT] or name in ("parts/run.json", "a sweep's table.csv")
