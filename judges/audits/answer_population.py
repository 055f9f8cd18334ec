"""Answers with their reasoning, out of a file of model outputs: what a think-answer audit draws
from.

A row is `{"question": {...}, "model_output": "..."}` as evaluations write it. The audited judge is
the rule-based extractor of `judges.think_answer`.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from judges.answers import extract_tolerant
from judges.audits.population import JudgedRow, JudgedText, Population
from judges.choices import chosen_letter
from judges.think_answer import RULES_ID, extract_conclusion, reasoning_of
from judges.think_answer_llm import ExtractedLetter, consistency
from schemas.options import letter_options
from schemas.question_files import guess_layout
from schemas.questions import MediaRef, ProblemType, VideoQuestion
from schemas.record_files import BadRecord, read_records
from schemas.verdicts import Sufficiency, UnscoredReason

RULE_JUDGE = "rule"


@dataclass(frozen=True)
class Answers:
    """The population of a file with its texts, and how many rows were left out, by reason."""

    population: Population
    texts: dict[tuple[int, str, int], JudgedText]
    left_out: Counter[str]


def rule_verdict(question: VideoQuestion, reasoning: str) -> tuple[Sufficiency, str]:
    """Whether a reasoning concludes `question.solution`, by the rules, and what they found."""
    found = extract_conclusion(reasoning, question.options)
    why = None if found.letter else UnscoredReason.NO_CONCLUSION
    where = f": {reasoning[slice(*found.span)]}" if found.span else ""
    told = f"{found.letter or 'no letter'} ({found.rule}){where}"
    return consistency(ExtractedLetter(found.letter, why), question), told


def read_answers(path: Path) -> Answers:
    """All multiple-choice answers of a file that name an option. Raises ValueError, OSError."""
    rows: list[JudgedRow] = []
    texts: dict[tuple[int, str, int], JudgedText] = {}
    left_out: Counter[str] = Counter()
    draws: Counter[str] = Counter()
    for number, value in _records(path, left_out):
        found = _answered(value, number)
        if isinstance(found, str):
            left_out[found] += 1
            continue
        question, reasoning, video = found
        question = question.model_copy(update={"data_source": path.stem})
        verdict, _ = rule_verdict(question, reasoning)
        draw = draws[question.question_id]
        draws[question.question_id] += 1
        row = JudgedRow(
            place=0,
            question_id=question.question_id,
            draw=draw,
            verdict=verdict.verdict,
            unscored_reason=verdict.unscored_reason.value if verdict.unscored_reason else "",
            judge=RULE_JUDGE,
            prompt_id=RULES_ID,
            problem_type=question.problem_type.value,
            data_source=path.stem,
            video=video,
        )
        rows.append(row)
        texts[row.key] = JudgedText(question, reasoning, "")
    return Answers(Population(tuple(rows), left_out.total()), texts, left_out)


def _records(path: Path, left_out: Counter[str]) -> Iterator[tuple[int, Any]]:
    for number, record in enumerate(read_records(path, guess_layout(path))):
        if isinstance(record, BadRecord):
            left_out["the row cannot be read"] += 1
        else:
            yield number, record.value


def _answered(value: Any, number: int) -> tuple[VideoQuestion, str, str] | str:
    """Question (its solution is the answer that was given), reasoning and video; or why not."""
    asked = value.get("question") if isinstance(value, dict) else None
    output = value.get("model_output") if isinstance(value, dict) else None
    if not isinstance(asked, dict) or not isinstance(output, str):
        return "no question object or no model_output"
    options = asked.get("options")
    if not isinstance(options, list) or len(options) < 2:
        return "not multiple choice"
    lettered = letter_options([str(option) for option in options])
    answer = extract_tolerant(output)
    given = chosen_letter(answer, lettered.lines) if answer is not None else None
    if given is None:
        return "the answer names no option"
    reasoning = reasoning_of(output)
    if not reasoning:
        return "there is no reasoning"
    video = str(asked.get("video") or asked.get("path") or f"row {number}").lstrip("/")
    question = VideoQuestion(
        problem=str(asked.get("problem") or asked.get("question") or ""),
        options=lettered.lines,
        solution=given,
        media=(MediaRef(kind="video", path=video),),
        problem_type=ProblemType.MULTIPLE_CHOICE,
        problem_id=str(asked.get("problem_id", number)),
        row=number,
    )
    return question, reasoning, video
