"""Prompts that ask for the same verdict in other words, or in two steps.

`commit-first` makes two calls: the judge answers from the observation before it sees the correct
answer; if the metric finds that answer correct, a second call asks whether it was deduced or
guessed. `answer` asks for no verdict: the judge answers several times without and with the
observation (`judges.text_reader`), and its rates decide.
"""

import re
from dataclasses import dataclass

from judges.answer_extraction import PROMPT as EXTRACTION_PROMPT
from judges.answer_extraction import extract_stated_answer
from judges.audits.records import ANSWER, COMMIT_FIRST, CONSISTENCY, EXTRACTION
from judges.backends.base import ChatRequest, Reply, TextPart
from judges.consistency_llm import judge_consistency
from judges.scoring.answer_score import check_answer
from judges.scoring.text import extract_tolerant
from judges.scoring.thinking import spoken
from judges.sufficiency import (
    Caller,
    filled_prompt,
    judge_sufficiency,
    prompt_file,
    verdict_of,
    verdict_of_failure,
)
from judges.text_reader import (
    READER_PROMPTS,
    ReaderSettings,
    finding_of,
    is_above_blind,
    read_answers,
    sufficiency_of,
)
from schemas.questions import VideoQuestion
from schemas.samples import Sufficiency, UnscoredReason
from schemas.serialization import content_id

_SECOND_PROMPT = "commit-then-judge"

_ANSWER_BLOCK = re.compile(r"<\s*answer\s*>", re.IGNORECASE)
_NOT_DEDUCED = re.compile(r"\W*(?:it\s+)?can(?:not|'t|\s+not)\s+be\s+deduced\W*\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Judged:
    """A verdict with what led to it. `reply` holds both replies of a two-call variant."""

    verdict: Sufficiency
    prompt_id: str
    reply: str
    failure: str = ""


@dataclass(frozen=True)
class RequestSettings:
    """How calls are made; a request with an unscored reply is repeated up to `retries` times."""

    max_tokens: int = 512
    retries: int = 2
    sampling: tuple[tuple[str, float], ...] = ()
    samples: int = 4
    margin: float = 0.5

    def first_draw(self, repeat: int) -> int:
        """The first of the draws that a repeat may use: no two repeats share one."""
        return repeat * (self.retries + 1)


async def judge(
    calls: Caller,
    question: VideoQuestion,
    observation: str,
    *,
    variant: str,
    repeat: int,
    settings: RequestSettings,
) -> Judged:
    """One verdict by one prompt. Whatever cannot be read is unscored, never a No."""
    if variant == CONSISTENCY:
        found = await judge_consistency(
            calls,
            question,
            observation,
            retries=settings.retries,
            max_tokens=settings.max_tokens,
            sampling=settings.sampling,
            first_draw=settings.first_draw(repeat),
        )
        return Judged(found.verdict, found.prompt_id, found.reply, found.failure)
    if variant == EXTRACTION:
        return await _extraction(calls, question, observation, repeat=repeat, settings=settings)
    if variant == ANSWER:
        return await _by_answers(calls, question, observation, repeat=repeat, settings=settings)
    if variant == COMMIT_FIRST:
        return await _commit_first(calls, question, observation, repeat=repeat, settings=settings)
    outcome = await judge_sufficiency(
        calls,
        question,
        observation,
        retries=settings.retries,
        max_tokens=settings.max_tokens,
        variant=variant,
        sampling=settings.sampling,
        first_draw=settings.first_draw(repeat),
    )
    return Judged(
        outcome.verdict,
        outcome.prompt_id,
        outcome.replies[-1].reply if outcome.replies else "",
        outcome.failure.detail if outcome.failure else "",
    )


def prompt_id_of(variant: str) -> str:
    """The id of the prompt file, or files, that a variant uses."""
    if variant == EXTRACTION:
        return prompt_file(EXTRACTION_PROMPT)[1]
    if variant == ANSWER:
        return content_id("prompt", [prompt_file(name)[0] for name in READER_PROMPTS])
    if variant != COMMIT_FIRST:
        return prompt_file(variant)[1]
    return content_id("prompt", [prompt_file(name)[0] for name in (COMMIT_FIRST, _SECOND_PROMPT)])


def committed_answer(reply: str) -> str | None:
    """The answer in the last answer block of `reply`; None where there is no such block."""
    is_said = _ANSWER_BLOCK.search(spoken(reply).said)
    return extract_tolerant(reply) if is_said else None


def is_not_deduced(answer: str) -> bool:
    """Whether the judge says, in the words that it was given, that there is no answer."""
    return _NOT_DEDUCED.match(answer) is not None


async def _extraction(
    calls: Caller,
    question: VideoQuestion,
    reply: str,
    *,
    repeat: int,
    settings: RequestSettings,
) -> Judged:
    """Yes where the reply states an answer, No where it states none."""
    found = await extract_stated_answer(
        calls,
        question,
        reply,
        retries=settings.retries,
        max_tokens=settings.max_tokens,
        sampling=settings.sampling,
        first_draw=settings.first_draw(repeat),
    )
    if found.answer is not None:
        verdict = Sufficiency("yes")
    elif found.reason is UnscoredReason.NO_CONCLUSION:
        verdict = Sufficiency("no")
    else:
        verdict = Sufficiency("unscored", found.reason)
    return Judged(verdict, found.prompt_id, found.reply, found.failure)


async def _by_answers(
    calls: Caller,
    question: VideoQuestion,
    observation: str,
    *,
    repeat: int,
    settings: RequestSettings,
) -> Judged:
    prompt_id = prompt_id_of(ANSWER)
    asked = ReaderSettings(
        samples=settings.samples,
        max_tokens=settings.max_tokens,
        sampling=settings.sampling,
        first_draw=repeat * settings.samples,
    )
    readings = [
        await read_answers(calls, question, given, settings=asked, step="audit")
        for given in (None, observation)
    ]
    for reading in readings:
        if reading.failure is not None:
            failed = verdict_of_failure(reading.failure)
            return Judged(failed, prompt_id, "", reading.failure.detail)
    blind, with_observation = readings
    suffices = is_above_blind(with_observation, blind, settings.margin)
    finding = finding_of(with_observation, blind, settings.margin)
    return Judged(sufficiency_of(suffices, with_observation), prompt_id, finding)


async def _commit_first(
    calls: Caller,
    question: VideoQuestion,
    observation: str,
    *,
    repeat: int,
    settings: RequestSettings,
) -> Judged:
    prompt_id = prompt_id_of(COMMIT_FIRST)

    def request(name: str, draw: int, committed: str = "") -> ChatRequest:
        text = filled_prompt(prompt_file(name)[0], question, observation, committed=committed)
        return ChatRequest(
            parts=(TextPart(text),),
            max_tokens=settings.max_tokens,
            sampling=settings.sampling,
            draw=draw,
        )

    first_draw = settings.first_draw(repeat)
    draws = range(first_draw, first_draw + settings.retries + 1)
    first, answer = "", None
    for draw in draws:
        result = await calls.call(request(COMMIT_FIRST, draw))
        if not isinstance(result.outcome, Reply):
            verdict = verdict_of_failure(result.outcome)
            return Judged(verdict, prompt_id, first, result.outcome.detail)
        first = result.outcome.text
        answer = committed_answer(first)
        if answer is not None:
            break
    if answer is None:
        return Judged(_unscored(UnscoredReason.NO_JUDGEMENT), prompt_id, first)
    if is_not_deduced(answer) or not check_answer(question, answer).passed:
        return Judged(Sufficiency("no"), prompt_id, first)
    verdict, replies = _unscored(UnscoredReason.NO_JUDGEMENT), first
    for draw in draws:
        result = await calls.call(request(_SECOND_PROMPT, draw, first))
        if not isinstance(result.outcome, Reply):
            verdict = verdict_of_failure(result.outcome)
            return Judged(verdict, prompt_id, replies, result.outcome.detail)
        verdict = verdict_of(result.outcome)
        replies = f"{first}\n\n[shown the correct answer:]\n\n{result.outcome.text}"
        if verdict.verdict != "unscored":
            break
    return Judged(verdict, prompt_id, replies)


def _unscored(reason: UnscoredReason) -> Sufficiency:
    return Sufficiency("unscored", reason)
