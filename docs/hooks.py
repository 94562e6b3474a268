"""Hooks of mkdocs: the help texts of all commands, where a page has the comment "commands"."""

import argparse
import importlib
import os

from diffjax.cli.main import COMMANDS, module_of


def on_page_markdown(markdown: str, **_) -> str:
    """Replaces the comment by a section for each command."""
    return markdown.replace("<!-- commands -->", _commands()) if "<!-- commands -->" in markdown else markdown


def _commands() -> str:
    os.environ["COLUMNS"] = "110"
    return "\n".join(f"## {name}\n\n```text\n{_help(name)}```\n" for name in COMMANDS)


def _help(name: str) -> str:
    module = importlib.import_module(module_of(name))
    parser = argparse.ArgumentParser(
        prog=f"diffjax {name}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.add_arguments(parser)
    return parser.format_help()
