"""Registries of everything that a config can name: one for each kind, filled by the modules that define the entries.

    SCHEDULES = Registry("schedule")

    @SCHEDULES.register
    def linear(num_timesteps: int = 1000, *, beta_start: float = 1e-4, beta_end: float = 0.02) -> NoiseSchedule: ...

    SCHEDULES["linear"]                    # a registered name
    SCHEDULES["my_lab.schedules:warm"]     # an import path, "package.module:attribute", resolves to that attribute

An entry is usually a function or a class. Its keyword arguments are the options that a config may set
(`fields.options`), and `call` passes each entry only the caller's values that it has parameters for.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, overload

Entry = TypeVar("Entry")


class Registry(Mapping[str, Any]):
    """A mapping from names to the entries of one kind; a lookup also accepts an import path "package.module:attribute".

    Args:
      kind: the kind of the entries, for error messages.
      package: a package whose modules register entries; they are imported before the first lookup.
    """

    def __init__(self, kind: str, *, package: str | None = None):
        self.kind, self._package, self._entries = kind, package, {}

    @overload
    def register(self, entry: Entry, *, name: str | None = None) -> Entry: ...

    @overload
    def register(self, entry: None = None, *, name: str | None = None) -> Callable[[Entry], Entry]: ...

    def register(self, entry: Any = None, *, name: str | None = None) -> Any:
        """Adds `entry` under `name`, or its own name, and returns it; serves as a decorator.

        A definition that is run again, as in a cell of a notebook, replaces its entry.

        Raises:
          ValueError: the name is taken by another entry.
        """
        if entry is None:
            return lambda entry: self.register(entry, name=name)
        name = name or entry.__name__
        if name in self._entries and not _same_definition(self._entries[name], entry):
            raise ValueError(f"the {self.kind} {name!r} is registered already")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> Any:
        """Returns the entry of a registered name or an import path.

        Raises:
          ValueError: an unknown name (the message lists the registered ones), or a path that cannot be imported.
        """
        self._load()
        if isinstance(name, str) and name in self._entries:
            return self._entries[name]
        if isinstance(name, str) and ":" in name:
            return import_path(name)
        allowed = ", ".join(map(repr, self))
        raise ValueError(f"{name!r} is not one of {allowed}, nor an import path 'package.module:attribute'")

    def __contains__(self, name: object) -> bool:
        self._load()
        return isinstance(name, str) and name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(self._entries)

    def __len__(self) -> int:
        self._load()
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Registry({self.kind}: {', '.join(self)})"

    def _load(self) -> None:
        if self._package is not None:
            package, self._package = importlib.import_module(self._package), None
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{package.__name__}.{module.name}")
            # Sorted, so that the order does not depend on the imports.
            self._entries = dict(sorted(self._entries.items()))


def import_path(path: str) -> Any:
    """Imports the attribute of a path "package.module:attribute".

    Raises:
      ValueError: no such module or attribute, or an error while the module is imported.
    """
    module, _, attribute = path.partition(":")
    try:
        entry = importlib.import_module(module)
        for part in attribute.split("."):
            entry = getattr(entry, part)
    except Exception as error:  # a module can raise any error while it is imported
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{path!r} cannot be imported: {what}") from error
    return entry


def call(function: Callable[..., Any], given: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Calls `function` with those of the `given` values that it has parameters for, and with all `options`.

    Args:
      function: an entry of a registry.
      given: the caller's values by parameter name: `{"schedule": …, "num_timesteps": …}`.
      options: keyword arguments from a config.

    Raises:
      ValueError: an option that the function does not have.
    """
    parameters = inspect.signature(function).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if not takes_any and (unknown := sorted(options.keys() - parameters.keys())):
        known = ", ".join(name for name in parameters if name not in given) or "none"
        raise ValueError(f"{unknown[0]}={options[unknown[0]]!r} is not an option here; the options are: {known}")
    return function(**{name: value for name, value in given.items() if name in parameters}, **options)


def _same_definition(old: Any, new: Any) -> bool:
    """Returns whether two functions or classes are of one module and one name there."""
    return all(getattr(old, name, None) == getattr(new, name, object()) for name in ("__module__", "__qualname__"))
