"""The table of docs/inverse.md: how far each method is from the exact posterior."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import posteriors

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("x64")]
GAUSSIAN = ("Gaussian, mask", "Gaussian, blur", "Gaussian, downsampling")
MIXTURES = ("four modes in 2-D", "four modes, downsampling")
PAGE = Path(__file__).parents[2] / "docs" / "inverse.md"


def published():
    """Returns the table of the page: {problem: {method: {figure: value}}}."""
    found = {}
    for part in re.split(r"\n\*\*(?=Gaussian|four)", PAGE.read_text())[1:]:
        name, rest = part.split("**", 1)
        lines = [re.split(r" *\| *", line.strip("| ")) for line in rest.splitlines() if line.startswith("|")]
        found[name] = {row[0]: dict(zip(lines[0][1:], map(float, row[1:]), strict=True)) for row in lines[2:]}
    return found


@pytest.mark.parametrize("name", GAUSSIAN + MIXTURES)
def test_page(name):
    """1,000 samples or particles in place of 4,000, with the room that their own noise needs."""
    assert set(published()) == set(posteriors.problems())
    table, problem = published()[name], posteriors.problems()[name]
    assert set(table) == {"exact samples", *posteriors.methods_of(name)}
    for method in posteriors.methods_of(name):
        found = posteriors.figures(problem, *posteriors.run(problem, method, num=1000, steps=100, seed=1))
        room = 0.3 if method == "twisted" else 0.06
        for figure, value in table[method].items():
            np.testing.assert_allclose(found[figure], value, rtol=0.25, atol=room, err_msg=f"{method}: {figure}")


@pytest.mark.parametrize("name", GAUSSIAN)
def test_moment_matching_is_exact_for_gaussian_data(name):
    problem = posteriors.problems()[name]
    exact, _ = posteriors.run(problem, "exact network", num=64, steps=100)
    found, _ = posteriors.run(problem, "mmps", num=64, steps=100)
    np.testing.assert_allclose(found, exact, atol=1e-5)


def test_particles_have_the_weights_of_modes():
    problem = posteriors.problems()["four modes in 2-D"]
    found = posteriors.figures(problem, *posteriors.run(problem, "twisted", num=4000, steps=100))
    x = np.asarray(problem.exact.sample(jax.random.key(3), 4000)).reshape(4000, -1)
    floor = posteriors.figures(problem, x, np.full(4000, 1 / 4000))
    assert found["modes"] < 0.05
    assert found["sliced"] < 0.1
    assert floor["sliced"] < found["sliced"] + 0.03
