"""Every experiment in configs/ is valid: its network, its sampler, its data."""

import ast
import math
import re
from pathlib import Path

import jax
import pytest

from diffjax.errors import UserError
from diffjax.runs import build, config_files, resolve

CONFIGS = Path(__file__).parents[1] / "configs"
PARAMETERS = {
    "digits": 231_105,
    "digits_distill": 462_210,
    "digits_edm": 231_105,
    "digits_flow": 231_105,
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


@pytest.fixture
def load(tmp_path):
    """A function: the resolved config of a name, with data that does not exist unless it is the bundled digits."""

    def resolved(name):
        config = config_files.load(name)
        field = {"digits": None, "tfds": "data_dir"}.get(config.data.source, "path")
        return resolve.override(config, {f"data.{field}": str(tmp_path / "nowhere")} if field else {})

    return resolved


def test_every_config_is_tested():
    assert {path.stem for path in CONFIGS.glob("*.py")} == PARAMETERS.keys() == set(config_files.names())


@each
def test_experiment(load, name):
    config = load(name)
    task = build.task(config)
    build.sampling(config, task)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(build.params_shape(task)))
    assert PARAMETERS[name] in (None, count)


@each
def test_data(load, name):
    """The options of the source are valid: what is missing is the data alone."""
    config = load(name)
    if config.data.source == "digits":
        assert len(build.images(config).source) > 1000
        return
    missing = {"npz": "must be an existing file", "tfds": "is not prepared"}.get(
        config.data.source, "must be an existing folder"
    )
    with pytest.raises(UserError, match=missing):
        build.images(config)


@each
def test_opens_with_its_command_and_its_result(name):
    text = ast.get_docstring(ast.parse((CONFIGS / f"{name}.py").read_text()))
    assert f"diffjax train --config {name} --workdir runs/{name}" in text
    assert re.search(r"not run here|Fréchet distance", text, re.IGNORECASE)


def test_no_config_changes_another(load):
    first = resolve.to_dict(load("cifar10"))
    for name in PARAMETERS:
        load(name)
    assert resolve.to_dict(load("cifar10")) == first
