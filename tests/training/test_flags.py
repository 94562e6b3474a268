"""Bad command lines: one line that names the flag."""

import itertools
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from diffjax.training.flags import parse_flags

# ml_collections loads the file with a deprecated call.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

CONFIG = """
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(channels="16"):
    return ConfigDict({
        "seed": 0,
        "model": {"channels": int(channels), "multipliers": (1, 2), "attention": ()},
        "train": {"steps": 10, "rate": 2e-3},
        "sample": {"steps": 5, "eta": placeholder(float), "sigma_hat": placeholder(bool)},
    })
"""


@pytest.fixture
def parse(tmp_path, monkeypatch):
    """A function: command line → (config, what is no flag), with flags of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.py").write_text(CONFIG)

    def parse(*arguments):
        argv, values = ["train.py", *arguments], flags.FlagValues()
        monkeypatch.setattr(sys, "argv", argv)
        monkeypatch.setattr(flags, "FLAGS", values)
        config_flags.DEFINE_config_file("config", None, "", flag_values=values)
        flags.DEFINE_string("workdir", None, "", flag_values=values)
        flags.mark_flag_as_required("config", flag_values=values)
        others = parse_flags(argv)
        return values.config, others[1:]

    return parse


@pytest.mark.parametrize("equals", [True, False])
def test_good_flags(parse, equals):
    given = {
        "config": "good.py:8", "workdir": "x", "config.train.steps": "20", "config.sample.eta": "0.5",
        "config.model.multipliers": "1,1,2", "config.model.attention": "8", "config.train.rate": "1",
    }  # fmt: skip
    words = [[f"--{name}={value}"] if equals else [f"--{name}", value] for name, value in given.items()]
    config, others = parse(*itertools.chain(*words), "--noconfig.sample.sigma_hat", "other")
    assert others == ["other"]
    assert config.to_dict() == {
        "seed": 0,
        "model": {"channels": 8, "multipliers": (1, 1, 2), "attention": (8,)},
        "train": {"steps": 20, "rate": 1.0},
        "sample": {"steps": 5, "eta": 0.5, "sigma_hat": False},
    }


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--config.model.chanels=8"], "config.model.chanels is no field of the config; nearest: config.model.channels"),
        (["-config.model.chanels", "8"], "config.model.chanels is no field of the config; nearest: config.model.channels"),
        (["--config.training.steps=8"], "config.training.steps is no field of the config; nearest: config.train.steps"),
        (["--noconfig.sample.sigma"], "config.sample.sigma is no field of the config; nearest: config.sample.sigma_hat"),
        (["--config.seed.x=1"], "config.seed.x is no field of the config; nearest: config.seed"),
        (["--config.q=1"], "config.q is no field of the config; fields: config.model, config.sample, config.seed, config.train"),
        (["--config.=1"], "config. is no field of the config; fields: config.model, config.sample"),
        (["--config.model.multipliers[1]=8"], "config.model.multipliers[1] is no field of the config; nearest: config.model.mul"),
        (["--config.train.steps=2.5"], "config.train.steps: '2.5' is not of type int"),
        (["--config.train.steps", "many: 3"], "config.train.steps: 'many: 3' is not of type int"),
        (["--config.sample.eta=none"], "config.sample.eta: 'none' is not of type float"),
        (["--config.sample.sigma_hat=2"], "config.sample.sigma_hat: '2' is not of type bool"),
        (["--config.model.multipliers=(1,"], "config.model.multipliers: '(1,' is not of type tuple"),
        (["--config.model.multipliers=1,x"], "config.model.multipliers: ('1,x',) is not a tuple of int"),
        (["--config.sample=3"], "config.sample: '3' is not of type ConfigDict"),
        (["--config.train.steps"], "Missing value for flag --config.train.steps"),
        (["--wrokdir=x"], "Unknown command line flag 'wrokdir'. Did you mean: workdir"),
    ],
)  # fmt: skip
def test_bad_flags(parse, arguments, line):
    with pytest.raises(SystemExit) as caught:
        parse("--config=good.py", *arguments)
    assert caught.value.code.startswith(f"error: {line}")
    assert "\n" not in caught.value.code


@pytest.mark.parametrize(
    ("path", "source", "line"),
    [
        ("none.py", None, "--config=none.py cannot be loaded: FileNotFoundError: "),
        ("bad.py", "\nimport no_such_module\n", "--config=bad.py cannot be loaded: ModuleNotFoundError: No module named 'no_such_module' (line 2)"),
        ("bad.py", "def f(:\n", "--config=bad.py cannot be loaded: SyntaxError: invalid syntax (bad.py, line 1)"),
        ("bad.py", "def get_config():\n  return 1 / 0", "--config=bad.py cannot be loaded: ZeroDivisionError: division by zero (line 2)"),
        ("bad.py", "x = 1", "--config=bad.py cannot be loaded: KeyError: 'get_config'"),
        ("bad.py", "def get_config(): pass", "--config=bad.py: get_config() gives a NoneType, not a ConfigDict"),
        ("good.py:1:2", CONFIG, "--config=good.py:1:2 cannot be loaded: ValueError: invalid literal for int"),
    ],
)  # fmt: skip
def test_a_config_that_cannot_be_loaded(parse, tmp_path, path, source, line):
    if source is not None:
        (tmp_path / path.split(":")[0]).write_text(source)
    with pytest.raises(SystemExit) as caught:
        parse(f"--config={path}", "--config.seed=3")
    assert caught.value.code.startswith(f"error: {line}")
    assert "\n" not in caught.value.code


def test_no_config(parse):
    with pytest.raises(SystemExit, match="^error: flag --config=None: Flag --config must have a value"):
        parse("--workdir=x")
