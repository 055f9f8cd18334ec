"""Sentences and when they happen: Charades-STA and ActivityNet Captions."""

import re
from collections.abc import Iterator
from typing import Any

from schemas.annotations.fields import FieldError, Fields, Record, list_field, shown, text_field
from schemas.annotations.golds import interval_text, seconds
from schemas.questions import ProblemType

CHARADES_LINE = "charades_sta"
"""The field in which a line of Charades-STA stands."""
ACTIVITYNET_KEY = "video"

_LINE = re.compile(r"\s*(\S+)\s+(-?[\d.]+)\s+(-?[\d.]+)\s*##\s*(.*\S)\s*\Z")


def is_charades_line(line: str) -> bool:
    """`AO8RW 0.0 6.9##a person is putting a book on a shelf.`"""
    return _LINE.match(line) is not None


def charades_sta(record: Record) -> Fields:
    """A line of the release, or lmms-eval's `video`, `timestamp`, `caption`."""
    if CHARADES_LINE not in record:
        return _grounding(
            text_field(record, "video"),
            _pair(record, "timestamp"),
            text_field(record, "caption"),
            "Charades-STA",
            field="timestamp",
        )
    line = _LINE.match(text_field(record, CHARADES_LINE))
    if line is None:
        raise FieldError(
            CHARADES_LINE,
            f"expected 'ID start end##sentence', got {shown(record[CHARADES_LINE])}",
        )
    video, start, end, sentence = line.groups()
    return _grounding(f"{video}.mp4", (start, end), sentence, "Charades-STA", field=CHARADES_LINE)


def activitynet_questions(record: Any) -> Iterator[Record]:
    """One record for each sentence of a video: by its id (`timestamps`, `sentences`), or in the
    form of the Hub (`captions_starts`, `captions_ends`, `en_captions`).
    """
    if "en_captions" in record:
        starts, ends = (_list(record, f"captions_{end}") for end in ("starts", "ends"))
        sentences, video = _list(record, "en_captions"), text_field(record, "video_path")
        spans = [list(pair) for pair in zip(starts, ends, strict=False)]
        field, sizes = "en_captions", {len(starts), len(ends), len(sentences)}
    else:
        sentences, spans = _list(record, "sentences"), _list(record, "timestamps")
        video = f"{text_field(record, ACTIVITYNET_KEY)}.mp4"
        field, sizes = "sentences", {len(sentences), len(spans)}
    if len(sizes) > 1:
        raise FieldError(field, f"{len(sentences)} sentences, but {len(spans)} spans")
    for number, (sentence, span) in enumerate(zip(sentences, spans, strict=True)):
        yield {"video": video, "sentence": sentence, "span": span, "number": number}


def activitynet_captions(record: Record) -> Fields:
    """One sentence of `activitynet_questions`."""
    video = text_field(record, "video")
    return _grounding(
        video,
        _pair(record, "span"),
        text_field(record, "sentence"),
        "ActivityNet Captions",
        field="timestamps",
    ) | {"problem_id": f"{video.rsplit('/', 1)[-1].removesuffix('.mp4')}_{record['number']}"}


def _list(record: Record, field: str) -> list[Any]:
    value = list_field(record, field)
    if not isinstance(value, list):
        raise FieldError(field, f"expected a list, got {shown(value)}")
    return value


def _pair(record: Record, field: str) -> tuple[Any, Any]:
    value = list_field(record, field)
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise FieldError(field, f"expected [start, end] in seconds, got {shown(value)}")
    return value[0], value[1]


def _grounding(
    video: str, span: tuple[Any, Any], sentence: str, source: str, *, field: str
) -> Fields:
    start, end = (seconds(value, field) for value in span)
    if not 0 <= start < end:
        raise FieldError(field, f"expected 0 <= start < end in seconds, got {start:g} and {end:g}")
    return {
        "problem": f'When does this happen in the video: "{sentence.strip()}"',
        "solution": interval_text(start, end),
        "media": (("video", video),),
        "problem_type": ProblemType.TEMPORAL_GROUNDING,
        "data_source": source,
    }
