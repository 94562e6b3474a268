"""From the names and values of a config section to a call."""

import inspect


def call(functions: dict, *, name: str, kind: str = "name", **options):
    """`functions[name](**options)`; what is None or "" is left to its default.

    Raises:
      ValueError: another name, an option that the function does not take, or one that it needs and is not given.
    """
    function = named(functions, kind, name)
    # The command line cannot give None, but it can empty a string.
    unset = [key for key, value in options.items() if value is None or (isinstance(value, str) and not value)]
    given = {key: value for key, value in options.items() if key not in unset}
    taken = inspect.signature(function).parameters
    if unknown := given.keys() - taken.keys():
        option = sorted(unknown)[0]
        raise ValueError(f"{option}={given[option]!r} means nothing to {name!r}: set it to None")
    for option in options.keys() - given.keys():
        if option in taken and taken[option].default is inspect.Parameter.empty:
            raise ValueError(f"{option}=None: {name!r} needs it")
    return function(**given)


def named(choices: dict, field: str, name: str):
    """`choices[name]`.

    Raises:
      ValueError: another name.
    """
    if name not in choices:
        raise ValueError(f"{field}={name!r} is not one of {', '.join(map(repr, choices))}")
    return choices[name]
