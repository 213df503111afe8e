"""How Sphinx builds these pages: ``make docs``. It takes no network."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

import ringtun

if TYPE_CHECKING:
    import click
    from sphinx.application import Sphinx

project = "ringtun"
version = release = ringtun.__version__
copyright = "the authors of ringtun, under the MIT licence"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_click"]
myst_heading_anchors = 3
html_theme = "alabaster"
html_theme_options = {
    "description": "Layer-3 TUN for Python",
    "fixed_sidebar": True,
    "page_width": "1100px",
    "body_max_width": "none",
}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}
smartquotes = False
html_copy_source = False

# A name in single backticks in a docstring is one of ringtun's, and becomes a link; one that leads
# nowhere is a warning, and so an error.
default_role = "py:obj"
nitpicky = True
# Python's own: to link them would take its inventory, and so the network.
nitpick_ignore_regex = [
    ("py:class", r"(collections\.abc|ipaddress|os|subprocess|uuid)\.\w+"),
    ("py:class", "Buffer"),  # of collections.abc since Python 3.12
    ("py:class", r"(ringtun\.session\.)?PacketT"),  # bytes, or OffloadPacket
    ("py:class", r"(ringtun\.aio\.)?_Batches"),  # an asynchronous iterator with aclose
]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "exclude-members": "__init__, __new__"}

# Classes that a program makes by itself; of the others the constructor is nobody's business.
MADE_BY_PROGRAMS = {
    *("Impairment", "NetworkNamespace", "OffloadPacket", "RegisterRings", "RingOffer", "Status"),
}


def hide_constructor(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str, None] | None:
    """Show a class without the arguments of its constructor."""
    if signature and inspect.isclass(obj) and obj.__name__ not in MADE_BY_PROGRAMS:
        return "", None
    return None


def mark_literals(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """In the words of the command line single backticks are what a shell or a program takes."""
    lines[:] = [re.sub(r"(?<![`:])`([^`]+)`(?!`)", r"``\1``", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", hide_constructor)
    for part in ("description", "options", "arguments"):
        app.connect(f"sphinx-click-process-{part}", mark_literals)
