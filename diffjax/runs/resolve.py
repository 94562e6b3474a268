"""Completes and checks configs: adds the defaults to the fields that a config file or a command line sets."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from diffjax import fields
from diffjax.errors import UserError
from diffjax.fields import REQUIRED, Field
from diffjax.runs.config import SCHEMA, TASK, Named, Section
from diffjax.tasks.base import TASKS


def resolve(config: Mapping[str, Any], *, section: Section = SCHEMA, name: str = "config") -> ml_collections.ConfigDict:
    """Returns the config with every field: those given, checked, and the defaults of the others.

    Args:
      config: what a config file sets, nested.
      section: the section of the schema.
      name: the name of the config in error messages.

    Raises:
      UserError: an unknown field, or a value of another type or outside its range; the message names the field.
    """
    if section.optional and config is None:
        return None
    if not isinstance(config, (Mapping, ml_collections.ConfigDict)):
        raise UserError(f"{name}: {fields.shown(config)} must be a section: {', '.join(section.fields)}")
    given = dict(config.items())
    if "task" in section.fields:
        given = _with_defaults_of_the_task(given)
    known = fields_of(given, section, name)
    unknown = [field for field in given if field not in known]
    if unknown:
        raise UserError(_unknown(unknown[0], given[unknown[0]], known, section, name, given))
    resolved = ml_collections.ConfigDict()
    for field, spec in known.items():
        resolved[field] = _resolved(field, spec, given, name)
    return resolved


def fields_of(
    given: Mapping[str, Any], section: Section = SCHEMA, name: str = "config"
) -> dict[str, "Field | Section"]:
    """Returns the fields of a section: its own, and the options of the entries that it names.

    Raises:
      UserError: a name that is neither registered nor can be imported.
    """
    found = dict(section.fields)
    for field, named in section.named.items():
        for option, spec in named_options(given, section, field, named, name).items():
            found.setdefault(option, spec)
    return found


def named_options(
    given: Mapping[str, Any], section: Section, field: str, named: Named, name: str = "config"
) -> dict[str, Field]:
    """Returns the options of the registered entry that `field` of a section names.

    Raises:
      UserError: as `fields_of`.
    """
    spec = section.fields[field]
    value = given.get(field, spec.default)
    if isinstance(value, named.plain) or value in named.words:
        return {}
    try:
        spec.check(value)
        return options_of(named.registry[value], named.given)
    except ValueError as error:
        raise UserError(f"{name}.{field}: {error}") from error


def options_of(entry: Any, given: tuple[str, ...] = ()) -> dict[str, Field]:
    """Returns the options of a registered entry: its `OPTIONS`, or else the keyword arguments of its definition."""
    own = getattr(entry, "OPTIONS", None)
    return dict(own) if own is not None else fields.options(entry, given)


def override(
    config: Mapping[str, Any], changes: Mapping[str, Any], *, schema: Section = SCHEMA
) -> ml_collections.ConfigDict:
    """Returns the resolved config with some values changed: `{"sample.num_steps": 20, …}`.

    Where a change names another entry (another sampler), the options of the old one are dropped.

    Raises:
      UserError: as `resolve`.
    """
    return resolve(_changed(config, changes, schema), section=schema)


def parse(
    config: Mapping[str, Any], texts: Mapping[str, str], *, schema: Section = SCHEMA
) -> ml_collections.ConfigDict:
    """Returns the resolved config with values changed to those of a command line: `{"model.remat": "True", …}`.

    Raises:
      UserError: as `resolve`.
    """
    changes: dict[str, Any] = {}
    # Names are set first, since they determine which options the other texts may set.
    for path in sorted(texts, key=lambda path: not _is_name(path, schema)):
        spec = _spec(_changed(config, changes, schema), path, schema)
        if isinstance(spec, Section):
            if not (spec.optional and texts[path] in ("", "None")):
                raise UserError(
                    f"config.{path}: {texts[path]!r} is a section; set its fields: config.{path}.FIELD=VALUE"
                )
            changes[path] = None
            continue
        try:
            changes[path] = texts[path] if spec is None else spec.parse(texts[path])
        except ValueError as error:
            raise UserError(f"config.{path}: {error}") from error
    return override(config, changes, schema=schema)


def to_dict(config: Any) -> Any:
    """Returns a config as plain nested dicts."""
    if isinstance(config, (Mapping, ml_collections.ConfigDict)):
        return {name: to_dict(value) for name, value in config.items()}
    return config


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns the fields of a nested config by their paths: `{"train.steps": 4000, …}`."""
    flat = {}
    for name, value in config.items():
        nested = isinstance(value, (Mapping, ml_collections.ConfigDict))
        flat |= flatten(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat


def walk(config: Any = None, section: Section = SCHEMA, prefix: str = "") -> Iterator[tuple[str, Field]]:
    """Yields (path, field) of all fields of a config (None: the default), options of the named entries included."""
    config = {} if config is None else config
    for name, spec in fields_of(config, section).items():
        if isinstance(spec, Section):
            yield from walk(config.get(name) or {}, spec, f"{prefix}{name}.")
        else:
            yield prefix + name, spec


def _with_defaults_of_the_task(given: dict[str, Any]) -> dict[str, Any]:
    """Returns the config with the fields that are not given and have their default from the task (`Task.DEFAULTS`)."""
    task = to_dict(given.get("task", {}))
    try:
        kind = TASKS[task.get("name", TASK.fields["name"].default)]
    except (ValueError, AttributeError):
        return given  # what is wrong is reported where the field is checked
    for path, option in getattr(kind, "DEFAULTS", {}).items():
        section, _, field = path.partition(".")
        if isinstance(values := to_dict(given.get(section, {})), dict) and field not in values:
            given[section] = values | {field: task.get(option, kind.OPTIONS[option].default)}
    return given


def _changed(config: Mapping[str, Any], changes: Mapping[str, Any], schema: Section) -> dict[str, Any]:
    """Returns the config with some values changed, unchecked."""
    changed = to_dict(config)
    names = {path for path in changes if _is_name(path, schema)}
    for path in sorted(changes, key=lambda path: path not in names):
        *parents, field = path.split(".")
        section, spec = changed, schema
        for depth, parent in enumerate(parents):
            spec = _entry(section, parent, spec)
            if not (isinstance(spec, Section) or _is_free(spec)):
                raise UserError(_no_section(parents[: depth + 1], changed))
            if section.get(parent) is None:
                section[parent] = {}
            section = section[parent]
        if path in names and section.get(field, spec.fields[field].default) != changes[path]:
            for option in named_options(section, spec, field, spec.named[field]):
                if option not in spec.fields:
                    section.pop(option, None)
        section[field] = changes[path]
    return changed


def _resolved(field: str, spec: "Field | Section", given: Mapping[str, Any], name: str) -> Any:
    path = f"{name}.{field}"
    if isinstance(spec, Section):
        return resolve(given.get(field, None if spec.optional else {}), section=spec, name=path)
    if field not in given:
        if spec.default is REQUIRED:
            raise UserError(f"{path}: missing; it must be {spec.allowed()} ({spec.doc})")
        return spec.default
    try:
        return spec.check(to_dict(given[field]))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _is_name(path: str, schema: Section) -> bool:
    *parents, field = path.split(".")
    spec: Any = schema
    for parent in parents:
        spec = spec.fields.get(parent) if isinstance(spec, Section) else None
    return isinstance(spec, Section) and field in spec.named


def _spec(config: Any, path: str, schema: Section) -> "Field | Section | None":
    """Returns the schema's field or section at a path of a config; None if there is none."""
    *parents, field = path.split(".")
    spec: Any = schema
    for parent in parents:
        spec = _entry(config or {}, parent, spec)
        if not (isinstance(spec, Section) or _is_free(spec)):
            return None
        config = (config or {}).get(parent)
    return _entry(config or {}, field, spec)


def _entry(config: Mapping[str, Any], name: str, spec: "Field | Section") -> "Field | Section | None":
    """Returns the schema's field or section of a name; below a field that is a free dict, any value is allowed."""
    if isinstance(spec, Section):
        return spec.fields.get(name) or fields_of(config, spec).get(name)
    return _ANY


def _is_free(spec: Any) -> bool:
    return isinstance(spec, Field) and spec.type in (object, dict, dict | None)


_ANY = Field(object, None, "")


def _unknown(field, value, known, section, name, given) -> str:
    near = difflib.get_close_matches(field, known)
    listed = ", ".join(f"{name}.{other}" for other in (near or known))
    owners = ", ".join(f"{given.get(n, section.fields[n].default)!r}" for n in section.named)
    of = f" of {owners}" if owners else ""
    which = "nearest" if near else "its fields"
    return f"{name}.{field}: {fields.shown(value)} is given, but {name} has no such field{of}; {which}: {listed}"


def _no_section(parents: list[str], config: Any) -> str:
    return f"config.{'.'.join(parents)} is not a section of the config; sections: {', '.join(map(str, config))}"
