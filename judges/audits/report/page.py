"""The report as one HTML page that stands alone, with every disagreement to look at."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.html_page import (
    ByteBudget,
    FacetNumbers,
    ShownMedium,
    data_uri,
    shown_medium,
    write_page,
)
from judges.audits.audit_kinds import AuditKind
from judges.audits.records import AuditItem, ShownChoice, shown_choices
from judges.audits.report.disagreements import Card, Mark, kind_words
from judges.audits.report.number_format import Section, count
from judges.audits.report.slices import KINDS as SLICE_KINDS
from judges.audits.report.slices import slice_names, thirds_of_words
from judges.sufficiency import correct_answer_text
from media.frames import MediaError
from schemas.questions import MediaRef

if TYPE_CHECKING:
    from media.store import FrameStore

TEMPLATE = Path(__file__).parent / "page.html.jinja"
STYLE = Path(__file__).parent / "page.css"
_PEOPLE = "p"


Media = Sequence[tuple[ShownMedium, ...]]
"""For each card the media of its question, in their order."""


@dataclass(frozen=True)
class ShownCard:
    """A disagreement as the template prints it."""

    card: Card
    about: str
    marks: tuple[str, ...]
    facets: str
    gold: str
    choices: tuple[ShownChoice, ...]
    media: tuple[ShownMedium, ...]


def write_report_page(
    path: Path,
    *,
    kind: AuditKind,
    heading: str,
    made: str,
    sections: Sequence[Section],
    pictures: Mapping[str, bytes],
    cards: Sequence[Card],
    items: Sequence[AuditItem],
    media: Media,
    build_pages: str = "",
) -> None:
    """Write the page; `media` are frames or complaints for each card.

    `build_pages` is the address, as seen from the page, of the page that finds the build's rows.
    """
    judges, slices = FacetNumbers(), FacetNumbers()
    for card in cards:
        for said in card.said:
            judges.number(said.judge)
    thirds = thirds_of_words(items)
    shown = [
        _shown(card, kind, thirds, judges, slices, one)
        for card, one in zip(cards, media, strict=True)
    ]
    counts = Counter(name for card in cards for name in {mark.kind for mark in card.marks})
    kinds = {name: words for name, words in kind_words(kind).items() if counts[name]}
    write_page(
        path,
        TEMPLATE,
        {
            "kind": kind,
            "heading": heading,
            "made": made,
            "sections": sections,
            "pictures": {name: data_uri(png, "image/png") for name, png in pictures.items()},
            "cards": shown,
            "judges": list(judges.numbers),
            "slices": list(slices.numbers),
            "kinds": kinds,
            "counts": counts,
            "build_pages": build_pages,
            "disagreements_note": _note(cards, media, len(items)),
        },
        title=heading,
        style=STYLE.read_text(encoding="utf-8"),
    )


async def load_media(frames: "FrameStore", cards: Sequence[Card], max_bytes: int) -> Media:
    """Frames of the media of all cards, in their order, while the page has room for them."""
    room = ByteBudget(max_bytes, "the page has no room for more frames; see --max-page-megabytes")
    loaded: dict[MediaRef, ShownMedium] = {}

    async def shown(ref: MediaRef) -> ShownMedium:
        if ref not in loaded:
            if not room.has_room:
                return ShownMedium(ref.path, complaint=room.complaint)
            loaded[ref] = await _load(frames, ref)
        return room.fit(loaded[ref])

    return [tuple([await shown(ref) for ref in card.item.question.media]) for card in cards]


async def _load(frames: "FrameStore", ref: MediaRef) -> ShownMedium:
    try:
        encoded = await frames.load(ref)
    except MediaError as error:
        return ShownMedium(ref.path, complaint=str(error))
    size = f"{encoded.source_width}x{encoded.source_height}"
    is_video = encoded.kind == "video"
    return shown_medium(
        ref.path,
        encoded.jpegs,
        times=encoded.times if is_video else None,
        facts=f"{encoded.duration_seconds:.1f} s, {size}" if is_video else size,
    )


def load_media_now(frames: "FrameStore", cards: Sequence[Card], max_bytes: int) -> Media:
    """`load_media` for code that runs in no event loop."""
    return asyncio.run(load_media(frames, cards, max_bytes))


def no_media(cards: Sequence[Card], why: str = "") -> Media:
    """No media at all, or without `why` not even their names."""
    if not why:
        return [()] * len(cards)
    return [
        tuple(ShownMedium(ref.path, complaint=why) for ref in card.item.question.media)
        for card in cards
    ]


def _shown(
    card: Card,
    kind: AuditKind,
    thirds: tuple[int, int],
    judges: FacetNumbers,
    slices: FacetNumbers,
    media: tuple[ShownMedium, ...],
) -> ShownCard:
    question = card.item.question
    names = slice_names(card.item, thirds)
    of_slices = [slices.number(f"{name}: {names[name]}") for name in SLICE_KINDS]
    who = {mark: str(judges.number(mark.judge)) if mark.judge else _PEOPLE for mark in card.marks}
    return ShownCard(
        card=card,
        about=" · ".join(
            part
            for part in (
                question.problem_type.value,
                question.data_source,
                f"stands for {count(round(card.item.weight), 'row')}",
            )
            if part
        ),
        marks=_grouped(card.marks, kind),
        facets=" ".join(
            f"{who[mark]},{mark.kind},{number}" for mark in card.marks for number in of_slices
        ),
        gold=correct_answer_text(question),
        choices=shown_choices(question, marks_gold=bool(kind.answer_title)),
        media=media,
    )


def _grouped(marks: Sequence[Mark], audit_kind: AuditKind) -> tuple[str, ...]:
    """Each kind once, with its judge or the number of its judges."""
    grouped = []
    for kind, words in kind_words(audit_kind).items():
        judges = [mark.judge for mark in marks if mark.kind == kind]
        if len(judges) > 1:
            grouped.append(f"{words} ({len(judges)} judges)")
        elif judges:
            grouped.append(f"{words} ({judges[0]})" if judges[0] else words)
    return tuple(grouped)


def _note(cards: Sequence[Card], media: Media, num_rows: int) -> str:
    note = f"{len(cards)} of {count(num_rows, 'row')}, the gravest kind first."
    blank = {medium.path for shown in media for medium in shown if medium.complaint}
    if not blank:
        return note
    return f"{note} {count(len(blank), 'file')} could not be shown, each says why."
