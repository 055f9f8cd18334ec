"""Rows of a built dataset as plain dictionaries: columns, files, the way to and from our nouns.

Names are Video-R1's where Video-R1 has the thing; `solution` keeps its form, `<answer>C</answer>`,
so that trainers of that family read the file as it is.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.parquet_rows import parquet_columns, table_rows
from schemas.questions import MediaRef, ProblemType, VideoQuestion, strip_answer_tags
from schemas.samples import AcceptedSample
from schemas.serialization import content_id

# Column by column, in the file's order, what it holds.
COLUMNS: Mapping[str, str] = {
    "problem_id": "the question's id in its source file",
    "problem": "the question",
    "options": "options with their letters; empty unless multiple choice",
    "solution": "gold answer in tags: `<answer>C</answer>`",
    "path": "the video (or the image), relative to the media folder",
    "data_type": "`video`, `image` or `video+image`",
    "problem_type": "kind of answer that the question wants",
    "data_source": "where the question comes from",
    "question_id": "content id of the question",
    "observation": "what the teacher saw",
    "think": "how the teacher reasoned",
    "answer": "the teacher's answer",
    "output": "the teacher's full trace, with its tags",
    "reward": "the answer's score against `solution`, 0 to 1",
    "judge": "who judged the observation",
    "judge_reply": "the judge's deciding reply",
    "generator": "the teacher",
    "prompt_id": "content id of the teacher's prompt files",
    "frame_spec": "content id of the frame settings",
    "frame_indices": "frames that the teacher saw of the first medium, from 0",
    "frame_times": "their times, in seconds",
    "paths": "all media of the question",
    "kinds": "kind of each of `paths`",
    "spans": "`[start, end]` in seconds of each of `paths` that is a part of its file, `[]` for \
the others; null where none is",
    "answerable_blind": "whether a text reader answers the question without the video; null where \
none was asked, or its replies decide nothing",
    "blind_rate": "share of its answers without the video that are correct",
    "level": "difficulty level of the source, where it has one",
    "time_clues": "spans that hold the answer, in seconds, where the source gives them",
}

# The columns that everything else in a row can be made from again.
_NEEDED = ("question_id", "problem", "solution", "paths", "kinds", "problem_type", "output")
_CARD_ID = re.compile(r"^\| dataset id \| `([^`]+)` \|", re.MULTILINE)
_ROWS_AT_ONCE = 1024


def dataset_row(sample: AcceptedSample) -> dict[str, Any]:
    """The row of an accepted question.

    `path` is the first video, or the first image where there is no video; `paths` and `kinds` list
    all media in the question's order.
    """
    question = sample.question
    spans = [list(ref.span or ()) for ref in question.media]
    main = next((ref for ref in question.media if ref.kind == "video"), question.media[0])
    return {
        "problem_id": question.problem_id,
        "problem": question.problem,
        "options": list(question.options),
        "solution": f"<answer>{question.solution}</answer>",
        "path": main.path,
        "data_type": question.data_type,
        "problem_type": question.problem_type.value,
        "data_source": question.data_source,
        "question_id": question.question_id,
        "observation": sample.observation,
        "think": sample.think,
        "answer": sample.answer,
        "output": sample.output,
        "reward": sample.reward,
        "judge": sample.judge,
        "judge_reply": sample.judge_reply,
        "generator": sample.generator,
        "prompt_id": sample.prompt_id,
        "frame_spec": sample.frame_spec,
        "frame_indices": list(sample.frame_indices),
        "frame_times": list(sample.frame_times),
        "paths": [ref.path for ref in question.media],
        "kinds": [ref.kind for ref in question.media],
        # Left out where no clip is cut: such a row is, byte for byte, what it was before clips.
        **({"spans": spans} if any(spans) else {}),
        **_blind_columns(sample),
        "level": question.level,
        "time_clues": [list(clue) for clue in question.time_clues],
    }


def _blind_columns(sample: AcceptedSample) -> dict[str, Any]:
    """Nothing where no text reader was asked, so that the content ids of such datasets stay."""
    if sample.blind_rate is None:
        return {}
    return {"answerable_blind": sample.answerable_blind, "blind_rate": sample.blind_rate}


def question_of_row(row: Mapping[str, Any]) -> VideoQuestion:
    """The question that a dataset row was made from, with the same `question_id`."""
    return VideoQuestion(
        problem=row["problem"],
        options=tuple(row["options"]),
        solution=strip_answer_tags(row["solution"]),
        media=media_of_row(row),
        problem_type=ProblemType(row["problem_type"]),
        data_source=row["data_source"],
        problem_id=row["problem_id"],
        time_clues=tuple((start, end) for start, end in row["time_clues"]),
        level=row["level"],
        answerable_blind=row.get("answerable_blind"),
    )


def media_of_row(row: Mapping[str, Any]) -> tuple[MediaRef, ...]:
    """The media of a dataset row, in order, clips with their start and end."""
    spans = row.get("spans") or [[]] * len(row["paths"])
    return tuple(
        MediaRef(kind=kind, path=path, **dict(zip(("start", "end"), span, strict=False)))
        for kind, path, span in zip(row["kinds"], row["paths"], spans, strict=True)
    )


def find_dataset_files(paths: Sequence[Path]) -> list[Path]:
    """The Parquet files that `paths` name, in order. Raises ValueError.

    A path is the output folder of a build, a folder of Parquet files, or one such file.
    """
    files: list[Path] = []
    for path in paths:
        folder = path / "dataset" if (path / "dataset").is_dir() else path
        found = [folder] if folder.is_file() else sorted(folder.glob("*.parquet"))
        if not found:
            raise ValueError(
                f"{path} holds no dataset: expected the output folder of a build, a folder of"
                " Parquet files, or a Parquet file"
            )
        files += found
    return files


def read_dataset_rows(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The rows of `files` as plain dictionaries, see `COLUMNS`.

    Raises ValueError for a file that is no Parquet or has not the columns.
    """
    for path in files:
        columns = parquet_columns(path)
        missing = [name for name in _NEEDED if name not in columns]
        if missing:
            raise ValueError(
                f"{path} lacks the columns {', '.join(missing)}: expected a dataset that"
                " pipeline.build_cot made"
            )
        yield from table_rows(path, _ROWS_AT_ONCE)


def dataset_card_id(path: Path) -> str | None:
    """The dataset id in the card beside a dataset; None where there is no card with one."""
    folder = path if path.is_dir() else path.parent
    for card in (folder / "README.md", folder.parent / "README.md"):
        if card.is_file():
            found = _CARD_ID.search(card.read_text("utf-8"))
            if found:
                return found[1]
    return None


def rows_id(question_ids: Sequence[str], outputs: Sequence[str]) -> str:
    """Content id of rows in their order: what a run without a card is named by."""
    return content_id("rows", [list(question_ids), list(outputs)])
