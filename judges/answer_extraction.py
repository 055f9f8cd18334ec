"""A language model reads which answer a reply states, where rules read none.

It sees question, options and reply, never the gold answer, and says what the reply commits to; it
answers nothing itself. The last `<extraction>` of its own reply decides. An option is its letter, a
number a number; what is neither an answer of the question's kind nor `No answer` is unscored.
"""

import re
from dataclasses import dataclass

from judges.backends.base import ChatRequest, Reply, TextPart
from judges.scoring.answer_score import is_readable
from judges.scoring.text import plain_characters
from judges.scoring.thinking import spoken
from judges.sufficiency import Caller, filled_prompt, prompt_file, verdict_of_failure
from schemas.questions import VideoQuestion
from schemas.samples import UnscoredReason

PROMPT = "extract-answer"
CALLS_STEP = "extract"
_OPENING = re.compile(r"<\s*extraction\b[^<>]*>", re.IGNORECASE)
_CLOSING = re.compile(r"<\s*/\s*extraction\s*>", re.IGNORECASE)
_NO_ANSWER = frozenset({"no answer", "none", "no answer stated"})


@dataclass(frozen=True)
class ExtractedAnswer:
    """The answer that a reply states; None with the reason why there is none.

    `NO_CONCLUSION` is a finding: the reply states no answer. Other reasons say that nobody knows.
    `reply` is the extractor's own last reply, `failure` why there was none.
    """

    answer: str | None
    reason: UnscoredReason | None = None
    call_key: str = ""
    prompt_id: str = ""
    reply: str = ""
    failure: str = ""


def extraction_request(
    question: VideoQuestion,
    reply: str,
    *,
    max_tokens: int = 512,
    draw: int = 0,
    sampling: tuple[tuple[str, float], ...] = (),
) -> tuple[ChatRequest, str]:
    """The request and the id of its prompt file; the gold answer is not in it."""
    template, prompt_id = prompt_file(PROMPT)
    request = ChatRequest(
        parts=(TextPart(filled_prompt(template, question, reply)),),
        max_tokens=max_tokens,
        sampling=sampling,
        draw=draw,
        step=CALLS_STEP,
        question_id=question.question_id,
    )
    return request, prompt_id


def parse_extracted(text: str, question: VideoQuestion) -> ExtractedAnswer:
    """The last `<extraction>` outside of thinking, as an answer of the question's kind."""
    said = spoken(text).said
    openings = list(_OPENING.finditer(said))
    if not openings:
        return ExtractedAnswer(None, UnscoredReason.NO_JUDGEMENT)
    start = openings[-1].end()
    closing = _CLOSING.search(said, start)
    answer = plain_characters(said[start : closing.start()]).strip() if closing else ""
    if answer.strip(" .").casefold() in _NO_ANSWER:
        return ExtractedAnswer(None, UnscoredReason.NO_CONCLUSION)
    if not is_readable(question, answer):
        return ExtractedAnswer(None, UnscoredReason.OFF_MENU)
    return ExtractedAnswer(answer)


async def extract_stated_answer(
    calls: Caller,
    question: VideoQuestion,
    reply: str,
    *,
    retries: int = 2,
    max_tokens: int = 512,
    sampling: tuple[tuple[str, float], ...] = (),
    first_draw: int = 0,
) -> ExtractedAnswer:
    """Ask which answer `reply` states; what cannot be read is asked again, up to `retries` times.

    Raises StopRequested.
    """
    found = ExtractedAnswer(None, UnscoredReason.NO_REPLY)
    for draw in range(first_draw, first_draw + retries + 1):
        request, prompt_id = extraction_request(
            question, reply, max_tokens=max_tokens, draw=draw, sampling=sampling
        )
        result = await calls.call(request)
        if not isinstance(result.outcome, Reply):
            reason = verdict_of_failure(result.outcome).unscored_reason
            why = result.outcome.detail
            return ExtractedAnswer(
                None, reason, result.call_key, prompt_id, found.reply, failure=why
            )
        text = result.outcome.text
        read = parse_extracted(text, question)
        found = ExtractedAnswer(read.answer, read.reason, result.call_key, prompt_id, text)
        if found.answer is not None or found.reason is UnscoredReason.NO_CONCLUSION:
            break
    return found
