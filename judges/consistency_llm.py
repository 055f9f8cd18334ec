"""A language model reads which option a reasoning ends up with.

The rule of VideoP2R (arXiv 2511.11113, section 12, Fig. 14), in a prompt of our own words: only the
reasoning is shown, definitive phrases decide, hedges count only where nothing else does, the end
weighs more, `No` where nothing is concluded. The last `<extraction>` of the reply decides.
"""

import re
from dataclasses import dataclass

from judges.backends.base import ChatRequest, Reply, StopReason, TextPart
from judges.scoring.choices import chosen_letter
from judges.scoring.text import plain_characters
from judges.scoring.thinking import spoken
from judges.sufficiency import Caller, filled_prompt, prompt_file, verdict_of_failure
from schemas.questions import VideoQuestion
from schemas.samples import Sufficiency, UnscoredReason

PROMPT = "think-answer"
_OPENING = re.compile(r"<\s*extraction\b[^<>]*>", re.IGNORECASE)
_CLOSING = re.compile(r"<\s*/\s*extraction\s*>", re.IGNORECASE)
_AROUND = " \t\r\n.,;:!*_`\"'()[]"


@dataclass(frozen=True)
class ExtractedLetter:
    """What a reply says: a letter, or None with the reason why there is none."""

    letter: str | None
    reason: UnscoredReason | None = None


@dataclass(frozen=True)
class Consistency:
    """Whether reasoning and answer name the same option, the letter found, and the last reply."""

    verdict: Sufficiency
    letter: str | None
    reply: str
    failure: str
    prompt_id: str


def parse_extraction(text: str, options: tuple[str, ...]) -> ExtractedLetter:
    """The last `<extraction>` outside of thinking decides; neither an option nor `No` is off the
    menu.
    """
    if not text.strip():
        return ExtractedLetter(None, UnscoredReason.EMPTY_REPLY)
    text = spoken(text).said
    openings = list(_OPENING.finditer(text))
    if not openings:
        return ExtractedLetter(None, UnscoredReason.NO_JUDGEMENT)
    start = openings[-1].end()
    closing = _CLOSING.search(text, start)
    word = plain_characters(text[start : closing.start()]).strip(_AROUND) if closing else ""
    if word.casefold() in {"no", "none"}:
        return ExtractedLetter(None, UnscoredReason.NO_CONCLUSION)
    letter = chosen_letter(word, options) if word else None
    return ExtractedLetter(letter, None if letter else UnscoredReason.OFF_MENU)


async def judge_consistency(
    calls: Caller,
    question: VideoQuestion,
    reasoning: str,
    *,
    retries: int = 2,
    max_tokens: int = 512,
    sampling: tuple[tuple[str, float], ...] = (),
    first_draw: int = 0,
) -> Consistency:
    """Ask which option `reasoning` concludes and compare it with `question.solution`.

    A reply that cannot be read is asked again, as the next draw, up to `retries` times; `No` can be
    read. `question` must be multiple choice; the answer itself is not in the prompt.
    """
    template, prompt_id = prompt_file(PROMPT)
    text = filled_prompt(template, question, reasoning)
    found, reply = ExtractedLetter(None, UnscoredReason.NO_REPLY), ""
    for draw in range(first_draw, first_draw + retries + 1):
        result = await calls.call(
            ChatRequest(
                parts=(TextPart(text),),
                max_tokens=max_tokens,
                sampling=sampling,
                draw=draw,
                step="audit",
                question_id=question.question_id,
            )
        )
        if not isinstance(result.outcome, Reply):
            failed = verdict_of_failure(result.outcome)
            return Consistency(failed, None, reply, result.outcome.detail, prompt_id)
        reply = result.outcome.text
        found = _read(result.outcome, question.options)
        if found.letter is not None or found.reason is UnscoredReason.NO_CONCLUSION:
            break
    return Consistency(consistency(found, question), found.letter, reply, "", prompt_id)


def consistency(found: ExtractedLetter, question: VideoQuestion) -> Sufficiency:
    """Yes where the letter is the answer's, No where it is another one, else unscored."""
    if found.letter is None:
        return Sufficiency("unscored", found.reason)
    given = chosen_letter(question.solution, question.options)
    return Sufficiency("yes" if found.letter == given else "no")


def _read(reply: Reply, options: tuple[str, ...]) -> ExtractedLetter:
    if reply.stop is StopReason.REFUSAL:
        return ExtractedLetter(None, UnscoredReason.REFUSED)
    if reply.stop is StopReason.MAX_TOKENS:
        return ExtractedLetter(None, UnscoredReason.TRUNCATED)
    return parse_extraction(reply.text, options)
