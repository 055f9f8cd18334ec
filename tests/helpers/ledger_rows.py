"""Rows for ledger tests: small questions and everything that follows from them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from schemas.ledger.ledger import Ledger
from schemas.ledger.rows import AnswerCheckRow, AttemptRow, CallRow, SufficiencyRow
from schemas.questions import MediaRef, ProblemType, VideoQuestion
from schemas.runs import RunInfo


@dataclass(frozen=True, kw_only=True)
class ColouredCall(CallRow):
    """A row with a column that the first schema has not."""

    colour: str


def a_run(number: int = 0, **config: Any) -> RunInfo:
    return RunInfo(
        run_id=f"run-{number}",
        command="python -m pipeline.build_cot --out OUT",
        started_at=f"2026-01-01T00:{number // 60:02}:{number % 60:02}.000+00:00",
        commit=None,
        dirty=None,
        versions={"p2r": "0.1.0"},
        python="3.11",
        platform="linux",
        config=config,
    )


def a_question(row: int, **fields: Any) -> VideoQuestion:
    return VideoQuestion(
        **{
            "problem": f"What happens in clip {row}?",
            "options": ("A. a fall", "B. a “jump” — é"),
            "solution": "A",
            "media": (MediaRef(kind="video", path=f"clips/{row}.mp4"),),
            "problem_type": ProblemType.MULTIPLE_CHOICE,
            "data_source": "source",
            "problem_id": f"id-{row}",
            "time_clues": ((0.5, 1.25),),
            "level": "L1",
            "row": row,
        }
        | fields
    )


def call_row(key: str, status: str = "ok", **fields: Any) -> CallRow:
    defaults: dict[str, Any] = {
        "call_key": key,
        "status": status,
        "provider": "claude",
        "model": "m",
        "reply": f"reply to {key}" if status == "ok" else "",
        "stop_reason": "end",
        "input_tokens": 10,
        "output_tokens": 3,
        "cost_usd": 0.25,
        "finished_at": datetime.now(UTC),
    }
    return CallRow(**defaults | fields)


def attempt_row(question_id: str, draw: int = 0, **fields: Any) -> AttemptRow:
    defaults: dict[str, Any] = {
        "question_id": question_id,
        "draw": draw,
        "call_key": f"teach-{question_id}-{draw}",
        "output": f"output {draw}",
        "observation": "a red ball falls",
        "think": "so it fell",
        "answer": "A",
        "generator": "claude:m",
        "prompt_id": "prompt-1",
        "media_id": "media-1",
        "frame_spec": "frames-1",
        "frame_indices": [0, 5],
        "frame_times": [0.0, 0.2],
    }
    return AttemptRow(**defaults | fields)


def check_row(question_id: str, draw: int = 0, **fields: Any) -> AnswerCheckRow:
    defaults: dict[str, Any] = {
        "question_id": question_id,
        "draw": draw,
        "metric": "option letter",
        "score": 1.0,
        "passed": True,
        "extracted": "A",
    }
    return AnswerCheckRow(**defaults | fields)


def verdict_row(question_id: str, draw: int = 0, **fields: Any) -> SufficiencyRow:
    defaults: dict[str, Any] = {
        "question_id": question_id,
        "draw": draw,
        "judge_draw": 0,
        "call_key": f"judge-{question_id}-{draw}",
        "verdict": "yes",
        "answer_leak": False,
        "judge": "claude:judge",
        "prompt_id": "prompt-2",
        "reply": "<judgement>Yes</judgement>",
    }
    return SufficiencyRow(**defaults | fields)


def accept(ledger: Ledger, question: VideoQuestion, draw: int = 0) -> None:
    """Everything that a build stores of a question that goes through at once."""
    question_id = question.question_id
    ledger.add_question(question)
    ledger.add_call(
        call_row(f"teach-{question_id}-{draw}", step="generate", question_id=question_id)
    )
    ledger.add_attempt(attempt_row(question_id, draw))
    ledger.add_answer_check(check_row(question_id, draw))
    ledger.add_call(call_row(f"judge-{question_id}-{draw}", step="filter", question_id=question_id))
    ledger.add_sufficiency(verdict_row(question_id, draw))
