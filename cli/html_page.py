"""Self-contained HTML pages: one file, nothing loaded from outside, all text escaped.

    write_page(path, Path(__file__).parent / "report.html.jinja", {"rows": rows}, title="Audit")

A template extends `html_page.html.jinja` and fills its block `body`. What it prints is escaped. The
page carries a content policy that allows its own style sheets and scripts, by their hashes, and
pictures that are part of it; so a `style` or `onclick` attribute has no effect, and nothing can be
fetched.

A list can be filtered without a server. In the template:

    <form data-filters="rows"> <select data-facet="0"> ... <input type="search"> <output> </form>
    <div id="rows"> <article data-facets="a,x b,y"> ...

An article has one or more combinations of facets, and is shown while one of them has the chosen
value (an empty value: any) at every place, and the text that is searched for is in the article.
Facets are words without blanks; `FacetNumbers` gives a name the number that stands for it.

Frames of videos come as JPEG bytes, and a page has room for some of them:

    room = ByteBudget(60e6)
    medium = room.fit(shown_medium("a.mp4", jpegs, times=[0.0, 0.5], facts="4.0 s, 56x56"))

    {% for frame in medium.frames %}<img src="{{ frame.source }}"> {{ frame.time }}{% endfor %}

A page with `plays_clips` may also play files beside it, and one with a `script` of its own runs it
after the common one. Text of traces is shown in `trace_pieces`, coloured by segment.
"""

import base64
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.traces import TraceTemplate, segment_spans

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).parent
_STYLE = _FOLDER / "html_page.css"
_SCRIPT = _FOLDER / "html_page.js"
_ENDS_ITS_ELEMENT = re.compile(r"</(?:script|style)|<!--|]]>", re.IGNORECASE)


@dataclass(frozen=True)
class ShownFrame:
    """A frame on a page: its time in words (empty for an image), and a data URI."""

    time: str
    source: str


@dataclass(frozen=True)
class ShownMedium:
    """A video or image on a page: its frames, or the reason why there are none."""

    path: str
    facts: str = ""
    complaint: str = ""
    frames: tuple[ShownFrame, ...] = ()

    @property
    def num_bytes(self) -> int:
        """What its frames add to a page."""
        return sum(len(frame.source) for frame in self.frames)


@dataclass
class ByteBudget:
    """Room for frames on a page, in bytes of the page. `has_room` until a medium did not fit.

    A medium counts each time that it is shown: the page holds it as many times.
    """

    max_bytes: float
    complaint: str = "the page has no room for more frames"
    has_room: bool = True
    _used: int = field(default=0, init=False)

    def fit(self, medium: ShownMedium) -> ShownMedium:
        """The medium, with the complaint in place of its frames where the page has no room."""
        if self._used + medium.num_bytes > self.max_bytes:
            self.has_room = False
            return replace(medium, frames=(), complaint=self.complaint)
        self._used += medium.num_bytes
        return medium


@dataclass
class FacetNumbers:
    """Numbers for names, in the order in which they are asked for."""

    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, name: str) -> int:
        """The number of `name`, the next free one where it has none yet."""
        return self.numbers.setdefault(name, len(self.numbers))


@dataclass(frozen=True)
class Piece:
    """A part of a reply: a well-formed segment, or text between segments (`tag` is empty)."""

    tag: str
    text: str


def trace_pieces(output: str, template: TraceTemplate) -> tuple[Piece, ...]:
    """A reply cut at its well-formed segments; nothing of it is lost but white space between."""
    pieces, done = [], 0
    for span in segment_spans(output, template):
        pieces += [
            Piece("", output[done : span.start]),
            Piece(span.tag, output[span.start : span.end]),
        ]
        done = span.end
    pieces.append(Piece("", output[done:]))
    return tuple(piece for piece in pieces if piece.text.strip())


def spread_places(count: int, most: int) -> list[int]:
    """At most `most` places of `count`, evenly spread, the first one included."""
    if count <= most:
        return list(range(count))
    return [number * count // most for number in range(most)]


def shown_medium(
    path: str, jpegs: Sequence[bytes], *, times: Sequence[float] | None, facts: str = ""
) -> ShownMedium:
    """Encoded frames as part of a page; `times` in seconds, None for an image."""
    texts = [""] * len(jpegs) if times is None else [f"{time:.1f} s" for time in times]
    frames = (
        ShownFrame(text, data_uri(jpeg, "image/jpeg"))
        for text, jpeg in zip(texts, jpegs, strict=True)
    )
    return ShownMedium(path, facts=facts, frames=tuple(frames))


def write_page(
    path: Path,
    template: Path,
    values: Mapping[str, object],
    *,
    title: str,
    style: str = "",
    script: str = "",
    plays_clips: bool = False,
) -> None:
    """Write the page atomically, piece by piece: pages with many pictures are large.

    `style` and `script` are the template's own, beside the common ones. `plays_clips` allows the
    page to play video files of the place that it was opened from, and nothing else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(_pieces(template, values, title, style, script, plays_clips))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def data_uri(data: bytes, media_type: str) -> str:
    """A picture as part of the page: the value of an `src` attribute."""
    if media_type not in ("image/jpeg", "image/png"):
        raise ValueError(f"a page shows image/jpeg and image/png, not {media_type!r}")
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def content_policy(
    styles: tuple[str, ...], scripts: tuple[str, ...], *, plays_clips: bool = False
) -> str:
    """A Content-Security-Policy under which only these inline styles and scripts have an effect.

    With `plays_clips`, videos come from where the page itself came from.
    """
    allowed_styles, allowed_scripts = (
        " ".join(f"'{_hash_of(text)}'" for text in texts) or "'none'" for texts in (styles, scripts)
    )
    clips = " media-src 'self' file:;" if plays_clips else ""
    return (
        f"default-src 'none'; img-src data:;{clips} style-src {allowed_styles}; "
        f"script-src {allowed_scripts}; base-uri 'none'; form-action 'none'"
    )


def _pieces(
    template: Path,
    values: Mapping[str, object],
    title: str,
    style: str,
    own_script: str,
    plays_clips: bool,
) -> Iterator[str]:
    common = {"title": title, "style": "", "script": "", "policy": ""}
    if taken := sorted(common.keys() & values.keys()):
        raise ValueError(f"the page writer itself fills {', '.join(taken)}: use other names")
    from markupsafe import Markup

    styles = _STYLE.read_text(encoding="utf-8") + style
    script = _SCRIPT.read_text(encoding="utf-8") + own_script
    for text in (styles, script):
        # Escaping would change them, so they must need none.
        if found := _ENDS_ITS_ELEMENT.search(text):
            raise ValueError(f"a page's own style or script may not hold {found.group()!r}")
    common |= {
        "title": title,
        "style": Markup(styles),
        "script": Markup(script),
        "policy": content_policy((styles,), (script,), plays_clips=plays_clips),
    }
    return _environment(template.parent).get_template(template.name).generate({**values, **common})


def _hash_of(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


@cache
def _environment(folder: Path) -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader([folder, _FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
