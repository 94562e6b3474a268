"""`UserError`, the exception for bad input, and helpers that raise it with a one-line message."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any


class UserError(Exception):
    """Bad input: the message is one line that names the value, what is allowed, and the config field or file.

    Commands print it without a traceback and exit with status 1.
    """


@contextlib.contextmanager
def naming(section: str):
    """Turns a `ValueError` raised inside into a `UserError` that opens with the config section or field it came from.

    "eta=2 must be within [0, 1]" inside `naming("config.sample")` becomes "config.sample.eta: 2 must be within [0, 1]".
    """
    try:
        yield
    except ValueError as error:
        text = str(error)
        if match := re.match(r"(\w+)=(.*)", text, re.DOTALL):
            raise UserError(f"{section}.{match[1]}: {match[2]}") from error
        raise UserError(f"{section}: {text}") from error


@contextlib.contextmanager
def writing(path):
    """Turns an `OSError` raised inside into a `UserError`, such as for a full disk or a folder that is not writable."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {error.filename or path}: {error.strerror or error}") from error


def read_json(path: Path, missing: str) -> dict[str, Any]:
    """Returns the JSON object that a file holds.

    Raises:
      UserError: the file does not exist (`missing` describes it for the message), or does not hold a JSON object.
    """
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: {missing}") from None
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"cannot read {path}: it holds a {type(found).__name__}, not an object")
    return found
