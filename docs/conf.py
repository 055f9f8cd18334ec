"""How `make docs` builds these pages: Sphinx with MyST and Furo, nothing from the network.

Python docstrings here are plain text with Markdown's backticks. `docstring_as_rst` turns them into
what Sphinx reads, so that no docstring has to know the generator.
"""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

project = "p2r"
author = "the p2r authors"
extensions = ["myst_parser", "sphinx.ext.autodoc"]

html_theme = "furo"
html_title = "p2r"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]
smartquotes = False  # `--option` stays as it is

myst_heading_anchors = 4
myst_linkify_fuzzy_links = False

autodoc_member_order = "bysource"
autodoc_default_options = {
    "members": True,
    "exclude-members": "model_config, model_post_init",
}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
nitpicky = False

_INDENTED = re.compile(r" {2,}\S")
_ITEM = re.compile(r"(?:[-*]|\d+\.) ")
_MARKUP = re.compile(r"([*|_\\])")


def docstring_as_rst(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText: prose stays prose, indented lines keep their form.

    Lines of a paragraph become one, so that code in backticks may go on in the next line. Inline
    code becomes a literal, all else that reStructuredText would take for markup is escaped, and
    lines that are indented below a paragraph become a literal block.
    """
    made: list[str] = []
    for paragraph in _paragraphs(lines):
        if _INDENTED.match(paragraph[0]):
            made += ["::", "", *paragraph, ""]
        else:
            made += [_inline(" ".join(paragraph)), ""]
    return made


def _paragraphs(lines: list[str]) -> list[list[str]]:
    """Prose by paragraphs and list items, indented blocks whole, their blank lines included."""
    found: list[list[str]] = []
    is_open = was_indented = False
    blanks = 0
    for line in lines:
        if not line.strip():
            blanks, is_open = blanks + 1, False
            continue
        is_item_text = is_open and bool(found) and bool(_ITEM.match(found[-1][0]))
        is_indented = bool(_INDENTED.match(line)) and not is_item_text
        if is_indented and was_indented:
            found[-1] += [""] * blanks + [line]
        elif is_open and not is_indented and not was_indented and not _ITEM.match(line):
            found[-1].append(line.strip())
        else:
            found.append([line])
        was_indented, is_open, blanks = is_indented, True, 0
    return found


def _inline(line: str) -> str:
    """One paragraph of prose. A backtick without its partner stays text."""
    if item := _ITEM.match(line):
        return item.group() + _inline(line[item.end() :])
    parts = line.split("`")
    if len(parts) % 2 == 0:
        return _MARKUP.sub(r"\\\1", line.replace("`", r"\`"))
    made = ""
    for number, part in enumerate(parts):
        if number % 2 == 0:
            made += _MARKUP.sub(r"\\\1", part)
        elif part.strip():
            # An empty escape ends a literal that a letter follows, as in `Trace`s.
            before = "\\ " if made[-1:].isalnum() else ""
            after = "\\ " if parts[number + 1][:1].isalnum() else ""
            made += f"{before}``{part.strip()}``{after}"
    return made


def _process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = docstring_as_rst(lines)


def setup(app: Any) -> None:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", _process)
