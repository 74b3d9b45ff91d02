"""Sphinx configuration."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

project = "zoo"
author = "the zoo's authors"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "myst_parser"]
html_theme = "furo"
html_title = "zoo"
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
myst_heading_anchors = 3
napoleon_custom_sections = [("Call args", "params_style"), "Source"]
