"""The error that a person at a command line can mend."""

import contextlib
import json
from pathlib import Path
from typing import Any


class UserError(Exception):
    """Bad input: the message is one line that names the value, what is allowed, and the config field or file.

    Command lines print it without a traceback and exit with 1.
    """


@contextlib.contextmanager
def naming(field: str):
    """Turns a `ValueError` raised inside into a `UserError` that opens with the config field it came from."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{field}: {error}") from error


@contextlib.contextmanager
def writing(path):
    """Turns an `OSError` raised inside into a `UserError`: a full disk, a folder that is not writable."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {error.filename or path}: {error.strerror or error}") from error


def read_json(path: Path, missing: str) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
      UserError: no such file (`missing` says what ought to be there), or one that holds something else.
    """
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is not there: {missing}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"cannot read {path}: it holds a {type(found).__name__}, not an object")
    return found
