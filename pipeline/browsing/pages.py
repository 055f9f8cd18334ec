"""The pages of a build: `rows-00001.html` and so on, and `index.html`, which searches all of them.

The index holds a line of each row as JSON inside the page, so that it needs no server: what it is
filtered by, and the beginning of its texts, as long as the whole stays within `INDEX_BYTES`.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cli.html_page import FacetNumbers, Piece, trace_pieces, write_page
from judges.audits.records import ShownChoice, shown_choices
from judges.sufficiency import correct_answer_text
from pipeline.browsing.media import ClipFolder, PageClips, ShownClip
from pipeline.browsing.rows import KEPT, Attempt, BrowsedBuild, BrowsedRow
from schemas.serialization import one_line
from schemas.traces import TEMPLATES

INDEX, NAMES = "index.html", "*.html"
INDEX_BYTES = 24_000_000
_LINES = ".lines"
_HERE = Path(__file__).parent
_TEMPLATE = TEMPLATES["p2r"]
_MOST_SEARCHED = 600  # characters of a row that the index knows
_MOST_SHOWN = 20_000  # characters of a text on a page; a runaway reply must not fill it
_NOT_GIVEN = "not given"


@dataclass(frozen=True)
class ShownAttempt:
    """A trace of the teacher in coloured pieces; `is_kept` where it is in the dataset."""

    attempt: Attempt
    pieces: tuple[Piece, ...]
    cut: int
    is_kept: bool


@dataclass(frozen=True)
class ShownRow:
    """A row as the template prints it."""

    row: BrowsedRow
    facets: str
    choices: tuple[ShownChoice, ...]
    gold: str
    clips: tuple[ShownClip, ...]
    attempts: tuple[ShownAttempt, ...]
    dollars: str
    calls: frozenset[str]


@dataclass(frozen=True)
class PageLink:
    """A page of rows: its file and which rows of how many it holds."""

    name: str
    first: int
    last: int


def write_pages(
    build: BrowsedBuild,
    clips: ClipFolder,
    folder: Path,
    *,
    heading: str,
    rows_per_page: int,
    max_page_bytes: float,
) -> int:
    """Write all pages into the existing `folder`. Returns how many pages of rows there are."""
    sources, types = FacetNumbers(), FacetNumbers()
    steps, reasons = FacetNumbers(), FacetNumbers()
    for step, reason, _ in build.ends():
        steps.number(step)
        reasons.number(reason)
    pages = [
        PageLink(_page_name(number), start, min(start + rows_per_page, build.num_rows))
        for number, start in enumerate(range(0, build.num_rows, rows_per_page), 1)
    ]
    style = (_HERE / "rows.css").read_text("utf-8")
    lines = folder / _LINES
    searched = min(_MOST_SEARCHED, int(INDEX_BYTES / max(build.num_rows, 1)))
    with lines.open("w", encoding="utf-8", newline="\n") as file:
        for number, page in enumerate(pages):
            rows = build.rows(page.first, page.last - page.first)
            refs = [ref for row in rows if row.question for ref in row.question.media]
            shown_clips = clips.shown(refs, max_page_bytes)
            shown = [_shown(row, shown_clips, sources, types) for row in rows]
            _add_lines(file, rows, number, (steps, reasons, sources, types), searched)
            write_page(
                folder / page.name,
                _HERE / "rows.html.jinja",
                {
                    "heading": heading,
                    "page": page,
                    "num_rows": build.num_rows,
                    "before": pages[number - 1].name if number else "",
                    "after": pages[number + 1].name if page is not pages[-1] else "",
                    "index": INDEX,
                    "rows": shown,
                    "ends": _ends_of(rows),
                    "sources": sources.numbers,
                    "types": types.numbers,
                    "has_room": shown_clips.has_room,
                    "not_given": _NOT_GIVEN,
                },
                title=f"{heading}: rows {page.first + 1} to {page.last}",
                style=style,
                plays_clips=True,
            )
    write_page(
        folder / INDEX,
        _HERE / "index.html.jinja",
        {
            "heading": heading,
            "num_rows": build.num_rows,
            "num_asked": build.num_asked,
            "ends": [
                (step, steps.numbers[step], reason, reasons.numbers[reason], count)
                for step, reason, count in build.ends()
            ],
            "pages": pages,
            "searched": searched,
            "names": _as_data(
                {
                    "pages": [page.name for page in pages],
                    **_names(steps, reasons, sources, types),
                }
            ),
            "lines": _lines_of(lines),
        },
        title=heading,
        style=style,
        script=(_HERE / "index.js").read_text("utf-8"),
    )
    lines.unlink()
    return len(pages)


def _page_name(number: int) -> str:
    return f"rows-{number:05d}.html"


def _names(*facets: FacetNumbers) -> dict[str, list[str]]:
    kinds = ("step", "reason", "source", "type")
    return {kind: list(one.numbers) for kind, one in zip(kinds, facets, strict=True)}


def _shown(
    row: BrowsedRow, clips: PageClips, sources: FacetNumbers, types: FacetNumbers
) -> ShownRow:
    facets = (
        row.step,
        row.reason or "-",
        sources.number(row.data_source or _NOT_GIVEN),
        types.number(row.problem_type or _NOT_GIVEN),
    )
    return ShownRow(
        row=row,
        facets=",".join(map(str, facets)),
        choices=() if row.question is None else shown_choices(row.question),
        gold="" if row.question is None else correct_answer_text(row.question),
        clips=() if row.question is None else clips.of(row.question.media),
        attempts=tuple(_attempt(one, row.kept_draw) for one in row.attempts),
        dollars=_dollars([call.cost_usd for call in row.calls]),
        calls=frozenset(call.call_key for call in row.calls),
    )


def _attempt(attempt: Attempt, kept_draw: int | None) -> ShownAttempt:
    return ShownAttempt(
        attempt=attempt,
        pieces=trace_pieces(attempt.output[:_MOST_SHOWN], _TEMPLATE),
        cut=max(0, len(attempt.output) - _MOST_SHOWN),
        is_kept=attempt.draw == kept_draw,
    )


def _dollars(costs: Sequence[float | None]) -> str:
    """What the calls of a row cost together, and how many of them have no known price."""
    if not costs:
        return ""
    known = [cost for cost in costs if cost is not None]
    unknown = len(costs) - len(known)
    if not known:
        return "price unknown"
    return f"${math.fsum(known):,.4f}" + (f" and {unknown} of unknown price" if unknown else "")


def _ends_of(rows: Sequence[BrowsedRow]) -> dict[str, list[tuple[str, int]]]:
    """Steps and reasons of a page, each with the number of its rows."""
    steps, reasons = [row.step for row in rows], [row.reason for row in rows if row.reason]
    return {
        "steps": [(name, steps.count(name)) for name in dict.fromkeys(steps)],
        "reasons": [(name, reasons.count(name)) for name in dict.fromkeys(reasons)],
    }


def _add_lines(
    file: IO[str],
    rows: Sequence[BrowsedRow],
    page: int,
    facets: tuple[FacetNumbers, FacetNumbers, FacetNumbers, FacetNumbers],
    searched: int,
) -> None:
    """Append the index's line of each row: page, row, id, facets, text, how much of it is the
    question."""
    steps, reasons, sources, types = facets
    for row in rows:
        line = [
            page,
            row.row,
            row.question_id,
            steps.number(row.step),
            reasons.number(row.reason),
            sources.number(row.data_source or _NOT_GIVEN),
            types.number(row.problem_type or _NOT_GIVEN),
            _searched_text(row)[:searched],
            len(one_line(row.question.problem)) if row.question else 0,
        ]
        file.write(_as_data(line) + "\n")


def _searched_text(row: BrowsedRow) -> str:
    """What a row is found by: question, options, gold, what was rejected, the teacher's words."""
    words = [row.detail if row.step != KEPT else ""]
    if row.question is not None:
        words[:0] = [row.question.problem, *row.question.options, row.question.solution]
        words += [ref.path for ref in row.question.media]
    words += [row.problem_id, *(attempt.output for attempt in row.attempts)]
    return one_line(" ".join(filter(None, words)))


def _lines_of(path: Path) -> Iterator[str]:
    """The lines of the index one by one, joined by commas: the page never holds them together."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file):
            yield ("," if number else "") + line


def _as_data(value: object) -> str:
    """JSON that stands inside of a script element: nothing in it can end that, or be markup."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
