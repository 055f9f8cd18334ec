"""The sufficiency judge: can the correct answer be deduced from the observation text alone?

VideoP2R (arXiv:2511.11113) sec. 3.1.1 and Fig. 8. The judge gets question, correct answer and
observation, no pixels and no reasoning. The last `<judgement>` of its reply decides; whatever is
neither Yes nor No is unscored, with a reason, and never counts as a No.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Protocol

from judges.backends.base import ChatRequest, Reply, StopReason, TextPart
from judges.backends.call_records import CallFailure, CallResult
from judges.scoring.choices import chosen_letter, read_choices
from judges.scoring.text import plain_characters
from judges.scoring.thinking import spoken
from schemas.questions import ProblemType, VideoQuestion
from schemas.samples import Reason, Sufficiency, UnscoredReason
from schemas.serialization import content_id

_PLACEHOLDER = re.compile(r"\{(media|question|correct_answer|observations|committed)\}")
_ESCAPED_BEFORE = re.compile(r"&(?=(?:amp;)*+lt;)")
_OPENING = re.compile(r"<\s*judge?ment\b[^<>]*>", re.IGNORECASE)
_CLOSING = re.compile(r"<\s*/\s*judge?ment\s*>", re.IGNORECASE)
_AROUND_VERDICT = " \t\r\n.,;:!*_`\"'()[]"
# The instruction said again, or a choice left open: no verdict.
_IS_CONDITIONAL = re.compile(r"[ \t*_`\"',]*(?:only )?(?:if|when|where|unless|otherwise)\b")
_LEFT_OPEN = re.compile(
    r"\A[\s*_`\"',]*(?:or|and|/|\|)[\s*_`\"',]*\Z|\b(?:otherwise|else)\b\W{0,9}\Z", re.IGNORECASE
)
_UNSCORED_BY_FAILURE = {
    Reason.EMPTY_REPLY: UnscoredReason.EMPTY_REPLY,
    Reason.TRUNCATED: UnscoredReason.TRUNCATED,
    Reason.REFUSED: UnscoredReason.REFUSED,
}


class Caller(Protocol):
    """Whatever makes calls: `judges.backends.calls.Calls`, its batched form, a trainer's facade."""

    async def call(self, request: ChatRequest) -> CallResult:
        """The outcome of one call, all retries of the transport behind it."""
        ...


@dataclass(frozen=True)
class JudgeReply:
    """One reply of the judge and how it was read."""

    call_key: str
    judge_draw: int
    reply: str
    verdict: Sufficiency


@dataclass(frozen=True)
class SufficiencyOutcome:
    """The verdict that counts (the last reply's), all replies, the call that failed, if one did."""

    verdict: Sufficiency
    replies: tuple[JudgeReply, ...]
    failure: CallFailure | None
    prompt_id: str
    failed_call: str = ""
    """Key of the call that failed; empty where none did, or it was not begun."""


def sufficiency_request(
    question: VideoQuestion,
    observation: str,
    *,
    max_tokens: int = 512,
    draw: int = 0,
    variant: str = "sufficiency",
    sampling: tuple[tuple[str, float], ...] = (),
) -> tuple[ChatRequest, str]:
    """The judge's request and the id of its prompt file, `judges/prompts/<variant>.md`.

    Placeholders are filled in one pass and by escaped text, so nothing pulls in or closes anything.
    """
    template, prompt_id = prompt_file(variant)
    request = ChatRequest(
        parts=(TextPart(filled_prompt(template, question, observation)),),
        max_tokens=max_tokens,
        sampling=sampling,
        draw=draw,
        step="filter",
        question_id=question.question_id,
    )
    return request, prompt_id


def filled_prompt(
    template: str, question: VideoQuestion, observation: str, *, committed: str = ""
) -> str:
    """A judge's prompt with its placeholders filled; `committed` is the judge's own first reply."""
    filled = {
        "media": question.data_type.replace("+", " and "),
        "question": escape_fences(_question_with_options(question)),
        "correct_answer": escape_fences(correct_answer_text(question)),
        "observations": escape_fences(observation.strip()),
        "committed": escape_fences(committed.strip()),
    }
    return _PLACEHOLDER.sub(lambda match: filled[match.group(1)], template)


def escape_fences(text: str) -> str:
    """`text` without the power to open or close a tag or a heading; still readable, and reversible.

    `<` becomes `&lt;` (an `&lt;` of the text `&amp;lt;`), and each `#` gets a backslash before it.
    """
    return _ESCAPED_BEFORE.sub("&amp;", text).replace("<", "&lt;").replace("#", "\\#")


def parse_judgement(text: str) -> Sufficiency:
    """The last `<judgement>` decides. Its content is captured first, then checked against the menu.

    A strict pattern would skip an odd last block and let an earlier verdict through. A verdict
    inside of thinking that a server left in the reply is none, nor is one under a condition (`No if
    it cannot`) or beside another one to choose from (`Yes or No`).
    """
    if not text.strip():
        return _unscored(UnscoredReason.EMPTY_REPLY)
    text = spoken(text).said
    openings = list(_OPENING.finditer(text))
    if not openings:
        return _unscored(UnscoredReason.NO_JUDGEMENT)
    start = openings[-1].end()
    closing = _CLOSING.search(text, start)
    earlier = [found.end() for found in _CLOSING.finditer(text, 0, openings[-1].start())]
    if closing and (
        _IS_CONDITIONAL.match(text, closing.end())
        or (earlier and _LEFT_OPEN.search(text[earlier[-1] : openings[-1].start()]))
    ):
        return _unscored(UnscoredReason.OFF_MENU)
    word = plain_characters(text[start : closing.start()]) if closing else ""
    match word.strip(_AROUND_VERDICT).casefold():
        case "yes":
            return Sufficiency("yes")
        case "no":
            return Sufficiency("no")
    return _unscored(UnscoredReason.OFF_MENU)


def verdict_of(reply: Reply) -> Sufficiency:
    """Reads a whole reply: a refused or cut one is unscored even when a judgement stands in it."""
    if reply.stop is StopReason.REFUSAL:
        return _unscored(UnscoredReason.REFUSED)
    if reply.stop is StopReason.MAX_TOKENS:
        return _unscored(UnscoredReason.TRUNCATED)
    return parse_judgement(reply.text)


def verdict_of_failure(failure: CallFailure) -> Sufficiency:
    """A call without a usable reply is unscored, for its reason."""
    return _unscored(_UNSCORED_BY_FAILURE.get(failure.reason, UnscoredReason.NO_REPLY))


async def judge_sufficiency(
    calls: Caller,
    question: VideoQuestion,
    observation: str,
    *,
    retries: int = 2,
    max_tokens: int = 512,
    variant: str = "sufficiency",
    sampling: tuple[tuple[str, float], ...] = (),
    first_draw: int = 0,
) -> SufficiencyOutcome:
    """Ask the judge; while a reply is unscored ask again, as the next draw, up to `retries` times.

    A call that fails for good ends it: the call layer has retried already what is worth it. A
    deliberate repeat begins at a `first_draw` beyond the draws of the one before.
    """
    replies: list[JudgeReply] = []
    prompt_id = ""
    for draw in range(first_draw, first_draw + retries + 1):
        request, prompt_id = sufficiency_request(
            question,
            observation,
            max_tokens=max_tokens,
            draw=draw,
            variant=variant,
            sampling=sampling,
        )
        result = await calls.call(request)
        if not isinstance(result.outcome, Reply):
            verdict = verdict_of_failure(result.outcome)
            return SufficiencyOutcome(
                verdict, tuple(replies), result.outcome, prompt_id, result.call_key
            )
        verdict = verdict_of(result.outcome)
        replies.append(JudgeReply(result.call_key, draw, result.outcome.text, verdict))
        if verdict.verdict != "unscored":
            break
    return SufficiencyOutcome(replies[-1].verdict, tuple(replies), None, prompt_id)


@cache
def prompt_file(variant: str) -> tuple[str, str]:
    """The text of `judges/prompts/<variant>.md` and its prompt id."""
    folder = resources.files("judges.prompts")
    names = sorted(
        file.name.removesuffix(".md") for file in folder.iterdir() if file.name.endswith(".md")
    )
    if variant not in names:
        raise ValueError(f"no judge prompt {variant!r}: expected one of {', '.join(names)}")
    template = (folder / f"{variant}.md").read_bytes().decode()
    return template, content_id("prompt", template)


def _question_with_options(question: VideoQuestion) -> str:
    lines = [question.problem.strip()]
    if question.problem_type is ProblemType.MULTIPLE_CHOICE:
        lines += [
            "Options:",
            *(choice.line for choice in read_choices(question.options)),
        ]
    return "\n".join(lines)


def correct_answer_text(question: VideoQuestion) -> str:
    """The correct answer as a judge is shown it: an option with its letter, or the gold text."""
    if question.problem_type is ProblemType.MULTIPLE_CHOICE:
        letter = chosen_letter(question.solution, question.options)
        for choice in read_choices(question.options):
            if choice.letter == letter:
                return choice.line
    if question.problem_type is ProblemType.TEMPORAL_GROUNDING:
        return f"{question.solution} (in seconds)"
    return question.solution


def _unscored(reason: UnscoredReason) -> Sufficiency:
    return Sufficiency("unscored", reason)
