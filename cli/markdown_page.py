"""Markdown pages from templates: cards and reports, in which text from outside stays text.

    text = render_markdown(Path(__file__).parent / "card.md.jinja", {"rows": rows})

A template prints text from outside through a filter: `{{ name | cell }}` in a paragraph or table,
`{{ settings | as_json }}` in a fenced block. `front_matter` writes the YAML that the Hub reads.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from schemas.serialization import one_line, visible

_MARKUP = re.compile(r"([\\`*\[\]<>|~$#!])")
_EDGE_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")


def render_markdown(
    template: Path,
    values: Mapping[str, object],
    filters: Mapping[str, Callable[..., object]] | None = None,
) -> str:
    """The filled template; a placeholder without a value is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown: the filters escape
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": cell, "as_json": as_json, **(filters or {})}
    return environment.get_template(template.name).render(**values)


def cell(text: object) -> str:
    """`text` on one line, with Markdown, HTML and table syntax escaped; a dash for nothing.

    Control characters are shown as escapes: they would make a card a binary file to many tools.
    """
    if text is None or not str(text).strip():
        return "–"
    line = one_line(str(text)).replace("&", "&amp;").replace("<", "&lt;")
    return _EDGE_UNDERSCORE.sub(r"\\_", _MARKUP.sub(r"\\\1", line))


def as_json(value: object) -> str:
    """JSON for a fenced block that no backtick in it ends; what acts on a terminal is escaped."""
    text = json.dumps(value, indent=1, ensure_ascii=False).replace("`", "\\u0060")
    return "".join(one if visible(one) == one else f"\\u{ord(one):04x}" for one in text)


def front_matter(fields: Mapping[str, Any]) -> str:
    """YAML for the top of a card, without its `---` lines."""
    import yaml

    return yaml.safe_dump(dict(fields), sort_keys=False, allow_unicode=True).strip()
