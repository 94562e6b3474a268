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
