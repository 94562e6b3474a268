"""The arguments that commands share: `--config`, other values of its fields, and FIELD=VALUE texts."""

import argparse

import pytest

from diffjax import buckets
from diffjax.cli import options
from diffjax.errors import UserError
from diffjax.runs import resolve

CONFIG = """
def get_config(channels="16"):
    return {
        "model": {"base_channels": int(channels), "channel_mults": (1, 2), "attention_resolutions": ()},
        "train": {"steps": 10},
        "optimizer": {"learning_rate": 2e-3},
        "sample": {"num_steps": 5},
    }
"""


@pytest.fixture
def parse(tmp_path, monkeypatch):
    """A function: the arguments of a command line → (resolved config, the parsed arguments)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.py").write_text(CONFIG)

    def parse(*arguments):
        parser = argparse.ArgumentParser(allow_abbrev=False)
        options.add_config(parser, "the experiment")
        parser.add_argument("--workdir")
        args = parser.parse_args(list(arguments))
        return options.config(args), args

    return parse


@pytest.mark.parametrize("equals", [True, False])
def test_valid_values(parse, equals):
    given = {
        "config": "good.py:8", "workdir": "x", "config.train.steps": "20", "config.sample.eta": "0.5",
        "config.model.channel_mults": "1,1.5,2", "config.model.attention_resolutions": "(8,)",
        "config.optimizer.learning_rate": "1", "config.optimizer.grad_clip_norm": "None",
        "config.data.classes": "[3, 5]", "config.seed": "7", "config.model.activation": "gelu",
        "config.model.middle_scale": "1.5", "config.model.resblock_up_levels": "1,",
    }  # fmt: skip
    words = [
        word for name, value in given.items() for word in ([f"--{name}={value}"] if equals else [f"--{name}", value])
    ]
    config, args = parse(*words, "--noconfig.sample.sigma_hat", "--config.model.remat")
    assert args.workdir == "x"
    found = resolve.flatten(config)
    wanted = {
        "seed": 7, "model.base_channels": 8, "model.channel_mults": (1, 1.5, 2), "model.attention_resolutions": (8,),
        "model.activation": "gelu", "model.middle_scale": 1.5, "model.resblock_up_levels": (1,),
        "model.remat": True, "train.steps": 20, "optimizer.learning_rate": 1.0, "optimizer.grad_clip_norm": None,
        "sample.eta": 0.5, "sample.sigma_hat": False, "sample.num_steps": 5, "data.classes": (3, 5),
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted


def test_a_name_brings_its_options_in_any_order(parse):
    texts = ["--config.sample.variance=fixed_large", "--config.sample.sampler=ddpm"]
    for order in (texts, texts[::-1]):
        config, _ = parse("--config=good.py", *order)
        assert config.sample.variance == "fixed_large"
        assert "eta" not in config.sample


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--config.model.chanels=8"], "config.model.chanels: .* config.model has no such field .*; nearest: .*config.model.channel_mults"),
        (["-config.model.chanels", "8"], "config.model.chanels: .* config.model has no such field"),
        (["--config.training.steps=8"], "config.training is not a section of the config; sections: .*train"),
        (["--noconfig.sample.sigma_hats"], "config.sample.sigma_hats: .*; nearest: .*config.sample.sigma_hat"),
        (["--config.seed.x=1"], "config.seed is not a section of the config"),
        (["--config.q=1"], "config.q: .* config has no such field; its fields: config.seed, config.imports, config.task"),
        (["--config.model.channel_mults[1]=8"], r"config.model.channel_mults\[1\]: .*; nearest: config.model.channel_mults"),
        (["--config.train.steps=2.5"], "config.train.steps: 2.5 must be a whole number ≥ 1"),
        (["--config.train.steps", "many: 3"], "config.train.steps: 'many: 3' must be a whole number"),
        (["--config.train.steps"], "config.train.steps: True must be a whole number"),
        (["--config.sample.eta=none"], "config.sample.eta: 'none' must be a number"),
        (["--config.sample.sigma_hat=2"], "config.sample.sigma_hat: 2 must be True or False"),
        (["--config.model.channel_mults=(1,"], r"config.model.channel_mults: '\(1,' must be a tuple of numbers"),
        (["--config.model.channel_mults=1,x"], "config.model.channel_mults: '1,x' must be a tuple of numbers"),
        (["--config.sample=3"], "config.sample: '3' is a section; set its fields: config.sample.FIELD=VALUE"),
    ],
)  # fmt: skip
def test_invalid_values(parse, arguments, line):
    with pytest.raises(UserError, match=line) as caught:
        parse("--config=good.py", *arguments)
    assert str(caught.value).startswith("config.")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "source", "line"),
    [
        ("none.py", None, "--config=none.py cannot be loaded: there is no file none.py"),
        ("none", None, "--config=none is not a file (…/NAME.py), a module, or one of diffjax's configs: "),
        ("bad.py", "\nimport no_such_module\n", "--config=bad.py cannot be loaded: ModuleNotFoundError: No module named 'no_such_module' (line 2)"),
        ("bad.py", "def f(:\n", "--config=bad.py cannot be loaded: SyntaxError: invalid syntax (bad.py, line 1)"),
        ("bad.py", "def get_config():\n  return 1 / 0", "--config=bad.py cannot be loaded: ZeroDivisionError: division by zero (line 2)"),
        ("bad.py", "x = 1", "--config=bad.py cannot be loaded: KeyError: 'get_config'"),
        ("bad.py", "def get_config(): pass", "--config=bad.py: get_config() returns a NoneType, not a ConfigDict"),
        ("good.py:1:2", CONFIG, "--config=good.py:1:2 cannot be loaded: ValueError: invalid literal for int"),
    ],
)  # fmt: skip
def test_a_config_that_cannot_be_loaded(parse, tmp_path, path, source, line):
    if source is not None:
        (tmp_path / path.split(":")[0]).write_text(source)
    with pytest.raises(UserError) as caught:
        parse(f"--config={path}", "--config.seed=3")
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_configs_are_files_modules_and_names(parse, tmp_path, monkeypatch):
    assert parse("--config=digits")[0].data.source == "digits"
    (tmp_path / "my_experiments").mkdir()
    (tmp_path / "my_experiments" / "faces.py").write_text(CONFIG)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_experiments/faces.py", "my_experiments.faces"):
        assert parse(f"--config={name}")[0].model.base_channels == 16


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--workdir=x"], "the following arguments are required: --config"),
        (["--config=digits", "--wrokdir=x"], "unrecognized arguments: --wrokdir=x"),
        (["--config=digits", "--workdi=x"], "unrecognized arguments: --workdi=x"),
    ],
)
def test_wrong_usage(parse, capsys, arguments, line):
    with pytest.raises(SystemExit) as caught:
        parse(*arguments)
    assert caught.value.code == 2
    assert line in capsys.readouterr().err


def test_other_arguments_are_left():
    others, texts = options.split_config_fields(
        ["a", "--config=x", "--config.seed=1=2", "--configs.y=3", "--config.q", "--z"]
    )
    assert others == ["a", "--config=x", "--configs.y=3", "--z"]
    assert texts == {"seed": "1=2", "q": "True"}


def test_assignments():
    text = "a=1,b=(1, 2),c='x,y',d=,e=f=g"
    assert options.assignments("--x", text) == {"a": "1", "b": "(1, 2)", "c": "'x,y'", "d": "", "e": "f=g"}
    assert options.literals("--x", text) == {"a": 1, "b": (1, 2), "c": "x,y", "d": None, "e": "f=g"}
    with pytest.raises(UserError, match=r"--x a=1,b: 'b' must be FIELD=VALUE"):
        options.assignments("--x", "a=1,b")


def test_numbers():
    for kind, good, bad in (
        (options.positive, "1", "0"),
        (options.natural, "0", "-1"),
        (options.seed, "4294967295", "-1"),
    ):
        assert kind(good) == int(good)
        with pytest.raises(argparse.ArgumentTypeError, match=f"{bad} must be "):
            kind(bad)


@pytest.fixture
def changed(tiny_config):
    """A function: the tiny config with the changes of sampling and data flags."""

    def change(*arguments, **fields):
        parser = argparse.ArgumentParser(allow_abbrev=False)
        options.add_sampling(parser)
        options.add_data(parser)
        args = parser.parse_args(list(arguments))
        return options.data(args, options.sampling(args, tiny_config(**fields)))

    return change


def test_sampling_flags(changed):
    config = changed("--steps", "7", "--sampler=ddim", "--eta=0.5", "--sample", "num_steps=9,clip=None")
    assert (config.sample.num_steps, config.sample.eta, config.sample.clip) == (9, 0.5, None)
    config = changed("--spacing", "uniform", "--sample", "stride=5")
    assert config.sample.stride == 5
    with pytest.raises(UserError, match="config.sample.eta: '0.5' is given, .* no such field of 'ddpm'"):
        changed("--sampler=ddpm", "--eta=0.5")


def test_data_flags(changed):
    assert changed(data__holdout=0.2).data.holdout == 0.2
    config = changed("--data", "classes=(3, 5),crop=random", data__holdout=0.2)
    assert (config.data.classes, config.data.crop, config.data.holdout) == ((3, 5), "random", 0.0)
    assert changed("--data", "holdout=0.1", data__holdout=0.2).data.holdout == 0.1
    with pytest.raises(UserError, match="config.data.classses: .*; nearest: config.data.classes"):
        changed("--data", "classses=3")


def test_the_place_of_an_output(tmp_path):
    new = tmp_path / "new" / "page.html"
    assert options.output_file(new, ".html") == new
    assert options.output_folder(new.parent) == new.parent
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(UserError, match=r"^cannot write to \S+: \S+/file is not a folder$"):
            options.output_folder(path)
    assert options.output_file(tmp_path / "file") == tmp_path / "file"
    with pytest.raises(UserError, match=r"^--out=\S+ must be a file; it is a folder$"):
        options.output_file(tmp_path)


def test_a_place_without_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(options.os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(UserError, match=r"^cannot write to \S+/new: permission denied$"):
        options.output_file(tmp_path / "new" / "x.json")


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("train", "ablations/ddim_table1", "sets axes, as a sweep does: give it to `diffjax ablate`"),
        ("ablate", "digits", "sets schedule and no axes, as a training does: give it to `diffjax train`"),
    ],
)
def test_a_config_of_the_other_command(name, config, words, command, tmp_path):
    place = "--workdir" if name == "train" else "--out"
    with pytest.raises(SystemExit, match=f"^error: --config={config} {words}$"):
        command(name, "--config", config, place, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_paths_that_must_be_on_this_machine(tmp_path):
    for parse, text in ((options.path, "s3://bucket/run"), (options.local_path, "gs://bucket/run")):
        assert parse(str(tmp_path)) == tmp_path
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' must be on this machine: mount the bucket"):
            parse(text)


def test_a_bucket_without_its_package(monkeypatch):
    buckets._check_reachable.cache_clear()
    monkeypatch.setattr(buckets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(argparse.ArgumentTypeError, match=r"gs://bucket needs the package gcsfs: pip install"):
        options.path("gs://bucket/run")
