"""The notebooks run, and show what they say."""

import runpy
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"


@pytest.mark.slow
def test_learned_sampler(capsys):
    found = runpy.run_path(str(NOTEBOOKS / "learned_sampler.py"))
    assert found["fitted"].loss < 0.4 * found["fitted"].start
    distances = found["distances"]
    assert distances["fitted, 5 steps"] < 0.4 * distances["DDIM, 5 steps"]
    assert capsys.readouterr().out.count("t_net") == 2
