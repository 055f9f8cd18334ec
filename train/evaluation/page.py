"""`OUT/index.html`: scores, and the answers with their frames, coloured traces and verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.html_page import (
    ByteBudget,
    FacetNumbers,
    Piece,
    ShownMedium,
    shown_medium,
    spread_places,
    trace_pieces,
    write_page,
)
from cli.index_page import folder_listing
from judges.scoring.choices import chosen_letter, read_choices
from media.encoding import thumbnail
from media.frames import MediaError
from schemas.questions import MediaRef, ProblemType, VideoQuestion
from schemas.traces import TEMPLATES, TraceTemplate
from train.evaluation.metrics import added_metrics
from train.evaluation.predictions import Prediction
from train.evaluation.report import ScoredAnswers
from train.evaluation.scoring import SampleScore
from train.evaluation.tables import comparison_table, notes, number, percent, score_table

if TYPE_CHECKING:
    from train.data.frame_loader import FrameLoader

PAGE_FILE = "index.html"
TEMPLATE = Path(__file__).parent / "answers.html.jinja"
STYLE = Path(__file__).parent / "answers.css"
_FRAMES = 8
_HEIGHT = 120  # pixels
_VERDICTS = ("right", "wrong", "unparsed", "error")


@dataclass(frozen=True)
class ShownChoice:
    """An option of a multiple choice question."""

    text: str
    is_gold: bool
    is_given: bool


@dataclass(frozen=True)
class ShownAnswer:
    """An answer as the template prints it."""

    scored: SampleScore
    verdict: str
    facets: str
    choices: tuple[ShownChoice, ...]
    pieces: tuple[Piece, ...]
    media: tuple[ShownMedium, ...]
    lengths: str
    measures: str


def write_answers_page(
    path: Path,
    answers: ScoredAnswers,
    report: Mapping[str, Any],
    *,
    loader: "FrameLoader | None",
    max_rows: int,
    max_bytes: float,
) -> None:
    """Write the page: at most `max_rows` answers, spread evenly, with frames up to `max_bytes`."""
    chosen = _spread(answers.scores, max_rows)
    media = _Media(loader, max_bytes)
    types, sources = FacetNumbers(), FacetNumbers()
    template = TEMPLATES[answers.template]
    shown = [_shown(one, template, report["lengths_in"], types, sources, media) for one in chosen]
    verdicts = [one.verdict for one in shown]
    comparison, overall = report.get("comparison"), report["overall"]
    heading = _model_name(answers.conditions.model)
    write_page(
        path,
        TEMPLATE,
        {
            "heading": heading,
            "conditions": answers.conditions.sentence(),
            "made": report["run"]["started_at"],
            "scores": score_table(report),
            "notes": notes(report),
            "comparison": comparison_table(comparison) if comparison else None,
            "answers": shown,
            "extent": _extent(len(chosen), len(answers.scores), media.has_room),
            "tags": [segment.tag for segment in template.segments],
            "types": list(types.numbers),
            "sources": list(sources.numbers),
            "verdicts": {name: verdicts.count(name) for name in _VERDICTS if name in verdicts},
            "percent": percent,
            "listing": folder_listing(path.parent),
        },
        title=f"{heading}: {percent(overall['tolerant']['score'], overall['n'])}",
        style=STYLE.read_text(encoding="utf-8"),
    )


def _model_name(model: str) -> str:
    """What a model is called: its id on the Hub, or the last two folders of where it lies."""
    place = model.partition(" (")[0]  # without the id of its weights
    return "/".join(Path(place).parts[-2:]) if model else "Answers that exist"


class _Media:
    """Small frames of the media, while the page has room for them."""

    def __init__(self, loader: "FrameLoader | None", max_bytes: float) -> None:
        self._loader = loader
        self._budget = ByteBudget(max_bytes)
        self._known: dict[MediaRef, ShownMedium] = {}

    @property
    def has_room(self) -> bool:
        """Whether all frames so far did fit."""
        return self._budget.has_room

    def of(self, prediction: Prediction) -> tuple[ShownMedium, ...]:
        """The media that were shown with a question."""
        refs = prediction.question.media
        if prediction.shown:
            refs = tuple(
                MediaRef(kind=ref.kind, path=path)
                for ref, path in zip(refs, prediction.shown, strict=True)
            )
        return tuple(self._medium(ref) for ref in refs)

    def _medium(self, ref: MediaRef) -> ShownMedium:
        if self._loader is None:
            return ShownMedium(ref.path)
        if ref not in self._known:
            self._known[ref] = _load(ref, self._loader)
        return self._budget.fit(self._known[ref])


def _load(ref: MediaRef, loader: "FrameLoader") -> ShownMedium:
    try:
        medium = loader.load(ref)
    except MediaError as error:
        return ShownMedium(ref.path, complaint=str(error))
    places = spread_places(len(medium), _FRAMES)
    jpegs = [thumbnail(medium.pixels[place], max_height=_HEIGHT) for place in places]
    if medium.kind == "image":
        return shown_medium(ref.path, jpegs, times=None)
    return shown_medium(
        ref.path,
        jpegs,
        times=[medium.times_seconds[place] for place in places],
        facts=f"{medium.duration_seconds:.1f} s, {len(places)} of the {len(medium)} frames",
    )


def _spread(scored: Sequence[SampleScore], most: int) -> list[SampleScore]:
    return [scored[place] for place in spread_places(len(scored), most)]


def _shown(
    scored: SampleScore,
    template: TraceTemplate,
    unit: str,
    types: FacetNumbers,
    sources: FacetNumbers,
    media: _Media,
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
        pieces=trace_pieces(scored.prediction.output, template),
        media=media.of(scored.prediction),
        lengths=", ".join(f"{tag} {length}" for tag, length in scored.lengths.items())
        + (f" {unit}" if scored.lengths else ""),
        measures=", ".join(
            f"{row.label} {number(row, value)}"
            for row in added_metrics()
            if (value := row.of(scored)) is not None
        ),
    )


def _verdict(scored: SampleScore) -> str:
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


def _extent(shown: int, total: int, has_room: bool) -> str:
    text = f"{shown:,} of {total:,} answers"
    if shown < total:
        text += ", evenly spread (--page-rows)"
    if not has_room:
        text += "; some are without frames, for want of room (--page-megabytes)"
    return text + "."
