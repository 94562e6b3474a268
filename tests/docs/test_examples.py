"""The examples in docstrings show what Python prints."""

import doctest
import importlib

import pytest

MODULES = (
    "data.toys", "inverse.operators", "latents", "learn.grids", "metrics.frechet", "metrics.image_quality", "noise",
    "process", "samplers.ancestral", "sampling", "schedules.betas", "steps", "thresholds", "timesteps.indices",
)  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"diffjax.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
