"""Reads pages as a browser does."""

import base64
import html.parser
import json
import re

import numpy as np
import pytest


class Page(html.parser.HTMLParser):
    """Counts a page's elements and collects what its scripts say, as a browser would read it."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.references, self.script, self.frame = [], [], "", None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href")]
        self.frame = dict(attributes).get("srcdoc", self.frame)

    def handle_data(self, data):
        if self.elements and self.elements[-1] == "script":
            self.script += data

    @property
    def data(self):
        """What the page's script begins with."""
        return json.loads(re.search(r"const data = (.*);\n", self.script)[1])

    def maps(self):
        """The page's weights: kind -> layer path -> (N, T, S)."""
        found = {}
        for kind in self.data["kinds"]:
            found[kind["name"]] = {}
            for layer in kind["layers"]:
                largest = np.frombuffer(base64.b64decode(layer["largest"]), "<f4").reshape(layer["heads"], -1, 1)
                weights = np.frombuffer(base64.b64decode(layer["weights"]), np.uint8)
                weights = weights.reshape(*largest.shape[:2], -1)
                found[kind["name"]][layer["path"]] = largest * weights / 255
        return found


@pytest.fixture(scope="session")
def read_page():
    return Page
