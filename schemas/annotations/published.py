"""The published annotation layouts: one record of a file into the fields of a question.

Each is a function from a record to `VideoQuestion` fields (see `schemas.annotations.formats`); it
raises `FieldError`, which names the field, where the record makes no question. What they mean is
decided here:

- Video-R1 and VideoP2R (which writes every value as a string, options as the text of a list) share
  one layout, and so does the Perception Test sample that APPO trains on. Unknown fields are left
  alone: the releases carry traces and bookkeeping that are no part of the question.
- NExT-GQA asks multiple choice questions whose evidence is known. They stay multiple choice, and
  the evidence goes to `time_clues`.
- SEED-Bench-R1 shows a video and an image of the current moment (only the image where no progress
  has been made yet). In the training form four options are chosen and ordered by a hash of the
  question's content: the same in every run and on every machine, gold letters spread evenly. The
  validation form keeps its published order. Its files are one per level (`validation_L1.jsonl`).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from schemas.annotations.fields import (
    FieldError,
    Fields,
    Record,
    intervals,
    letter_of,
    letter_of_index,
    lettered,
    list_field,
    media_kind,
    parenthesised,
    problem_type_field,
    shown,
    strings,
    text_field,
)
from schemas.annotations.golds import span_fields
from schemas.questions import ProblemType, strip_answer_tags
from schemas.serialization import canonical_json, digest

_LEVEL_IN_NAME = re.compile(r"(?:^|[_.-])(L[123])(?=[_.-]|$)")
_OWN_FIELDS = frozenset(
    {
        *("problem", "options", "solution", "media", "problem_type"),
        *("data_source", "problem_id", "time_clues", "level"),
        *("row", "question_id", "data_type"),  # what we write beside them; not read
    }
)
_MEDIA_FIELDS = frozenset({"kind", "path", "start", "end"})
_SEED_OPTIONS = 4


def video_r1(record: Record) -> Fields:
    """Video-R1, VideoP2R, and APPO's Perception Test sample."""
    kind = media_kind(record, "data_type")
    return _video_r1_fields(record) | {"media": ((kind, text_field(record, "path")),)}


def own_jsonl(record: Record) -> Fields:
    """The fields of `VideoQuestion` by their names: unknown ones are refused, typos too."""
    for name in record:
        if name not in _OWN_FIELDS:
            raise FieldError(name, f"unknown; the fields are {', '.join(sorted(_OWN_FIELDS))}")
    media = record.get("media")
    if isinstance(media, str) and media.lstrip().startswith("["):  # a cell of a table
        media = list_field(record, "media")
    if not isinstance(media, list) or not media:
        raise FieldError("media", f"expected a list of {{kind, path}}, got {shown(media)}")
    refs = []
    for ref in media:
        if not isinstance(ref, dict) or not {"kind", "path"} <= set(ref) <= _MEDIA_FIELDS:
            raise FieldError("media", f"expected {{kind, path}}, got {shown(ref)}")
        clip = span_fields(ref, "start", "end")
        refs.append((media_kind(ref, "kind"), text_field(ref, "path"), *clip))
    return _video_r1_fields(record) | {"media": tuple(refs)}


def _video_r1_fields(record: Record) -> Fields:
    """The fields that Video-R1's layout and ours share: all but the media."""
    problem_type = problem_type_field(record)
    gold = strip_answer_tags(text_field(record, "solution"))
    if not gold:
        raise FieldError("solution", "is empty")
    lines: tuple[str, ...] = ()
    if problem_type is ProblemType.MULTIPLE_CHOICE:
        options = lettered(strings(record, "options"), "options")
        lines, gold = options.lines, letter_of(options, gold, "solution")
    return {
        "problem": text_field(record, "problem"),
        "options": lines,
        "solution": gold,
        "problem_type": problem_type,
        "data_source": text_field(record, "data_source", default=""),
        "problem_id": text_field(record, "problem_id", default=""),
        "time_clues": intervals(record, "time_clues"),
        "level": text_field(record, "level", default=""),
    }


class NextGqaCsv:
    """NExT-GQA's `val.csv`/`test.csv` rows, with the spans and the folder map beside it.

    With `map_vid_vidorID.json` beside the file a video is the `<folder>/<id>.mp4` of that map,
    without it `<video_id>.mp4`.
    """

    def __init__(
        self, split: str, spans: Mapping[str, Any] | None, folders: Mapping[str, Any] | None
    ) -> None:
        self._split = split
        self._spans = spans
        self._folders = folders

    def fields(self, record: Record) -> Fields:
        """One row of the table."""
        video_id, qid = text_field(record, "video_id"), text_field(record, "qid")
        name = video_id
        if self._folders is not None:
            if not isinstance(self._folders.get(video_id), str):
                raise FieldError("video_id", f"{shown(video_id)} is not in map_vid_vidorID.json")
            name = self._folders[video_id]
        options = lettered([text_field(record, f"a{number}") for number in range(5)], "a0..a4")
        return {
            "problem": text_field(record, "question"),
            "options": options.lines,
            "solution": letter_of(options, text_field(record, "answer"), "answer"),
            "media": (("video", f"{name}.mp4"),),
            "problem_type": ProblemType.MULTIPLE_CHOICE,
            "data_source": f"NExT-GQA/{self._split}",
            "problem_id": f"{video_id}_{qid}",
            "time_clues": self._time_clues(video_id, qid),
        }

    def _time_clues(self, video_id: str, qid: str) -> tuple[tuple[float, float], ...]:
        if self._spans is None:
            return ()
        video = self._spans.get(video_id)
        location = video.get("location") if isinstance(video, dict) else None
        if not isinstance(location, dict) or qid not in location:
            raise FieldError(
                "qid", f"{shown(qid)} of video {shown(video_id)} has no span in the gsub file"
            )
        return intervals(location, qid)


def next_gqa_json(record: Record) -> Fields:
    """NExT-GQA as APPO trains on it (gold by index) or as VideoChat-R1 does (gold `(C)`)."""
    if "video_path" in record:
        path = text_field(record, "video_path")
        options = lettered(strings(record, "options"), "options")
        letter = letter_of_index(options, record, "answer")
        video_id = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        clues, problem_id = "time_clues", f"{video_id}_{text_field(record, 'qid')}"
    else:
        path = text_field(record, "video")
        options = lettered(parenthesised(record, "options"), "options")
        letter = letter_of(options, text_field(record, "answer"), "answer")
        clues, problem_id = "glue", text_field(record, "id", default="")
    source = f"NExT-GQA/{text_field(record, 'split', default='')}".rstrip("/")
    return {
        "problem": text_field(record, "question"),
        "options": options.lines,
        "solution": letter,
        "media": (("video", path),),
        "problem_type": ProblemType.MULTIPLE_CHOICE,
        "data_source": source,
        "problem_id": problem_id,
        "time_clues": intervals(record, clues),
    }


def perception_test_questions(video: Any) -> Iterator[Record]:
    """The multiple choice questions of one video's annotations, each with the video's metadata.

    A row of lmms-eval is a question already.
    """
    if isinstance(video, dict) and "video_name" in video:
        name = text_field(video, "video_name")
        number = text_field(video, "question_id", default="")
        yield {"metadata": {"video_id": name}, "mc_question": {**video, "id": number}}
        return
    if not isinstance(video, dict) or not isinstance(video.get("metadata"), dict):
        raise FieldError("metadata", f"expected an object, got {shown(video)}")
    asked = video.get("mc_question", [])
    if not isinstance(asked, list):
        raise FieldError("mc_question", f"expected a list, got {shown(asked)}")
    for question in asked:
        yield {"metadata": video["metadata"], "mc_question": question}


def perception_test(record: Record) -> Fields:
    """One question of `perception_test_questions`; the video is `<video_id>.mp4`."""
    metadata, question = record["metadata"], record["mc_question"]
    if not isinstance(question, dict):
        raise FieldError("mc_question", f"expected an object, got {shown(question)}")
    video_id = text_field(metadata, "video_id")
    options = lettered(strings(question, "options"), "options")
    return {
        "problem": text_field(question, "question"),
        "options": options.lines,
        "solution": letter_of_index(options, question, "answer_id"),
        "media": (("video", f"{video_id}.mp4"),),
        "problem_type": ProblemType.MULTIPLE_CHOICE,
        "data_source": f"PerceptionTest/{text_field(metadata, 'split', default='')}".rstrip("/"),
        "problem_id": f"{video_id}_{text_field(question, 'id', default='')}".rstrip("_"),
    }


class SeedBenchR1:
    """SEED-Bench-R1: training (answer and wrong answers) or validation (four choices) form.

    The level is the record's `level`, else the one in the file's name.
    """

    def __init__(self, file_name: str) -> None:
        match = _LEVEL_IN_NAME.search(file_name)
        self._level = match[1] if match else ""

    def fields(self, record: Record) -> Fields:
        """One line of the file."""
        source = text_field(record, "video_source")
        observation = text_field(record, "current_observation_basename")
        media: tuple[tuple[str, str], ...] = (("image", f"images/{source}/{observation}"),)
        if record.get("task_progress_metadata") != []:
            video = text_field(record, "video_basename")
            media = (("video", f"videos/{source}/{video}"), *media)
        problem = text_field(record, "question")
        if "golden_choice_idx" in record:
            choices = [text_field(record, f"choice_{letter}") for letter in "abcd"]
            gold = text_field(record, "golden_choice_idx")
            if gold not in ("A", "B", "C", "D"):
                raise FieldError("golden_choice_idx", f"expected A, B, C or D, got {shown(gold)}")
            answer = choices["ABCD".index(gold)]
        else:
            answer = text_field(record, "answer")
            wrong = strings(record, "negative_answers")
            choices = _shuffled_choices(answer, wrong, canonical_json([problem, media]))
        options = lettered(choices, "negative_answers")
        return {
            "problem": problem,
            "options": options.lines,
            "solution": options.letter_of_index(choices.index(answer)),
            "media": media,
            "problem_type": ProblemType.MULTIPLE_CHOICE,
            "data_source": f"SEED-Bench-R1/{source}",
            "problem_id": text_field(record, "sample_id"),
            "level": text_field(record, "level", default=self._level),
        }


def _shuffled_choices(answer: str, wrong: Sequence[str], seed: str) -> list[str]:
    """The answer among at most three wrong ones, chosen and then ordered by hashes of `seed`."""

    def order(text: str, purpose: str) -> str:
        return digest(f"{purpose}:{seed}:{text}".encode(errors="surrogatepass"))

    chosen = sorted(set(wrong) - {answer}, key=lambda text: order(text, "choose"))
    choices = [answer, *chosen[: _SEED_OPTIONS - 1]]
    return sorted(choices, key=lambda text: order(text, "place"))
