"""A question about a video or an image, with its gold answer."""

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from schemas.serialization import content_id

_ANSWER_TAG = re.compile(r"\A\s*<answer>(.*)</answer>\s*\Z", re.DOTALL)


class ProblemType(StrEnum):
    """The kind of answer that a question expects, in the spelling of the published releases."""

    MULTIPLE_CHOICE = "multiple choice"
    NUMERICAL = "numerical"
    OCR = "OCR"
    FREE_FORM = "free-form"
    REGRESSION = "regression"
    TEMPORAL_GROUNDING = "temporal grounding"


class MediaRef(BaseModel):
    """One video or image file, by its POSIX path relative to the media root.

    `start` and `end`, in seconds on the file's own clock, cut a clip out of a video: both or none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["video", "image"]
    path: str = Field(min_length=1)
    start: float | None = None
    end: float | None = None

    @model_validator(mode="after")
    def _is_a_span_of_a_video(self) -> Self:
        if self.start is None and self.end is None:
            return self
        if self.kind == "image":
            raise ValueError("an image has no start and end; only a video has")
        if self.start is None or self.end is None or not 0 <= self.start < self.end:
            raise ValueError(
                "a clip needs both ends, with 0 <= start < end in seconds, got start "
                f"{self.start} and end {self.end}"
            )
        return self

    @property
    def span(self) -> tuple[float, float] | None:
        """Start and end of the clip in seconds; None for the whole file."""
        return None if self.start is None or self.end is None else (self.start, self.end)

    @model_serializer
    def as_fields(self) -> dict[str, Any]:
        """Kind and path; start and end where there are such."""
        fields: dict[str, Any] = {"kind": self.kind, "path": self.path}
        return fields if self.span is None else fields | {"start": self.start, "end": self.end}


class VideoQuestion(BaseModel):
    """One question. `question_id` names its content; `row` is its place in the question file.

    `solution` is the gold answer without tags: an option letter, a number, a text, or for temporal
    grounding `"a to b"` intervals in seconds joined by `", "`. Options carry their letters, as in
    `"A. text"`. `answerable_blind` is the mark of a text reader that answered it without the video
    (True) or did not (False); None where none was asked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    problem: str = Field(min_length=1)
    options: tuple[str, ...] = ()
    solution: str = Field(min_length=1)
    media: tuple[MediaRef, ...] = Field(min_length=1)
    problem_type: ProblemType
    data_source: str = ""
    problem_id: str = ""
    time_clues: tuple[tuple[float, float], ...] = ()
    level: str = ""
    answerable_blind: bool | None = None
    row: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _options_fit_the_type(self) -> "VideoQuestion":
        if (self.problem_type is ProblemType.MULTIPLE_CHOICE) and len(self.options) < 2:
            raise ValueError(
                f"a multiple choice question needs at least 2 options, got {len(self.options)}"
            )
        return self

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values; its content id is its own."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("question_id", None)
        return copied

    @cached_property
    def question_id(self) -> str:
        """Content id of what makes the question what it is: not its row, its id or its mark."""
        return content_id(
            "question",
            {
                "problem": self.problem,
                "options": self.options,
                "solution": self.solution,
                "media": [[ref.kind, ref.path, *(ref.span or ())] for ref in self.media],
                "problem_type": self.problem_type.value,
            },
        )

    @property
    def data_type(self) -> str:
        """`video`, `image`, or `video+image`: the kinds of its media, in that order."""
        kinds = {ref.kind for ref in self.media}
        return "+".join(kind for kind in ("video", "image") if kind in kinds)


def strip_answer_tags(solution: str) -> str:
    """`<answer>C</answer>` -> `C`; a text without the tags is only stripped of white space."""
    match = _ANSWER_TAG.match(solution)
    return (match.group(1) if match else solution).strip()
