"""Accepted samples, joined and streamed in question file order.

Sorting whole traces would need their size in memory or on disk. So only row numbers are joined and
sorted, and the traces are fetched by them, a batch at a time; rows of a batch lie close together
because questions are worked on in file order.
"""

import json
from array import array
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from schemas.questions import VideoQuestion
from schemas.samples import AcceptedSample

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


QUESTION_COLUMNS = (
    'question_id, "row", problem_id, data_source, problem_type, problem, options, solution, media, '
    "time_clues, level"
)
_ATTEMPT_COLUMNS = (
    "draw, call_key, output, observation, think, answer, generator, prompt_id, media_id, "
    "frame_spec, frame_indices, frame_times"
)
_CHECK_COLUMNS = "score, metric, extracted"
_VERDICT_COLUMNS = "judge, prompt_id, call_key, reply, answer_leak"
_PLACES = """
SELECT questions.rowid, attempts.rowid, checks.rowid, verdicts.rowid
FROM accepted
JOIN questions USING (question_id)
JOIN attempts USING (question_id, draw)
JOIN answer_checks AS checks USING (question_id, draw)
JOIN last_verdicts USING (question_id, draw)
JOIN sufficiency_verdicts AS verdicts USING (question_id, draw, judge_draw)
ORDER BY questions."row", questions.question_id
"""
_PLACES_PER_FETCH = 10_000


def accepted_samples(cursor: "DuckDBPyConnection", batch_rows: int) -> Iterator[AcceptedSample]:
    """Accepted samples in question file order; at most `batch_rows` are held at a time."""
    cursor.begin()  # one snapshot until the cursor is closed: row numbers hold only within it
    places = [array("q") for _ in range(4)]
    cursor.execute(_PLACES)
    while rows := cursor.fetchmany(_PLACES_PER_FETCH):
        for column, values in zip(places, zip(*rows, strict=True), strict=True):
            column.extend(values)
    for start in range(0, len(places[0]), batch_rows):
        questions, attempts, checks, verdicts = (
            column[start : start + batch_rows] for column in places
        )
        parts = zip(
            _rows_at(cursor, "questions", QUESTION_COLUMNS, questions),
            _rows_at(cursor, "attempts", _ATTEMPT_COLUMNS, attempts),
            _rows_at(cursor, "answer_checks", _CHECK_COLUMNS, checks),
            _rows_at(cursor, "sufficiency_verdicts", _VERDICT_COLUMNS, verdicts),
            strict=True,
        )
        samples = [_sample(*rows) for rows in parts]
        marks = _marks(cursor, [sample.question_id for sample in samples])
        for sample in samples:
            mark, rate = marks.get(sample.question_id, (None, None))
            yield replace(sample, answerable_blind=mark, blind_rate=rate)


def _marks(
    cursor: "DuckDBPyConnection", question_ids: list[str]
) -> dict[str, tuple[bool | None, float]]:
    """Of those that a text reader was asked: whether it answers them blind, and its rate."""
    cursor.execute(
        "SELECT question_id, answerable_blind, blind_rate FROM blind_marks"
        " WHERE question_id IN (SELECT unnest(?))",
        [question_ids],
    )
    return {question_id: (mark, rate) for question_id, mark, rate in cursor.fetchall()}


def _rows_at(
    cursor: "DuckDBPyConnection", table: str, columns: str, places: "array[int]"
) -> list[tuple[Any, ...]]:
    """Rows of `table` in the order of `places`."""
    cursor.execute(
        f"SELECT rowid, {columns} FROM {table}"
        " WHERE rowid BETWEEN ? AND ? AND rowid IN (SELECT unnest(?))",
        [min(places), max(places), places.tolist()],
    )
    found = {row[0]: row[1:] for row in cursor.fetchall()}
    return [found[place] for place in places]


def _sample(
    question: tuple[Any, ...],
    attempt: tuple[Any, ...],
    check: tuple[Any, ...],
    verdict: tuple[Any, ...],
) -> AcceptedSample:
    draw, call_key, output, observation, think, answer, *origin = attempt
    generator, prompt_id, media_id, frame_spec, frame_indices, frame_times = origin
    score, metric, extracted = check
    judge, judge_prompt_id, judge_call_key, judge_reply, answer_leak = verdict
    return AcceptedSample(
        question=stored_question(question),
        draw=draw,
        call_key=call_key,
        output=output,
        observation=observation or "",
        think=think or "",
        answer=answer or "",
        reward=score,
        metric=metric,
        extracted=extracted or "",
        generator=generator,
        prompt_id=prompt_id,
        media_id=media_id,
        frame_spec=frame_spec,
        frame_indices=tuple(frame_indices or ()),
        frame_times=tuple(frame_times or ()),
        judge=judge,
        judge_prompt_id=judge_prompt_id or "",
        judge_call_key=judge_call_key or "",
        judge_reply=judge_reply or "",
        answer_leak=answer_leak,
    )


def stored_question(row: tuple[Any, ...]) -> VideoQuestion:
    """The question whose QUESTION_COLUMNS are `row`."""
    _, place, problem_id, source, problem_type, problem, options, solution, media, clues, level = (
        row
    )
    return VideoQuestion(
        problem=problem,
        options=json.loads(options),
        solution=solution,
        media=json.loads(media),
        problem_type=problem_type,
        data_source=source,
        problem_id=problem_id,
        time_clues=json.loads(clues),
        level=level,
        row=place,
    )


def stored_questions(cursor: "DuckDBPyConnection") -> Iterator[VideoQuestion]:
    """All questions in the order of their file, each with the mark of a text reader."""
    cursor.execute(
        f"SELECT answerable_blind, {QUESTION_COLUMNS} FROM questions"
        " LEFT JOIN blind_marks USING (question_id)"
        ' WHERE problem IS NOT NULL ORDER BY "row", question_id'
    )
    while rows := cursor.fetchmany(_PLACES_PER_FETCH):
        for mark, *columns in rows:
            yield stored_question(tuple(columns)).model_copy(update={"answerable_blind": mark})
