"""A reader of HTML pages, and a text that would be a script on a page that does not escape it."""

from html.parser import HTMLParser

EVIL = "<script>alert('1')</script> & \"http://example.org\""


class Reader(HTMLParser):
    """Tags, texts and what they refer to; sees that all is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.references, self.text = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
