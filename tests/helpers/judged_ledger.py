"""Small ledgers with verdicts in them, for tests of audits."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from schemas.ledger.ledger import Ledger
from schemas.ledger.rows import AttemptRow, SufficiencyRow
from schemas.questions import MediaRef, ProblemType, VideoQuestion
from schemas.runs import start_run

JUDGE = "oracle:5"


def choice_question(number: int, video: int, source: str = "kitchen") -> VideoQuestion:
    return VideoQuestion(
        problem=f"What stands on table {number}?",
        options=("A. a cup", "B. a plate", "C. a vase"),
        solution="ABC"[number % 3],
        media=(MediaRef(kind="video", path=f"clips/{video}.mp4"),),
        problem_type=ProblemType.MULTIPLE_CHOICE,
        data_source=source,
        row=number,
    )


def free_question(number: int, video: int, source: str = "street") -> VideoQuestion:
    return VideoQuestion(
        problem=f"Who crosses street {number}?",
        solution=f"a postman with bag {number}",
        media=(MediaRef(kind="video", path=f"clips/{video}.mp4"),),
        problem_type=ProblemType.FREE_FORM,
        data_source=source,
        row=number,
    )


def judged_ledger(
    path: Path,
    verdicts: Iterable[tuple[VideoQuestion, int, list[str | None]]],
    observations: Mapping[str, str] | None = None,
) -> Path:
    """A ledger with one attempt per `(question, draw, verdicts of the judge's draws)`.

    None is a verdict row without a verdict: a leak was flagged before the judge was asked.
    `observations` by question id take the place of made-up ones.
    """
    told = observations or {}
    with Ledger.open(path, start_run("build", {})) as ledger:
        for question, draw, said in verdicts:
            ledger.add_question(question)
            ledger.add_attempt(
                AttemptRow(
                    question_id=question.question_id,
                    draw=draw,
                    call_key=f"teacher-{question.row}-{draw}",
                    output="...",
                    observation=told.get(
                        question.question_id, f"Observation {draw} of row {question.row}."
                    ),
                    frame_spec="frames-1",
                )
            )
            for judge_draw, verdict in enumerate(said):
                ledger.add_sufficiency(
                    SufficiencyRow(
                        question_id=question.question_id,
                        draw=draw,
                        judge_draw=judge_draw,
                        call_key=f"judge-{question.row}-{draw}-{judge_draw}",
                        verdict=verdict,
                        unscored_reason="off_menu" if verdict == "unscored" else None,
                        answer_leak=verdict is None,
                        judge=JUDGE,
                        prompt_id="prompt-1",
                    )
                )
    return path
