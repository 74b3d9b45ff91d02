"""Reads pages as a browser does."""

import html.parser

import pytest


class Page(html.parser.HTMLParser):
    """Counts a page's elements and collects what its scripts say, as a browser would read it."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.references, self.script = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        if self.elements and self.elements[-1] == "script":
            self.script += data


@pytest.fixture(scope="session")
def read_page():
    return Page
