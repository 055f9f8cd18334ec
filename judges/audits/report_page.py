"""The report as one HTML page that stands alone, with every disagreement to look at."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from judges.audits.disagreements import Card, Mark, told_kinds
from judges.audits.kinds import AuditKind
from judges.audits.label_views import ShownChoice, shown_choices
from judges.audits.records import AuditItem
from judges.audits.section_parts import Section
from judges.audits.slices import KINDS as SLICE_KINDS
from judges.audits.slices import slice_names, thirds_of_words
from judges.audits.wording import count
from judges.sufficiency import correct_answer_text
from media.frames import EncodedFrames, MediaError
from schemas.pages import data_uri, write_page
from schemas.questions import MediaRef

if TYPE_CHECKING:
    from media.store import FrameStore

TEMPLATE = Path(__file__).parent / "report.html.jinja"
STYLE = Path(__file__).parent / "report.css"
_PEOPLE = "p"


@dataclass(frozen=True)
class ShownFrame:
    """A frame as a data URI, and its time."""

    time: str
    source: str


@dataclass(frozen=True)
class ShownMedium:
    """A medium's frames, or why there are none."""

    path: str
    facts: str = ""
    complaint: str = ""
    frames: tuple[ShownFrame, ...] = ()


Media = dict[MediaRef, ShownMedium]


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


@dataclass
class _Facets:
    """Numbers for names, because facets are words without blanks."""

    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, name: str) -> int:
        return self.numbers.setdefault(name, len(self.numbers))


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
) -> None:
    """Write the page. `media` holds the frames, or the complaints, of the media of all cards."""
    judges, slices = _Facets(), _Facets()
    for card in cards:
        for said in card.said:
            judges.number(said.judge)
    thirds = thirds_of_words(items)
    shown = [_shown(card, kind, thirds, judges, slices, media) for card in cards]
    counts = Counter(name for card in cards for name in {mark.kind for mark in card.marks})
    kinds = {name: told for name, told in told_kinds(kind).items() if counts[name]}
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
            "disagreements_told": _told(cards, media, len(items)),
        },
        title=heading,
        style=STYLE.read_text(encoding="utf-8"),
    )


async def load_media(frames: "FrameStore", cards: Sequence[Card], max_bytes: int) -> Media:
    """Frames of the media of all cards, in their order, until `max_bytes` are used up."""
    found: Media = {}
    used = 0
    refs = dict.fromkeys(ref for card in cards for ref in card.item.question.media)
    for ref in refs:
        if used >= max_bytes:
            found[ref] = ShownMedium(
                ref.path,
                complaint="the page's room for pictures was used up before; see "
                "--max-page-megabytes",
            )
            continue
        try:
            encoded = await frames.load(ref)
        except MediaError as error:
            found[ref] = ShownMedium(ref.path, complaint=str(error))
            continue
        used += encoded.num_bytes
        found[ref] = shown_medium(ref, encoded)
    return found


def no_media(cards: Sequence[Card], why: str) -> Media:
    """All media with one and the same complaint."""
    return {
        ref: ShownMedium(ref.path, complaint=why)
        for card in cards
        for ref in card.item.question.media
    }


def load_media_now(frames: "FrameStore", cards: Sequence[Card], max_bytes: int) -> Media:
    """`load_media` for code that runs in no event loop."""
    return asyncio.run(load_media(frames, cards, max_bytes))


def shown_medium(ref: MediaRef, encoded: EncodedFrames) -> ShownMedium:
    """Frames as data URIs."""
    size = f"{encoded.source_width}x{encoded.source_height}"
    is_video = encoded.kind == "video"
    return ShownMedium(
        ref.path,
        facts=f"{encoded.duration_seconds:.1f} s, {size}" if is_video else size,
        frames=tuple(
            ShownFrame(f"{time:.1f} s" if is_video else "", data_uri(jpeg, "image/jpeg"))
            for time, jpeg in zip(encoded.times, encoded.jpegs, strict=True)
        ),
    )


def _shown(
    card: Card,
    kind: AuditKind,
    thirds: tuple[int, int],
    judges: _Facets,
    slices: _Facets,
    media: Media,
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
        choices=shown_choices(question),
        media=tuple(media[ref] for ref in question.media if kind.shows_media),
    )


def _grouped(marks: Sequence[Mark], audit_kind: AuditKind) -> tuple[str, ...]:
    """Each kind once, with its judge or the number of its judges."""
    told = []
    for kind, words in told_kinds(audit_kind).items():
        judges = [mark.judge for mark in marks if mark.kind == kind]
        if len(judges) > 1:
            told.append(f"{words} ({len(judges)} judges)")
        elif judges:
            told.append(f"{words} ({judges[0]})" if judges[0] else words)
    return tuple(told)


def _told(cards: Sequence[Card], media: Media, num_rows: int) -> str:
    blank = sum(1 for medium in media.values() if medium.complaint)
    told = f"{len(cards)} of {count(num_rows, 'row')}, the gravest kind first."
    return f"{told} {count(blank, 'file')} could not be shown, each says why." if blank else told
