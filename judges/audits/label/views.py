"""The labelling page's HTML. Every text of the data set is escaped by the templates."""

import base64
import json
import secrets
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from judges.audits.label.queue import LabelBook, Place
from judges.audits.records import shown_choices
from judges.sufficiency import correct_answer_text

if TYPE_CHECKING:
    from jinja2 import Environment

    from media.frames import EncodedFrames

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class ShownFrame:
    """A frame: its time in words, and the place in the player's time that it belongs to."""

    time: str
    seek: float
    base64: str


@dataclass(frozen=True)
class ShownMedium:
    """A video or image with its frames, or with the reason why it cannot be shown."""

    kind: Literal["video", "image"]
    path: str
    facts: str = ""
    complaint: str = ""
    frames: tuple[ShownFrame, ...] = ()
    fragment: str = ""
    """Behind a video's address: the seconds that a player shows, `#t=3,8` (Media Fragments)."""

    @classmethod
    def of(
        cls, kind: Literal["video", "image"], path: str, encoded: "EncodedFrames"
    ) -> "ShownMedium":
        """What the decoder made of a file."""
        size = f"{encoded.source_width}x{encoded.source_height}"
        facts = size
        if kind == "video":
            facts = f"{encoded.duration_seconds:.1f} s, {size}, {len(encoded)} frames of it below"
        frames = tuple(
            ShownFrame(
                time=f"{time:.1f} s",
                seek=round(time - encoded.start_seconds, 3),
                base64=base64.b64encode(jpeg).decode("ascii"),
            )
            for time, jpeg in zip(encoded.times, encoded.jpegs, strict=True)
        )
        span = encoded.spec.span
        fragment = f"#t={span[0]:g},{span[1]:g}" if span else ""
        return cls(kind, path, facts=facts, frames=frames, fragment=fragment)


def card_html(book: LabelBook, place: Place) -> str:
    """One row to label, without any judge's verdict on it."""
    question = place.item.question if place.item else None
    shows_gold = bool(book.kind.answer_title)
    return _fill(
        "card.html",
        place=place,
        kind=book.kind,
        keys=json.dumps({key.lower(): f"p2r-{label}" for label, key in book.kind.keys.items()}),
        shown=secrets.token_hex(8),
        row=book.row_of[place.item.item_id] if place.item else "",
        next_row=book.row_of[place.next_item.item_id] if place.next_item else "",
        last_row=book.row_of[place.last.item_id] if place.last else "",
        question=question,
        choices=shown_choices(question, marks_gold=shows_gold) if question else (),
        gold=correct_answer_text(question) if question and shows_gold else "",
    )


def start_html(book: LabelBook, complaint: str = "") -> str:
    """The instructions, before the name is known."""
    return _fill(
        "start.html",
        kind=book.kind,
        num_items=len(book.items),
        counts=book.counts(),
        complaint=complaint,
    )


def frames_html(row: int, media: tuple[ShownMedium, ...]) -> str:
    """The media of a row, fetched by the page after the row itself is on screen."""
    return _fill("frames.html", row=row, media=media)


def asset(name: str) -> str:
    """A style sheet or script of the page."""
    return (_HERE / name).read_text(encoding="utf-8")


def _fill(name: str, **values: object) -> str:
    return _environment().get_template(f"{name}.jinja").render(values)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
