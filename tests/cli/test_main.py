"""The console script: its commands, and the help of each."""

import argparse
import importlib

import pytest

from diffjax.cli import main
from diffjax.cli.main import module_of


def arguments(name):
    """The arguments of a command, those of groups included."""
    parser = argparse.ArgumentParser()
    importlib.import_module(module_of(name)).add_arguments(parser)
    return parser._actions


@pytest.mark.parametrize("name", main.COMMANDS)
def test_help(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main.main([name, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: diffjax {name} ")
    assert f"\ndiffjax {name} " in text  # an example


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_argument_has_a_help_text(name):
    assert [action.option_strings for action in arguments(name) if not action.help] == []


def test_overview_and_version(capsys):
    assert main.main(["--help"]) == 0
    overview = capsys.readouterr().out
    assert all(f"  {name} " in overview for name in main.COMMANDS)
    assert all(f"\n  {status} " in overview for status in (0, 1, 2, 130))
    assert main.main([]) == 2
    assert capsys.readouterr().out == overview
    assert main.main(["--version"]) == 0


def test_an_unknown_command_is_wrong_usage(capsys):
    assert main.main(["trian"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: 'trian' is not a command; commands: train, sample,")


def test_flags_are_not_abbreviated(capsys):
    with pytest.raises(SystemExit, match="2"):
        main.main(["sample", "--work", "runs/digits"])
    assert "arguments --workdir --weights is required" in capsys.readouterr().err
