"""The error that a person at a command line can mend."""

import contextlib


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
