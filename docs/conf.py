"""Sphinx configuration."""

import os
import re
import sys
from pathlib import Path

from sphinx.util import inspect

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))

from generate import generate

project = "zoo"
author = "the zoo's authors"
html_show_copyright = False
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_nb",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "zoo"

# Notebooks are shown with the outputs that they are stored with.
nb_execution_mode = "off"
myst_heading_anchors = 3

templates_path = ["templates"]
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {
    "exclude-members": "build, compute_output_spec, compute_output_shape, get_config, from_config"
}
napoleon_use_ivar = True
napoleon_custom_sections = [("Call args", "params_style")]


def is_field_of_tuple(app, what, name, member, skip, options):
    """Leaves out what NamedTuple says of its fields: "Alias for field number 0"."""
    return type(member).__name__ == "_tuplegetter" or skip


def signature_of_class(app, what, name, member, options, signature, returns):
    """Shows what __init__ takes where __new__, as that of Keras' layers, takes anything."""
    if what == "class" and signature == "(*args, **kwargs)":
        found = inspect.signature(member.__init__, bound_method=True)
        return inspect.stringify_signature(found, show_return_annotation=False, unqualified_typehints=True), None


def tidy(app, what, name, member, options, lines):
    """Makes a field of the source, and no list of a letter alone: "num_heads: N." """
    text = re.sub(r"^(:\w+ \w+:)\s+([A-Z])\.$", r"\1 \2", "\n".join(lines), flags=re.MULTILINE)
    text = re.sub(
        r"^Source: (.+(\n\s*\S.*)*)", lambda found: f":Source: {' '.join(found[1].split())}", text, flags=re.MULTILINE
    )
    lines[:] = text.splitlines()


def setup(app):
    app.connect("config-inited", lambda app, config: generate())
    app.connect("autodoc-skip-member", is_field_of_tuple)
    app.connect("autodoc-process-signature", signature_of_class)
    app.connect("autodoc-process-docstring", tidy)
