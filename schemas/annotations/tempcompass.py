"""TempCompass: its four tasks, as published by video and as lmms-eval lists them.

Multiple choice and caption matching have their options inside of the question. Yes/no questions
stay questions with a short text as gold. Captioning asks for a caption of the one piece of
information that is true; which one it is, is the gold that can be compared, so it is read as a
multiple choice question.
"""

from collections.abc import Iterator
from typing import Any

from schemas.annotations.fields import FieldError, Fields, Record, shown, text_field
from schemas.annotations.inline_options import inline_options
from schemas.questions import ProblemType

KEY = "video_id"


def is_tempcompass(record: Record) -> bool:
    """A video with its questions by dimension, or a question of lmms-eval's list."""
    if KEY in record and "dim" in record:
        return "question" in record
    dimensions = [value for field, value in record.items() if field != KEY]
    return bool(dimensions) and all(
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], dict)
        and value[0].keys() == {"question", "answer"}
        for value in dimensions
    )


def tempcompass_questions(record: Any) -> Iterator[Record]:
    """One record for each question, with `video_id` and `dim`."""
    if "dim" in record:
        yield record
        return
    for dimension, asked in record.items():
        if dimension == KEY:
            continue
        if not isinstance(asked, list):
            raise FieldError(dimension, f"expected a list of questions, got {shown(asked)}")
        for question in asked:
            if not isinstance(question, dict):
                raise FieldError(dimension, f"expected an object, got {shown(question)}")
            yield question | {KEY: record.get(KEY), "dim": dimension}


def tempcompass(record: Record) -> Fields:
    """One question; the video is `<video_id>.mp4`."""
    is_caption = record.get("mc_question") not in (None, "")
    asked, answered = ("mc_question", "mc_answer") if is_caption else ("question", "answer")
    problem, gold = text_field(record, asked), text_field(record, answered)
    inline = inline_options(problem)
    fields: Fields
    if inline is None:
        if gold.strip(" .").casefold() not in ("yes", "no"):
            raise FieldError(
                answered, f"is {shown(gold)}: expected yes or no, or options inside of the question"
            )
        fields = {"problem": problem, "solution": gold, "problem_type": ProblemType.FREE_FORM}
    else:
        letter = inline.letter_of(gold, part="Generated Caption:" in problem)
        if letter is None:
            raise FieldError(
                answered, f"{shown(gold)} names none of the {len(inline.texts)} options"
            )
        fields = {
            "problem": inline.problem,
            "options": inline.lines,
            "solution": letter,
            "problem_type": ProblemType.MULTIPLE_CHOICE,
        }
    return fields | {
        "media": (("video", f"{text_field(record, KEY)}.mp4"),),
        "data_source": f"TempCompass/{text_field(record, 'dim')}",
    }
