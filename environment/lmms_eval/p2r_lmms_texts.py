"""Between the texts of lmms-eval and ours: a task's text as a question, a trace as a reply."""

import re
from collections.abc import Callable, Sequence

from judges.scoring.text import extract_tolerant
from schemas.questions import MediaRef, ProblemType, VideoQuestion

_OPTION = re.compile(r"^\s*\(?([A-J])[.):]\s*\S")
_THOUGHTS = re.compile(r"<(observation|think)>.*?</\1>", re.DOTALL)


def question_of(
    context: str, media: Sequence[MediaRef], say: Callable[[str], None]
) -> VideoQuestion:
    """A task's text as a question: lines such as `A. text` are its options.

    Text after the options is the task's own instruction; it is dropped and reported to `say`.
    Without options the whole text is the question. The gold answer stays with the task.
    """
    lines = context.replace("<image>", "").replace("<video>", "").strip().splitlines()
    places = [number for number, line in enumerate(lines) if _OPTION.match(line)]
    letters = [match[1] for line in lines if (match := _OPTION.match(line))]
    is_choice = len(places) > 1 and letters == list("ABCDEFGHIJ")[: len(letters)]
    if not is_choice or not places[0]:
        return VideoQuestion(
            problem="\n".join(lines) or "?",
            solution="?",
            media=tuple(media),
            problem_type=ProblemType.FREE_FORM,
        )
    if rest := " ".join(lines[places[-1] + 1 :]).strip():
        say(f"the task's own instruction is replaced by the template's: {rest!r}")
    return VideoQuestion(
        problem="\n".join(lines[: places[0]]).strip(),
        options=tuple(lines[place].strip() for place in places),
        solution="A",
        media=tuple(media),
        problem_type=ProblemType.MULTIPLE_CHOICE,
    )


def bare_answer(output: str) -> str:
    """The answer of a trace; of a reply without one, what is left without seeing and thinking."""
    answer = extract_tolerant(output)
    return _THOUGHTS.sub("", output).strip() if answer is None else answer


def whole(output: str) -> str:
    """The reply as it was written."""
    return output
