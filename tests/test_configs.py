"""Every experiment in configs/ is one that can be: its network, its sampler, its data."""

import ast
import math
import re
from pathlib import Path

import jax
import pytest

from diffjax.errors import UserError
from diffjax.training import setup

CONFIGS = Path(__file__).parents[1] / "configs"
PARAMETERS = {
    "digits": 231_105,
    "classes_digits": 231_745,
    "fashion_mnist": None,
    "classes_fashion_mnist": None,
    "mnist": None,
    "cifar10": 35_746_307,
    "cifar10_iddpm": 52_546_438,
    "celeba64": 78_700_803,
    "lsun": 113_673_219,
    "imagenet64": 121_063_942,
    "sr3_fashion_mnist": None,
    "regression_fashion_mnist": None,
    "sr3_cifar10": None,
    "sr3_faces_16_128": 97_807_491,
    "deblur_small": None,
    "deblur_gopro": 32_349_254,
}
each = pytest.mark.parametrize("name", PARAMETERS)


def load(name):
    return __import__(f"configs.{name}", fromlist=["get_config"]).get_config()


def test_every_config_is_tested():
    assert {path.stem for path in CONFIGS.glob("*.py")} == PARAMETERS.keys()


@each
def test_experiment(name):
    experiment = setup.experiment(load(name))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(experiment.params_shape))
    assert PARAMETERS[name] in (None, count)


@each
def test_data(name, tmp_path):
    """A config's fields are those that its source takes: what is missing is the data alone."""
    config = load(name)
    if config.data.source == "digits":
        setup.images(config)
        return
    field, missing = {
        "npz": ("path", "is no file"),
        "tfds": ("data_dir", "is not prepared"),
        "folder": ("path", "is no folder"),
        "pairs": ("path", "is no folder"),
    }[config.data.source]
    config.data[field] = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=missing):
        setup.images(config)


@each
def test_opens_with_its_command_and_what_came_of_it(name):
    text = ast.get_docstring(ast.parse((CONFIGS / f"{name}.py").read_text()))
    assert f"python experiments/train.py --config configs/{name}.py --workdir runs/{name}" in text
    assert re.search(r"not run here|Fréchet distance", text, re.IGNORECASE)


def test_no_config_changes_another():
    first = load("cifar10").to_json()
    for name in PARAMETERS:
        load(name)
    assert load("cifar10").to_json() == first
