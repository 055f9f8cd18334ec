"""Benchmarks as published: one record of a file into the fields of a question.

Each function is the `fields` of a format (see `schemas.annotations.formats`). What a gold answer is
differs: a letter (Video-MME, VideoMMMU, LVBench, Video-Holmes), a text (MVBench, MLVU), an index
from 0 (LongVideoBench), a letter and a text that must agree (CG-Bench). A file that a layout names
by an id alone is `<id>.mp4` below the media root.
"""

import re
from collections.abc import Iterator
from typing import Any

from schemas.annotations.fields import (
    FieldError,
    Fields,
    Record,
    intervals,
    letter_of,
    letter_of_index,
    shown,
    strings,
    text_field,
)
from schemas.annotations.golds import (
    answer_options,
    filled_options,
    letter_of_text,
    open_type,
    span_fields,
)
from schemas.annotations.inline_options import required_options, without_options
from schemas.answer_options import LetteredOptions
from schemas.questions import ProblemType

_RESOLVED = re.compile(r"https?://\S+?/resolve/[^/]+/")
_NO_OPTION = "N/A"
_NUMBERED = tuple(f"option{number}" for number in range(10))


def video_mme(record: Record) -> Fields:
    """Video-MME: options with letters, the answer a letter, `videoID` the file."""
    options = answer_options(strings(record, "options"), "options")
    return _choice(record, "question", options, letter_of(options, *_gold(record, "answer"))) | {
        "media": (("video", f"{text_field(record, 'videoID')}.mp4"),),
        "data_source": "Video-MME",
        "problem_id": text_field(record, "question_id", default=""),
        "level": text_field(record, "duration", default=""),
    }


def mvbench(record: Record) -> Fields:
    """MVBench: the answer is a candidate's text; start and end cut a clip out of the video."""
    return _text_choice(record, "candidates") | {
        "media": (("video", text_field(record, "video"), *span_fields(record, "start", "end")),),
        "data_source": _source("MVBench", record, "task_type"),
    }


def vsi_bench(record: Record) -> Fields:
    """VSI-Bench: a letter where there are options, else a number that is scored by relative error.

    The video is `<dataset>/<scene_name>.mp4`.
    """
    gold = text_field(record, "ground_truth")
    if record.get("options") in (None, [], ""):
        fields: Fields = {
            "problem": text_field(record, "question"),
            "solution": gold,
            "problem_type": ProblemType.REGRESSION,
        }
    else:
        options = answer_options(strings(record, "options"), "options")
        fields = _choice(record, "question", options, letter_of(options, gold, "ground_truth"))
    video = f"{text_field(record, 'dataset')}/{text_field(record, 'scene_name')}.mp4"
    return fields | {
        "media": (("video", video),),
        "data_source": _source("VSI-Bench", record, "question_type"),
        "problem_id": text_field(record, "id", default=""),
    }


def mmvu(record: Record) -> Fields:
    """MMVU: texts by letters, all empty where the question is open; the video's address ends in its
    path inside of the release (`videos/Art/0.mp4`).
    """
    metadata = record.get("metadata")
    subject = _source("MMVU", metadata if isinstance(metadata, dict) else {}, "subject")
    return _letter_or_open(record, "choices") | {
        "media": (("video", _RESOLVED.sub("", text_field(record, "video"))),),
        "data_source": subject,
        "problem_id": text_field(record, "id", default=""),
    }


def videommmu(record: Record) -> Fields:
    """VideoMMMU: options without letters, the answer a letter, or open. The video is `<id>.mp4`.

    Adaptation shows an image too: its path is read, pictures inside of the table are not.
    """
    number = text_field(record, "id")
    media: tuple[tuple[str, str], ...] = (("video", f"{number}.mp4"),)
    image = record.get("image")
    if image not in (None, ""):
        path = image.get("path") if isinstance(image, dict) else image
        if not isinstance(path, str) or (isinstance(image, dict) and image.get("bytes")):
            raise FieldError(
                "image", "is stored inside of the table: save it as a file and give its path"
            )
        media = (*media, ("image", text_field({"image": path}, "image")))
    return _letter_or_open(record, "options") | {
        "media": media,
        "data_source": "VideoMMMU",
        "problem_id": number,
    }


def vcr_bench(record: Record) -> Fields:
    """VCR-Bench: letters in `choices`, the same options once more in the question; or open."""
    is_choice = record.get("multiple-choice")
    if not isinstance(is_choice, bool):
        raise FieldError("multiple-choice", f"expected true or false, got {shown(is_choice)}")
    fields = _letter_or_open(record, "choices")
    if is_choice is not bool(fields["options"]):
        raise FieldError(
            "choices", f"has {len(fields['options'])} options, but multiple-choice is {is_choice}"
        )
    texts = tuple(line.partition(". ")[2] for line in fields["options"])
    problem = without_options(fields["problem"], texts) if texts else fields["problem"]
    return fields | {
        "problem": problem,
        "media": (("video", text_field(record, "video_path")),),
        "data_source": _source("VCR-Bench", record, "dimension"),
        "problem_id": text_field(record, "id", default=""),
    }


def longvideobench(record: Record) -> Fields:
    """LongVideoBench: the answer is an index from 0 into `candidates`, or into `option0`, ..."""
    if "candidates" in record:
        texts = strings(record, "candidates")
    else:
        numbered = (text_field(record, field, default=_NO_OPTION) for field in _NUMBERED)
        texts = tuple(text for text in numbered if text != _NO_OPTION)
    options = answer_options(texts, "candidates")
    gold = letter_of_index(options, record, "correct_choice")
    return _choice(record, "question", options, gold) | {
        "media": (("video", text_field(record, "video_path")),),
        "data_source": _source("LongVideoBench", record, "question_category"),
        "problem_id": text_field(record, "id", default=""),
        "level": text_field(record, "duration_group", default=""),
    }


def mlvu(record: Record) -> Fields:
    """MLVU: the answer is a candidate's text; its generation tasks have no candidates."""
    kind = "question_type" if "question_type" in record else "task_type"
    video = text_field(record, "video" if "video" in record else "video_name")
    if record.get("candidates") in (None, [], ""):
        fields: Fields = {
            "problem": text_field(record, "question"),
            "solution": text_field(record, "answer"),
            "problem_type": ProblemType.FREE_FORM,
        }
    else:
        fields = _text_choice(record, "candidates")
    return fields | {
        "media": (("video", video),),
        "data_source": _source("MLVU", record, kind),
        "problem_id": text_field(record, "question_id", default=""),
    }


def cg_bench(record: Record) -> Fields:
    """CG-Bench: the answer as a text and as a letter, which must agree; clues are intervals."""
    texts = strings(record, "choices")
    options = answer_options(texts, "choices")
    letter = letter_of(options, *_gold(record, "right_answer"))
    by_text = letter_of_text(options, texts, *_gold(record, "answer"))
    if by_text != letter:
        raise FieldError(
            "right_answer", f"is {letter}, but the text in 'answer' is that of option {by_text}"
        )
    return _choice(record, "question", options, letter) | {
        "media": (("video", f"{text_field(record, 'video_uid')}.mp4"),),
        "data_source": _source("CG-Bench", record, "domain"),
        "problem_id": text_field(record, "qid", default=""),
        "time_clues": intervals(record, "clue_intervals"),
    }


def lvbench_questions(record: Any) -> Iterator[Record]:
    """One record for each question of LVBench's lines by video; a record of a question is one."""
    asked = record.get("qa") if isinstance(record, dict) else None
    if asked is None:
        yield record
        return
    if not isinstance(asked, list):
        raise FieldError("qa", f"expected a list of questions, got {shown(asked)}")
    for question in asked:
        if not isinstance(question, dict):
            raise FieldError("qa", f"expected an object, got {shown(question)}")
        yield question | {"key": record.get("key")}


def lvbench(record: Record) -> Fields:
    """LVBench: options inside of the question, or beside it; the answer a letter."""
    path = "video_path" in record
    video = text_field(record, "video_path") if path else f"{text_field(record, 'key')}.mp4"
    if record.get("options") in (None, [], ""):
        inline = required_options(text_field(record, "question"), "question")
        options, problem = answer_options(inline.lines, "question"), inline.problem
    else:
        options = answer_options(strings(record, "options"), "options")
        problem = text_field(record, "question")
    return {
        "problem": problem,
        "options": options.lines,
        "solution": letter_of(options, *_gold(record, "answer")),
        "problem_type": ProblemType.MULTIPLE_CHOICE,
        "media": (("video", video),),
        "data_source": "LVBench",
        "problem_id": text_field(record, "uid", default=""),
    }


def video_holmes(record: Record) -> Fields:
    """Video-Holmes: texts by letters, the answer a letter."""
    options = answer_options(filled_options(record, "Options"), "Options")
    return _choice(record, "Question", options, letter_of(options, *_gold(record, "Answer"))) | {
        "media": (("video", f"{text_field(record, 'video ID')}.mp4"),),
        "data_source": _source("Video-Holmes", record, "Question Type"),
        "problem_id": text_field(record, "Question ID", default=""),
    }


def _gold(record: Record, field: str) -> tuple[str, str]:
    return text_field(record, field), field


def _choice(record: Record, field: str, options: LetteredOptions, letter: str) -> Fields:
    return {
        "problem": text_field(record, field),
        "options": options.lines,
        "solution": letter,
        "problem_type": ProblemType.MULTIPLE_CHOICE,
    }


def _text_choice(record: Record, field: str) -> Fields:
    """A multiple choice question whose gold answer is an option's text."""
    texts = strings(record, field)
    options = answer_options(texts, field)
    gold = letter_of_text(options, texts, *_gold(record, "answer"))
    return _choice(record, "question", options, gold)


def _letter_or_open(record: Record, field: str) -> Fields:
    """A question whose gold answer is a letter, or a text where no option has one."""
    texts = filled_options(record, field)
    if texts:
        options = answer_options(texts, field)
        return _choice(record, "question", options, letter_of(options, *_gold(record, "answer")))
    gold = text_field(record, "answer")
    return {
        "problem": text_field(record, "question"),
        "options": (),
        "solution": gold,
        "problem_type": open_type(gold),
    }


def _source(name: str, record: Record, field: str) -> str:
    """`VSI-Bench/object_counting`: reports have a row for each kind of question."""
    kind = text_field(record, field, default="") if isinstance(record.get(field), str) else ""
    return f"{name}/{kind}" if kind else name
