"""Fields: the type, range, default and description of one value of a config, and how it is parsed from text.

A section of the config's schema (`runs.config`) is a dict of fields. `options` derives the fields of a registered
function or class from its signature and docstring, so they are defined only once, where the function is.
"""

import ast
import collections.abc
import dataclasses
import functools
import inspect
import math
import operator
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from numpy.typing import ArrayLike

REQUIRED = object()
"""The `default` of a field that a config must set."""

DTYPES = ("float32", "bfloat16", "float16", "float64")

_LARGEST = 2**31 - 1
"""The largest int32, the type of step counters and indices."""


@dataclasses.dataclass(frozen=True)
class Field:
    """A value of a config: its type, default, description and range."""

    type: Any
    """bool, int, float, str, `tuple[int, ...]`, `tuple[float, float]`, …, or a union of such with None.

    `dict` is a section with arbitrary fields, and `object` any value; the code that uses them checks them.
    """
    default: Any
    """The default, or `REQUIRED` if a config must set the field."""
    doc: str
    """The description, one sentence."""
    _: dataclasses.KW_ONLY
    low: float | None = None
    """The smallest allowed number."""
    high: float | None = None
    """The largest allowed number."""
    above: float | None = None
    """Numbers must be greater than this."""
    below: float | None = None
    """Numbers must be less than this."""
    choices: Collection[Any] | None = None
    """The allowed values; if it is a registry, its names and import paths."""
    allow_inf: bool = False
    """Whether floats may be infinite."""
    length: tuple[int, int] | None = None
    """The smallest and largest length of a tuple."""

    def check(self, value: Any) -> Any:
        """Returns `value` in its plain form (a list becomes a tuple, and an int becomes a float if the type is float).

        Raises:
          ValueError: a wrong type or a value out of range; the message lists what is allowed, but not the field's name.
        """
        plain = _convert(value, self.type)
        if plain is _INVALID:
            raise ValueError(f"{shown(value)} must be {self.allowed()}")
        if plain is not None and not self._in_range(plain):
            raise ValueError(f"{shown(value)} must be {self.allowed()}")
        return plain

    def parse(self, text: str) -> Any:
        """Parses a value from the command line; "None" and the empty string give None if the field allows it.

        Raises:
          ValueError: as in `check`.
        """
        if text in ("", "None") and _convert(None, self.type) is None:
            return self.check(None)
        if _convert(text, self.type) is not _INVALID and not _is_literal(text, self.type):
            return self.check(text)
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "true": True, "false": False}.get(
                text.lower(), text
            )
        return self.check(value)

    def allowed(self) -> str:
        """Describes the allowed values: "a whole number ≥ 1", "one of 'l2', 'l1'", …."""
        none = " or None" if self.type is not object and _convert(None, self.type) is None else ""
        if self.choices is not None:
            listed = ", ".join(map(repr, self.choices))
            also = " or an import path 'package.module:attribute'" if isinstance(self.choices, Mapping) else ""
            several = "a tuple of " if typing.get_origin(self.type) is tuple else "one of "
            return several + listed + also + none
        words = _describe(self.type)
        bounds = [
            f"{sign} {bound if isinstance(bound, int) else format(bound, 'g')}"
            for sign, bound in (("≥", self.low), (">", self.above), ("≤", self.high), ("<", self.below))
            if bound is not None
        ]
        if self.length is not None:
            least, most = self.length
            words += f" ({least} of them)" if least == most else f" (at least {least})" if least else ""
        return words + (f" {' and '.join(bounds)}" if bounds else "") + none

    def _in_range(self, value: Any) -> bool:
        if isinstance(value, tuple):
            least, most = self.length or (0, 10_000)
            if self.choices is None and not least <= len(value) <= most:
                return False
            return all(self._in_range(entry) for entry in value)
        if self.choices is not None:
            also = (
                isinstance(self.choices, Mapping) and isinstance(value, str) and re.fullmatch(r"[\w.]+:[\w.]+", value)
            )
            return value in self.choices or bool(also)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if isinstance(value, int) and abs(value) > _LARGEST and self.high is None:
                return False
            return (
                (math.isfinite(value) or (self.allow_inf and value == math.inf))
                and (self.low is None or value >= self.low)
                and (self.high is None or value <= self.high)
                and (self.above is None or value > self.above)
                and (self.below is None or value < self.below)
            )
        return not isinstance(value, str) or bool(value)


_INVALID = object()


def _convert(value: Any, wanted: Any) -> Any:
    """Returns `value` in the given type, or `_INVALID`."""
    origin = typing.get_origin(wanted)
    if origin in (typing.Union, types.UnionType):
        for option in typing.get_args(wanted):
            if (found := _convert(value, option)) is not _INVALID:
                return found
        return _INVALID
    if wanted is object:
        return value
    if wanted is dict:
        return dict(value.items()) if hasattr(value, "items") else _INVALID
    if wanted in (None, type(None)):
        return None if value is None else _INVALID
    if origin is tuple or wanted is tuple:
        if not isinstance(value, (tuple, list)):
            return _INVALID
        entries = typing.get_args(wanted)
        if len(entries) == 2 and entries[1] is Ellipsis:
            entries = (entries[0],) * len(value)
        if len(entries) != len(value):
            return _INVALID
        found = tuple(_convert(entry, one) for entry, one in zip(value, entries, strict=True))
        return _INVALID if any(entry is _INVALID for entry in found) else found
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**1000 else _INVALID
    if wanted in (bool, int, float, str) and type(value) is wanted:
        return value
    return _INVALID


def _is_literal(text: str, wanted: Any) -> bool:
    """Returns whether `text` is a Python literal of the type `wanted`, other than a string or None."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return not isinstance(value, str) and value is not None and _convert(value, wanted) is not _INVALID


_WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a string",
    dict: "a section",
    object: "any value",
}
_PLURALS = {bool: "booleans", int: "whole numbers", float: "numbers", str: "strings"}


def _describe(wanted: Any) -> str:
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(option) for option in arguments if option is not type(None))
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"a tuple of {_plural(arguments[0])}"
        return f"a tuple of {len(arguments)} {_PLURALS.get(arguments[0], 'tuples')}"
    return _WORDS.get(wanted, str(wanted))


def _plural(wanted: Any) -> str:
    return _PLURALS[float] if wanted == int | float else _PLURALS.get(wanted, "tuples")


def shown(value: Any) -> str:
    """Returns the repr of a value for an error message, on one line and at most 80 characters long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}…"


def options(entry: Callable[..., Any], given: Collection[str] = ()) -> dict[str, Field]:
    """Returns the options of a registered function or class: its parameters except those that the library passes.

    The type of an option is the parameter's annotation; its description is read from the docstring's section "Args:" or
    "Attributes:". Parameters that a config cannot hold (functions, arrays with several axes) are left out. The entry
    checks the ranges itself and raises a `ValueError` that begins with "name=value".

    Args:
      entry: a function, or a class (the parameters of its `__init__`; for a dataclass or Flax module, its fields).
      given: the names of the parameters that the library passes.
    """
    return {name: field for name, field in _options(entry).items() if name not in given}


@functools.cache
def _options(entry: Callable[..., Any]) -> dict[str, Field]:
    try:
        hints = typing.get_type_hints(entry.__init__ if inspect.isclass(entry) else entry)
    except (NameError, TypeError, AttributeError):
        hints = {}
    sentences = _sentences(inspect.getdoc(entry) or "")
    found = {}
    for name, parameter in inspect.signature(entry).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or name in ("self", "parent", "name"):
            continue
        default = REQUIRED if parameter.default is parameter.empty else parameter.default
        hint = hints.get(name, parameter.annotation)
        if hint is parameter.empty and default not in (REQUIRED, None):
            hint = type(default)
        choices = None
        if name == "dtype":
            hint, default, choices = str, "float32", DTYPES
        elif typing.get_origin(hint) is typing.Literal:
            choices = typing.get_args(hint)
            hint = type(choices[0])
        if (wanted := _config_type(hint)) is not None:
            found[name] = Field(wanted, default, sentences.get(name, ""), choices=choices)
    return found


_ARRAY_LIKE = frozenset(typing.get_args(ArrayLike))


def _config_type(hint: Any) -> Any:
    """Returns the type that a config uses for an annotation, or None if a config cannot hold such values.

    Sequences and `ArrayLike` become tuples; paths become strings.
    """
    if hint in (bool, int, float, str, dict, object, type(None)):
        return hint
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is collections.abc.Sequence:
        entry = _config_type(arguments[0])
        return None if entry is None else tuple[entry, ...]
    if origin is tuple:
        entries = tuple(entry if entry is Ellipsis else _config_type(entry) for entry in arguments)
        return None if None in entries else tuple[entries]
    if origin not in (typing.Union, types.UnionType):
        return None
    found = []
    if set(arguments) >= _ARRAY_LIKE:
        arguments, found = [one for one in arguments if one not in _ARRAY_LIKE], [tuple[float, ...]]
    found += [_config_type(one) for one in arguments if one is not os.PathLike]
    return None if None in found or not found else functools.reduce(operator.or_, found)


def _sentences(doc: str) -> dict[str, str]:
    """Returns {name: description} from a docstring's section "Args:" or "Attributes:", as sentences."""
    section = re.search(r"^(?:Args|Attributes):\n((?:(?:[ ].*)?\n?)*)", doc, re.MULTILINE)
    if section is None:
        return {}
    found, names = {}, []
    for line in inspect.cleandoc(section[1]).splitlines():
        if match := re.match(r"(\w[\w, ]*): (.*)", line):
            names = match[1].split(", ")
            found |= dict.fromkeys(names, match[2])
        elif line.startswith(" "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return {name: _sentence(text.replace("`", "")) for name, text in found.items()}


def _sentence(text: str) -> str:
    start = text[:1].upper() if text[:1].isascii() else text[:1]  # a Greek letter is a symbol
    return start + text[1:].rstrip(".") + "."
