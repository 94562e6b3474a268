import numpy as np
import pytest
from html_reader import EVIL, Reader

from diffjax import viz
from diffjax.errors import UserError
from diffjax.report import pages


def test_texts_are_escaped_wherever_they_are(tmp_path):
    picture = viz.save_png(tmp_path / "p.png", np.zeros((2, 2, 3), np.uint8))
    blocks = [
        pages.paragraph(EVIL), pages.heading(EVIL), pages.note(EVIL), pages.code(EVIL),
        pages.folded(EVIL, pages.paragraph(EVIL)), pages.table([EVIL], [[EVIL, EVIL]], bold={(0, 1)}),
        pages.figure(picture, EVIL),
    ]  # fmt: skip
    page = pages.page(EVIL, [pages.paragraph(EVIL)], [pages.Section(EVIL, blocks), pages.Section("empty", [])])
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert "script" not in reader.tags
    assert reader.text.count(EVIL) == 14  # the title and the first heading among them
    assert "empty" not in reader.text
    assert "<td><strong>&lt;script" in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_pictures_are_in_the_page(tmp_path):
    import base64

    picture = viz.save_png(tmp_path / "p.png", np.zeros((2, 2, 3), np.uint8))
    reader = Reader()
    reader.feed(pages.figure(picture, "a picture"))
    (reference,) = reader.references
    kind, data = reference.split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == picture.read_bytes()
    with pytest.raises(UserError, match=r"suffix is one of '\.gif', '\.png', '\.webp'"):
        pages.figure(tmp_path / "p.svg", "")
    with pytest.raises(UserError, match="cannot read .*q.png: No such file"):
        pages.figure(tmp_path / "q.png", "")
