"""A real ledger of a small finished build, written row by row as the builder writes it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from schemas.annotations.reader import UnreadableRow
from schemas.ledger.ledger import Ledger
from schemas.ledger.rows import AnswerCheckRow, AttemptRow, CallRow, MediaRow, SufficiencyRow
from schemas.questions import MediaRef, ProblemType, VideoQuestion
from schemas.runs import RunInfo
from schemas.samples import Reason, Rejection, Step

CONFIG: dict[str, Any] = {
    "questions": "/home/somebody/q.json",
    "media_root": "/home/somebody/clips",
    "output_dir": "OUT",
    "generator": "claude:teacher",
    "judge": "claude:judge",
    "threshold": 0.6,
    "attempts": 2,
    "frames": "uniform:4",
    "max_pixels": 100352,
    "concurrency": 16,
}
OPTIONS = ("A. red | green", "B. *blue*", "C. <b>none</b>")


def run_info(number: int = 1, **config: Any) -> RunInfo:
    return RunInfo(
        run_id=f"run-2026010{number}T000000Z-{number:08x}",
        command="pipeline.build_cot --out OUT",
        started_at=f"2026-01-0{number}T12:00:00+00:00",
        commit="0123456789abcdef0123456789abcdef01234567",
        dirty=False,
        versions={"p2r": "0.1.0", "duckdb": "2.0.0"},
        python="3.11.7",
        platform="Linux",
        config=CONFIG | config,
    )


def question(row: int, **fields: Any) -> VideoQuestion:
    """Multiple choice in even rows, free-form in odd ones; `fields` replace what it would hold."""
    is_choice = row % 2 == 0
    defaults: dict[str, Any] = {
        "problem": f"What happens in clip {row}?",
        "options": OPTIONS if is_choice else (),
        "solution": "ABC"[row // 2 % 3] if is_choice else f"thing {row} “happens”",
        "media": (MediaRef(kind="video", path=f"clips/{row:03d}.mp4"),),
        "problem_type": ProblemType.MULTIPLE_CHOICE if is_choice else ProblemType.FREE_FORM,
        "data_source": "street/train" if row % 3 else "kitchen/train",
        "problem_id": f"{row}",
        "row": row,
    }
    return VideoQuestion(**defaults | fields)


def add_attempt(
    ledger: Ledger,
    asked: VideoQuestion,
    draw: int = 0,
    *,
    score: float = 1.0,
    verdict: str | None = "yes",
    leak: bool = False,
    **columns: Any,
) -> None:
    """One draw of the teacher with its checks and calls; a failing score asks no judge."""
    number = asked.row
    answer = asked.solution if score else "wrong"
    observation = " ".join(["seen"] * (number + 1))
    think = f"thought {number} {draw}"
    clip = asked.media[0].path
    ledger.add_call(
        CallRow(
            call_key=f"generate-{asked.question_id}-{draw}",
            status="ok",
            provider="claude",
            model="teacher",
            step="generate",
            question_id=asked.question_id,
            reply="...",
            input_tokens=1000,
            output_tokens=100,
            cost_usd=0.01,
        )
    )
    ledger.add_media(
        MediaRow(
            path=clip,
            kind=asked.media[0].kind,
            media_id=f"media-{clip}",
            frame_spec_id="frames-1",
            reader="decord",
            duration_seconds=8.0 + number,
            frame_indices=[0, 5, 10],
            frame_times=[0.0, 0.5, 1.0],
        )
    )
    ledger.add_attempt(
        replace(
            AttemptRow(
                question_id=asked.question_id,
                draw=draw,
                call_key=f"generate-{asked.question_id}-{draw}",
                output=(
                    f"<observation>{observation}</observation> <think>{think}</think>"
                    f"<answer>{answer}</answer>"
                ),
                observation=observation,
                think=think,
                answer=answer,
                generator="claude:teacher",
                prompt_id="prompt-teacher",
                media_id=f"media-{clip}",
                frame_spec="frames-1",
                frame_indices=[0, 5, 10],
                frame_times=[0.0, 0.5, 1.0],
            ),
            **columns,
        )
    )
    ledger.add_answer_check(
        AnswerCheckRow(
            question_id=asked.question_id,
            draw=draw,
            metric="accuracy",
            score=score,
            passed=score >= 0.6,
            extracted=answer,
        )
    )
    if score < 0.6:
        return
    if verdict is not None:
        ledger.add_call(
            CallRow(
                call_key=f"filter-{asked.question_id}-{draw}",
                status="ok",
                provider="claude",
                model="judge",
                step="filter",
                question_id=asked.question_id,
                reply="...",
                input_tokens=200,
                output_tokens=10,
            )
        )
    ledger.add_sufficiency(
        SufficiencyRow(
            question_id=asked.question_id,
            draw=draw,
            call_key=f"filter-{asked.question_id}-{draw}" if verdict else None,
            verdict=verdict,
            answer_leak=leak,
            judge="claude:judge",
            prompt_id="prompt-judge" if verdict else None,
            reply=f"<judgement>{verdict}</judgement>" if verdict else None,
        )
    )


def fill(ledger: Ledger, rows: Sequence[int] = range(30), order: Sequence[int] = ()) -> None:
    """Thirty questions and an unreadable row, settled in `order` (the reverse of the file's).

    By row number: 5 missing file, 11 failed call, 7 low score, 13 malformed, 9 insufficient,
    15 leak, 17 passes at its second draw; row 30 cannot be read; 24 of the 31 are accepted.
    """
    questions = {row: question(row) for row in rows}
    ledger.add_questions(questions.values())
    for row in order or list(reversed(rows)):
        _settle(ledger, questions[row])
    unreadable = UnreadableRow(
        row=30, line=31, reason=Reason.INVALID_QUESTION, detail="no problem", problem_id="x|y"
    )
    ledger.add_question(unreadable)
    ledger.add_rejection(
        unreadable.question_id, Rejection(Step.READ, unreadable.reason, unreadable.detail)
    )


def _settle(ledger: Ledger, asked: VideoQuestion) -> None:
    rejection = {
        5: Rejection(Step.MEDIA, Reason.MISSING_FILE, "clips/005.mp4 | <is> not there"),
        7: Rejection(Step.VERIFY, Reason.LOW_SCORE, "accuracy 0.000 is below 0.6"),
        9: Rejection(Step.FILTER, Reason.INSUFFICIENT, "the judge says No"),
        11: Rejection(Step.GENERATE, Reason.CALL_FAILED, "529 overloaded"),
        13: Rejection(Step.VERIFY, Reason.MALFORMED_TRACE, "missing_tag at character 0"),
        15: Rejection(Step.FILTER, Reason.ANSWER_LEAK, "the observation says 'the answer is B'"),
    }.get(asked.row)
    if asked.row in (7, 17):
        add_attempt(ledger, asked, 0, score=0.0)
    if asked.row == 7:
        add_attempt(ledger, asked, 1, score=0.0)
    elif asked.row == 9:
        add_attempt(ledger, asked, verdict="no")
    elif asked.row == 15:
        add_attempt(ledger, asked, verdict=None, leak=True)
    elif rejection is None:
        add_attempt(ledger, asked, int(asked.row == 17), score=0.8 if asked.row % 2 else 1.0)
    if rejection is not None:
        ledger.add_rejection(asked.question_id, rejection)


@contextmanager
def built_ledger(folder: Path, number: int = 1, **config: Any) -> Iterator[Ledger]:
    """A ledger of one finished build in `folder`."""
    with empty_ledger(folder, number, **config) as ledger:
        fill(ledger)
        yield ledger


@contextmanager
def empty_ledger(folder: Path, number: int = 1, **config: Any) -> Iterator[Ledger]:
    """A new ledger in `folder`."""
    with Ledger.open(
        folder / "cot.duckdb", replace(run_info(number), config=CONFIG | config)
    ) as ledger:
        yield ledger
