"""Sphinx: `make docs` builds the documentation in build/docs, and fails at each warning."""

from __future__ import annotations

import re
import textwrap
from importlib.metadata import version as version_of
from typing import Any

project = "pepperpy.network"
author = "the pepperpy.network authors"
version = release = version_of("pepperpy-network")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"pepperpy.network {version}"
# Nothing is loaded from elsewhere: the pages work without a network.
html_theme_options = {"source_edit_link": "", "source_view_link": ""}

myst_heading_anchors = 3
# Links to files of the repository, such as ../examples/rpc.py, work where the repository is shown.
suppress_warnings = ["myst.xref_missing"]

# Docstrings mark code by single backticks.
default_role = "literal"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True

# ---- Docstrings ----
# They are written for help(): an example is indented, and so is a list of errors below a sentence that ends with a
# colon. Sphinx wants a mark for each of the two.

SECTIONS = re.compile(r"(Args|Attributes|Raises):$")
ITEM = re.compile(r"[\w`(), .*]+: ")


def mark_blocks(app: Any, what: str, name: str, object: Any, options: Any, lines: list[str]) -> None:
    marked: list[str] = []
    at = 0
    while at < len(lines):
        line = re.sub(r"(`[^`]+`)(\w?)", lambda found: found[1] + (found[2] and f"\\ {found[2]}"), lines[at])
        marked.append(line)
        at += 1
        if SECTIONS.match(line):
            # napoleon's; up to the next line that is not indented.
            while at < len(lines) and (not lines[at] or lines[at].startswith(" ")):
                marked.append(lines[at])
                at += 1
            continue
        start = at
        while start < len(lines) and not lines[start]:
            start += 1
        end = start
        while end < len(lines) and (lines[end].startswith(" ") or (not lines[end] and end > start)):
            end += 1
        if end == start or not line:
            continue
        block = textwrap.dedent("\n".join(lines[start:end])).rstrip().split("\n")
        if ITEM.match(block[0]) and line.endswith(":"):
            marked += ["", *(text if text.startswith(" ") or not text else f"* {text}" for text in block), ""]
        else:
            marked += ["", "::", "", *(f"    {text}" for text in block), ""]
        at = end
    lines[:] = marked


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", mark_blocks, priority=100)
