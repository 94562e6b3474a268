"""Builds a self-contained HTML page: pictures are embedded, every text is escaped, and it has no script or link."""

import base64
import html
import os
from collections.abc import Collection, Iterable, Sequence
from string import Template
from typing import NamedTuple

from diffjax.errors import UserError
from diffjax.files import to_path

_TYPES = {".gif": "image/gif", ".png": "image/png", ".webp": "image/webp"}

_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --text: #1b1b1b; --page: #fff; --faint: #666; --line: #ccc; --code: #f3f3f3; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --page: #161616; --faint: #a0a0a0; --line: #444; --code: #242424; }
}
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--text); background: var(--page); }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; }
figure { margin: 1rem 0; overflow-x: auto; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figure.wide img { width: 100%; }
@media (prefers-color-scheme: dark) { figure.plot img { filter: invert(0.91) hue-rotate(180deg); } }
figcaption, .note { color: var(--faint); font-size: 0.9rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
pre { padding: 0.7rem; overflow-x: auto; background: var(--code); border-radius: 4px; font-size: 0.85rem; }
</style>
</head>
<body>
$body
</body>
</html>
""")


class Section(NamedTuple):
    """A heading, and blocks of HTML below it, as the functions of this module return them."""

    title: str
    blocks: Sequence[str]


def page(title: str, lead: Iterable[str], sections: Iterable[Section]) -> str:
    """Returns the page: the title, the `lead` blocks, and the sections that have blocks."""
    parts = [f"<h1>{_text(title)}</h1>", *lead]
    for section in sections:
        if section.blocks:
            parts += [f"<h2>{_text(section.title)}</h2>", *section.blocks]
    return _PAGE.substitute(title=_text(title), body="\n".join(parts))


def paragraph(text: str) -> str:
    """Returns a paragraph."""
    return f"<p>{_text(text)}</p>"


def heading(text: str) -> str:
    """Returns a heading within a section."""
    return f"<h3>{_text(text)}</h3>"


def note(text: str) -> str:
    """Returns a paragraph in small print."""
    return f'<p class="note">{_text(text)}</p>'


def code(text: str) -> str:
    """Returns preformatted text: a command, or a file."""
    return f"<pre>{_text(text)}</pre>"


def folded(summary: str, *blocks: str) -> str:
    """Returns blocks that are hidden until a click on `summary`."""
    return f"<details><summary>{_text(summary)}</summary>\n{chr(10).join(blocks)}\n</details>"


def table(header: Sequence[object], rows: Iterable[Sequence[object]], *, bold: Collection[tuple[int, int]] = ()) -> str:
    """Returns a table; `bold` has the (row, column) of cells of its body."""
    head = "".join(f"<th>{_text(cell)}</th>" for cell in header)
    lines = []
    for i, row in enumerate(rows):
        cells = (f"<strong>{_text(cell)}</strong>" if (i, j) in bold else _text(cell) for j, cell in enumerate(row))
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = f"<thead><tr>{head}</tr></thead>" if header else ""
    return f'<div class="table"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>'


def figure(path: str | os.PathLike, caption: str, *, wide: bool = False) -> str:
    """Returns a picture, contained in the page, above its caption; with `wide`, as wide as the page.

    Raises:
      UserError: a file of another kind than PNG, GIF and WebP, or that cannot be read.
    """
    return _figure(path, caption, "wide" if wide else "")


def plot(path: str | os.PathLike, caption: str) -> str:
    """Returns a plot, as `figure` does; on a dark page its white ground is dark and its black lines are light."""
    return _figure(path, caption, "plot")


def _figure(path: str | os.PathLike, caption: str, kind: str) -> str:
    path = to_path(path)
    if path.suffix not in _TYPES:
        raise UserError(f"{path}: a picture's suffix is one of {', '.join(map(repr, _TYPES))}")
    try:
        data = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    image = f'<img src="data:{_TYPES[path.suffix]};base64,{data}" alt="{_text(caption)}">'
    opening = f'<figure class="{kind}">' if kind else "<figure>"
    return f"{opening}{image}<figcaption>{_text(caption)}</figcaption></figure>"


def _text(value: object) -> str:
    return html.escape(str(value))
