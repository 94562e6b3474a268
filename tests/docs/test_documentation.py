"""The Python of the README and of the pages of docs/ runs as it stands, page by page."""

import contextlib
import io
import re
import sys
from pathlib import Path

import jax
import pytest

import diffjax as dj

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (?P<note>[^>]*) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)
"""A block of Python. A comment above it may be "not run", or "file: NAME", which writes it to that file."""
LINK = re.compile(r"\]\((?!https?://|#)(?P<target>[^)#\s]+)")


def blocks(page):
    return [(match["note"] or "", match["code"]) for match in BLOCK.finditer(page.read_text())]


def name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name)
def test_code(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    train, trailing = dj.train, dj.timesteps.trailing

    def short_train(*args, num_steps, **options):
        return train(*args, num_steps=min(num_steps, 8), progress=False, **options)

    def short_trailing(num_timesteps, num_steps):
        return trailing(num_timesteps, num_steps if num_steps <= 16 else 5)

    monkeypatch.setattr(dj, "train", short_train)
    monkeypatch.setattr(dj.timesteps, "trailing", short_trailing)
    scope = {"__name__": "page"}
    for note, code in blocks(page):
        if note.startswith("file: "):
            (tmp_path / note.removeprefix("file: ")).write_text(code)
        elif note != "not run":
            exec(compile(code, name(page), "exec"), scope)
    jax.block_until_ready([value for value in scope.values() if isinstance(value, jax.Array)])
    sys.modules.pop("own", None)


def test_readme_shows_the_table_that_it_prints():
    schedule = dj.schedules.linear(1000, beta_start=1e-4, beta_end=0.02)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        print(dj.samplers.ddim(schedule, dj.timesteps.trailing(1000, 5), eta=0.0))
    assert printed.getvalue() in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links(page):
    for match in LINK.finditer(page.read_text()):
        assert (page.parent / match["target"]).exists(), match["target"]


def test_every_page_is_reached():
    """From README or docs/index.md, or from the menu."""
    menu = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES[1:]:
        assert str(page.relative_to(ROOT / "docs")) in menu
