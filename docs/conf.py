"""How Sphinx makes the handbook of these pages: `make docs`, which writes target/handbook/index.html."""

from __future__ import annotations

from nvlane import __version__

project = "nvlane"
author = "the nvlane project"
copyright = "the nvlane project"
release = version = __version__

extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
source_suffix = {".md": "markdown"}
# Links to a heading are checked, down to this level.
myst_heading_anchors = 4
# A link that starts with a scheme is a link; every other one is a file or a heading, and has to exist.
myst_url_schemes = ["http", "https", "mailto"]
nitpicky = True
# Pictures of characters, and lines of golden files, are in no language.
highlight_language = "none"

html_theme = "furo"
html_title = f"nvlane {release}"
html_static_path = ["_static"]
html_css_files = ["handbook.css"]
html_copy_source = False
html_show_sourcelink = False
