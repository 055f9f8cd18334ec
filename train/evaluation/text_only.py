"""Language models that see no video, beside the scores: which questions need it, and which answers
stand in replies that rules cannot read.

`--blind` asks a text reader every question without its video, as the builder's `--blind-filter`
does, and marks each; the report then shows every score on both parts. `--answer-extractor` asks
which answer a reply states, where the tolerant rules read none; its scores stand beside the strict
and the tolerant ones and never enter them. All calls are kept in `OUT/calls.duckdb`.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from judges.answer_extraction import ExtractedAnswer, extract_stated_answer
from judges.text_reader import ReaderSettings, Reading, read_answers
from schemas.questions import VideoQuestion
from schemas.samples import UnscoredReason
from train.evaluation.backend_calls import CallsFolder, all_results, opened_calls
from train.evaluation.options import EvaluateConfig
from train.evaluation.scoring import SampleScore

Scores = tuple[SampleScore, ...]
RULES = "rules"  # who read an answer, where no model was asked


def mark_blind(
    scores: Scores, config: EvaluateConfig, folder: CallsFolder
) -> tuple[Scores, dict[str, Any]]:
    """The same scores with each question marked, and what the report says of the reader.

    A question whose replies decide nothing, or whose calls failed, stays without a mark. Raises
    UsageError, StopRequested.
    """
    assert config.blind is not None
    questions = {one.prediction.question_id: one.prediction.question for one in scores}
    settings = ReaderSettings(samples=config.blind_samples, max_tokens=config.max_new_tokens)
    readings = asyncio.run(
        _read_blind(list(questions.values()), config.blind, settings, config, folder)
    )
    needed = config.blind_correct or config.blind_samples
    marks = {
        name: None if reading.failure is not None else reading.reaches(needed)
        for name, reading in zip(questions, readings, strict=True)
    }
    found = {
        "reader": config.blind,
        "prompt_id": readings[0].prompt_id,
        "samples": config.blind_samples,
        "correct_needed": needed,
        "questions": len(marks),
        "answerable_blind": sum(mark is True for mark in marks.values()),
        "unscored": sum(mark is None for mark in marks.values()),
        "failed_calls": sum(reading.failure is not None for reading in readings),
    }
    return tuple(_marked(one, marks[one.prediction.question_id]) for one in scores), found


def _marked(score: SampleScore, mark: bool | None) -> SampleScore:
    question = score.prediction.question.model_copy(update={"answerable_blind": mark})
    return replace(score, prediction=replace(score.prediction, question=question))


async def _read_blind(
    questions: Sequence[VideoQuestion],
    spec: str,
    settings: ReaderSettings,
    config: EvaluateConfig,
    folder: CallsFolder,
) -> list[Reading]:
    async with opened_calls(spec, config, folder) as calls:

        async def read(question: VideoQuestion) -> Reading:
            return await read_answers(calls, question, None, settings=settings, step="blind")

        return await all_results(questions, read, most_at_once=4 * config.concurrency)


def extract_answers(
    scores: Scores, config: EvaluateConfig, folder: CallsFolder
) -> tuple[Scores, dict[str, Any]]:
    """The same scores, each with its answer by the extractor, and what the report says of it.

    Replies that the tolerant rules read keep that answer. Raises UsageError, StopRequested.
    """
    assert config.answer_extractor is not None
    unread = [one for one in scores if one.prediction.output and not one.tolerant.is_parsed]
    answers = asyncio.run(_extract(unread, config.answer_extractor, config, folder))
    by_place = iter(answers)
    rows = tuple(
        _extracted(one, next(by_place), config.answer_extractor)
        if one.prediction.output and not one.tolerant.is_parsed
        else one.with_extracted(None, by=RULES)
        for one in scores
    )
    reasons = Counter(answer.reason for answer in answers)
    stated_none = reasons[UnscoredReason.NO_CONCLUSION]
    extracted = sum(answer.answer is not None for answer in answers)
    found = {
        "extractor": config.answer_extractor,
        "prompt_id": answers[0].prompt_id if answers else "",
        "unread_by_rules": len(unread),
        "extracted": extracted,
        "state_no_answer": stated_none,
        "unscored": len(answers) - extracted - stated_none,
    }
    return rows, found


def _extracted(score: SampleScore, found: ExtractedAnswer, extractor: str) -> SampleScore:
    return score.with_extracted(
        found.answer,
        by=extractor,
        reason=found.reason.value if found.reason else "",
        prompt=found.prompt_id,
    )


async def _extract(
    unread: Sequence[SampleScore], spec: str, config: EvaluateConfig, folder: CallsFolder
) -> list[ExtractedAnswer]:
    async with opened_calls(spec, config, folder) as calls:

        async def extract(one: SampleScore) -> ExtractedAnswer:
            return await extract_stated_answer(
                calls,
                one.prediction.question,
                one.prediction.output,
                max_tokens=config.extractor_max_tokens,
            )

        return await all_results(unread, extract, most_at_once=4 * config.concurrency)
