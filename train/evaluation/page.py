"""`OUT/index.html`: scores, and answers to look at, with frames, coloured traces and verdicts."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from judges.choices import chosen_letter, read_choices
from media.frames import MediaError
from schemas.pages import data_uri, write_page
from schemas.questions import MediaRef, ProblemType, VideoQuestion
from schemas.traces import TEMPLATES, TraceTemplate, segment_spans
from train.evaluation.report import Answers
from train.evaluation.scoring import Scored
from train.evaluation.tables import comparison_table, notes, percent, score_table

if TYPE_CHECKING:
    from train.frame_loader import DecodedMedia, FrameLoader

PAGE_FILE = "index.html"
TEMPLATE = Path(__file__).parent / "answers.html.jinja"
STYLE = Path(__file__).parent / "answers.css"
_FRAMES = 8
_HEIGHT = 120  # pixels
_QUALITY = 80
_VERDICTS = ("right", "wrong", "unparsed", "error")


@dataclass(frozen=True)
class ShownFrame:
    """A frame as a data URI, and its time."""

    time: str
    source: str


@dataclass(frozen=True)
class ShownMedium:
    """Some frames of a file, or why there are none."""

    path: str
    facts: str = ""
    complaint: str = ""
    frames: tuple[ShownFrame, ...] = ()


@dataclass(frozen=True)
class ShownChoice:
    """An option: is it right, was it given."""

    text: str
    is_gold: bool
    is_given: bool


@dataclass(frozen=True)
class Piece:
    """A stretch of a reply: inside a well-formed segment, or outside of all (`tag` is empty)."""

    tag: str
    text: str


@dataclass(frozen=True)
class ShownAnswer:
    """An answer as the template prints it."""

    scored: Scored
    verdict: str
    facets: str
    choices: tuple[ShownChoice, ...]
    pieces: tuple[Piece, ...]
    media: tuple[ShownMedium, ...]
    lengths: str


@dataclass
class _Names:
    """Numbers for names, because facets are words without blanks."""

    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, name: str) -> int:
        return self.numbers.setdefault(name, len(self.numbers))


def write_answers_page(
    path: Path,
    answers: Answers,
    report: Mapping[str, Any],
    *,
    loader: "FrameLoader | None",
    max_rows: int,
    max_bytes: float,
) -> None:
    """Write the page: at most `max_rows` answers, spread evenly, with frames up to `max_bytes`."""
    chosen = _spread(answers.scored, max_rows)
    pictures = _Pictures(loader, max_bytes)
    types, sources = _Names(), _Names()
    template = TEMPLATES[answers.template]
    shown = [
        _shown(one, template, report["lengths_in"], types, sources, pictures) for one in chosen
    ]
    verdicts = [one.verdict for one in shown]
    comparison = report.get("comparison")
    write_page(
        path,
        TEMPLATE,
        {
            "heading": f"Evaluation of {answers.facts.model or 'answers that exist'}",
            "conditions": answers.facts.sentence(),
            "made": report["run"]["started_at"],
            "scores": score_table(report),
            "notes": notes(report),
            "comparison": comparison_table(comparison) if comparison else None,
            "answers": shown,
            "told": _told(len(chosen), len(answers.scored), pictures),
            "tags": [segment.tag for segment in template.segments],
            "types": list(types.numbers),
            "sources": list(sources.numbers),
            "verdicts": {name: verdicts.count(name) for name in _VERDICTS if name in verdicts},
            "percent": percent,
        },
        title=f"Evaluation: {percent(report['overall']['tolerant']['score'])}",
        style=STYLE.read_text(encoding="utf-8"),
    )


class _Pictures:
    """Small frames of the media, while there is room for them."""

    def __init__(self, loader: "FrameLoader | None", max_bytes: float) -> None:
        self._loader = loader
        self._left = max_bytes
        self._known: dict[MediaRef, ShownMedium] = {}
        self.has_room = True

    def of(self, scored: Scored) -> tuple[ShownMedium, ...]:
        """The media that were shown with a question."""
        refs: tuple[MediaRef, ...] = scored.prediction.question.media
        if shown := scored.prediction.shown:
            refs = tuple(
                MediaRef(kind=ref.kind, path=path) for ref, path in zip(refs, shown, strict=True)
            )
        return tuple(self._medium(ref) for ref in refs)

    def _medium(self, ref: MediaRef) -> ShownMedium:
        if self._loader is None:
            return ShownMedium(ref.path)
        found = self._known.get(ref) or self._loaded(ref, self._loader)
        self._known[ref] = found
        # The same clip counts each time: the page holds it each time.
        size = sum(len(frame.source) for frame in found.frames)
        if size > self._left:
            self.has_room = False
            return ShownMedium(ref.path, complaint="the page's room for frames was used up before")
        self._left -= size
        return found

    def _loaded(self, ref: MediaRef, loader: "FrameLoader") -> ShownMedium:
        try:
            medium = loader.load(ref)
        except MediaError as error:
            return ShownMedium(ref.path, complaint=str(error))
        places = _places(len(medium), _FRAMES)
        frames = tuple(
            ShownFrame(
                f"{medium.times_seconds[place]:.1f} s" if medium.kind == "video" else "",
                data_uri(_thumbnail(medium, place), "image/jpeg"),
            )
            for place in places
        )
        facts = ""
        if medium.kind == "video":
            facts = f"{medium.duration_seconds:.1f} s, {len(places)} of the {len(medium)} frames"
        return ShownMedium(ref.path, facts=facts, frames=frames)


def _thumbnail(medium: "DecodedMedia", place: int) -> bytes:
    picture = Image.fromarray(medium.pixels[place])
    if picture.height > _HEIGHT:
        width = max(1, round(picture.width * _HEIGHT / picture.height))
        picture = picture.resize((width, _HEIGHT), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _spread(scored: Sequence[Scored], most: int) -> list[Scored]:
    return [scored[place] for place in _places(len(scored), most)]


def _places(count: int, most: int) -> list[int]:
    """At most so many places of `count`, evenly spread, the first one included."""
    if count <= most:
        return list(range(count))
    return [number * count // most for number in range(most)]


def _shown(
    scored: Scored,
    template: TraceTemplate,
    unit: str,
    types: _Names,
    sources: _Names,
    pictures: _Pictures,
) -> ShownAnswer:
    question = scored.prediction.question
    verdict = _verdict(scored)
    facets = (
        types.number(question.problem_type.value),
        sources.number(question.data_source or "not given"),
        verdict,
        "yes" if scored.is_mismatch else "no",
        "no" if scored.trace_fault else "yes",
    )
    return ShownAnswer(
        scored=scored,
        verdict=verdict,
        facets=",".join(map(str, facets)),
        choices=_choices(question, scored.tolerant.answer),
        pieces=_pieces(scored.prediction.output, template),
        media=pictures.of(scored),
        lengths=", ".join(f"{tag} {length}" for tag, length in scored.lengths.items())
        + (f" {unit}" if scored.lengths else ""),
    )


def _verdict(scored: Scored) -> str:
    if scored.prediction.error:
        return "error"
    if not scored.tolerant.is_parsed:
        return "unparsed"
    return "right" if scored.tolerant.is_correct else "wrong"


def _choices(question: VideoQuestion, answer: str | None) -> tuple[ShownChoice, ...]:
    if question.problem_type is not ProblemType.MULTIPLE_CHOICE:
        return ()
    gold = chosen_letter(question.solution, question.options)
    given = chosen_letter(answer or "", question.options)
    return tuple(
        ShownChoice(f"{one.letter}. {one.text}", one.canonical == gold, one.canonical == given)
        for one in read_choices(question.options)
    )


def _pieces(output: str, template: TraceTemplate) -> tuple[Piece, ...]:
    pieces, done = [], 0
    for span in segment_spans(output, template):
        pieces += [
            Piece("", output[done : span.start]),
            Piece(span.tag, output[span.start : span.end]),
        ]
        done = span.end
    pieces.append(Piece("", output[done:]))
    return tuple(piece for piece in pieces if piece.text.strip())


def _told(shown: int, total: int, pictures: _Pictures) -> str:
    told = f"{shown:,} of {total:,} answers"
    if shown < total:
        told += ", evenly spread (--page-rows)"
    if not pictures.has_room:
        told += "; some are without frames, for want of room (--page-megabytes)"
    return told + "."
