"""Makes the reference of all config fields from the schema: text for `--help-config`, Markdown for docs/config.md."""

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

from diffjax.fields import REQUIRED, Field
from diffjax.registry import Registry
from diffjax.runs import resolve
from diffjax.runs.config import SCHEMA, Section


class Group(NamedTuple):
    """A group of fields: a section's own, or the options of one registered entry."""

    path: str
    title: str
    doc: str
    fields: dict[str, Field]


def groups(section: Section = SCHEMA, path: str = "config", title: str = "config") -> Iterator[Group]:
    """Yields the groups of a section: its own fields, the options of each entry it can name, then its subsections."""
    own = {name: spec for name, spec in section.fields.items() if isinstance(spec, Field)}
    yield Group(path, path, section.doc, own)
    for field, named in section.named.items():
        for name in named.registry:
            entry = named.registry[name]
            found = {k: v for k, v in resolve.options_of(entry, named.given).items() if k not in own}
            if found:
                yield Group(path, f"{path}, with {field}={name!r}", first_sentence(entry), found)
    for name, spec in section.fields.items():
        if isinstance(spec, Section):
            yield from groups(spec, f"{path}.{name}", name)


def text() -> str:
    """Returns the reference for a terminal."""
    lines = ["Fields of a config. Set them in a config file, or by --config.SECTION.FIELD=VALUE."]
    for group in groups():
        lines += ["", f"{group.title}: {group.doc}"]
        for name, field in group.fields.items():
            path = f"{group.path}.{name}".removeprefix("config.")
            lines += [f"  {path} = {shown(field)}", f"      {field.doc or '(no description)'} ({allowed(field)})"]
    return "\n".join(lines)


def markdown() -> str:
    """Returns the reference as a Markdown page."""
    lines = [
        "# Config reference",
        "",
        "Made from the schema (`diffjax/runs/config.py` and the definitions that the registries hold) by "
        "`python -m diffjax.runs.reference`. Set a field in a config file, or by `--config.SECTION.FIELD=VALUE`.",
    ]
    for group in groups():
        lines += ["", f"## `{group.title}`", "", group.doc, "", "| field | default | allowed | |", "|---|---|---|---|"]
        for name, field in group.fields.items():
            cells = (f"`{name}`", f"`{shown(field)}`", allowed(field), field.doc)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def shown(field: Field) -> str:
    """Returns a field's default as text."""
    return "(required)" if field.default is REQUIRED else repr(field.default)


def allowed(field: Field) -> str:
    """Returns a short description of the values that a field allows."""
    if isinstance(field.choices, Registry):
        return f"{', '.join(field.choices)}, or an import path"
    return field.allowed()


def first_sentence(entry: Any) -> str:
    """Returns the first line of a definition's docstring."""
    return (inspect.getdoc(entry) or "").split("\n", maxsplit=1)[0]


if __name__ == "__main__":
    print(markdown(), end="")
