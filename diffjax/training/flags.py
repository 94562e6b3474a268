"""NAME=VALUE on command lines: `--config.x=y`, and what is wrong with it, in one line; `--flag NAME=VALUE`."""

import ast
import difflib
import re
import runpy
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_path

from diffjax.errors import UserError


def assignment(flag: str, text: str) -> tuple[str, Any]:
    """(NAME, VALUE) of `--flag NAME=VALUE`: the value as Python has it, and else as it stands; an empty one is None.

    Raises:
      UserError: no "=".
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"{flag} {text}: must be NAME=VALUE")
    try:
        return name, ast.literal_eval(value) if value else None
    except (ValueError, SyntaxError):
        return name, value


def parse_flags(argv: list[str]) -> list[str]:
    """Parses as absl does, for `app.run(main, flags_parser=parse_flags)`: returns the arguments that are no flags.

    Ends the process with one line, "error: …", where the config file cannot be loaded, has no such field, or has one of
    another type.
    """
    try:
        config = _load(argv)
        _check_names(argv, config)
        arguments = _parse(argv, config)
        _check_tuples(config)
    except (UserError, flags.Error) as error:
        sys.exit(f"error: {error}")
    return arguments


def _load(argv: list[str]) -> ConfigDict:
    """What the file of `--config` says, without the overrides; nothing where none is given (absl asks for it)."""
    path = ""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if match := re.fullmatch(r"--?config(?:=(.*))?", argument):
            path = following if match[1] is None else match[1]
    if not path:
        return ConfigDict()
    file, *option = path.split(":", 1)
    try:
        config = runpy.run_path(file)["get_config"](*option)
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        where = f" (line {lines[-1]})" if lines else ""
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"--config={path} cannot be loaded: {what}{where}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={path}: get_config() gives a {type(config).__name__}, not a ConfigDict")
    return config


def _check_names(argv: list[str], config: ConfigDict) -> None:
    fields = list(_fields(config))
    for argument in argv:
        match = re.match(r"--?(?:no)?config\.([^=]*)", argument)
        if match and match[1] not in fields:
            near = difflib.get_close_matches(match[1], fields)
            listed = ", ".join(f"config.{field}" for field in near or config)
            which = "nearest" if near else "fields"
            raise UserError(f"config.{match[1]} is no field of the config; {which}: {listed}")


def _parse(argv: list[str], config: ConfigDict) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.IllegalFlagValueError as error:
        # absl's words: "flag --NAME=VALUE: REASON".
        name, value = str(error).removeprefix("flag --").removesuffix(f": {error.__context__}").split("=", 1)
        if not name.startswith("config."):
            raise
        wanted = config_path.get_type(name.removeprefix("config."), config)
        raise UserError(f"{name}: {value!r} is not of type {wanted.__name__}") from error


def _check_tuples(config: ConfigDict) -> None:
    """Sees that tuples hold what those of the file hold; ml_collections takes any."""
    for field in _fields(config):
        default, given = (config_path.get_value(field, c) for c in (config, flags.FLAGS.config))
        types = {type(entry) for entry in default} if isinstance(default, tuple) else ()
        if types and any(type(entry) not in types for entry in given):
            names = " or ".join(sorted(t.__name__ for t in types))
            raise UserError(f"config.{field}: {given!r} is not a tuple of {names}")


def _fields(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    for name, value in config.items():
        yield prefix + name
        if isinstance(value, ConfigDict):
            yield from _fields(value, f"{prefix}{name}.")
