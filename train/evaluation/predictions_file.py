"""Files of predictions: our Parquet, and JSON Lines of `{question, ground_truth, model_output}`."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from schemas.dataset_rows import question_of_row
from schemas.options import letter_options
from schemas.question_files import guess_layout
from schemas.questions import MediaRef, ProblemType, VideoQuestion, strip_answer_tags
from schemas.record_files import BadRecord, read_records
from schemas.traces import TEMPLATES
from train.evaluation.predictions import Prediction, RunFacts

_FACTS = b"p2r.evaluation"
_PARQUET_MAGIC = b"PAR1"
_TEXTS = pa.list_(pa.string())
_TAGS = tuple(dict.fromkeys(part.tag for one in TEMPLATES.values() for part in one.segments))
_SCHEMA = pa.schema(
    {
        "question_id": pa.string(),
        "row": pa.int64(),
        "problem_id": pa.string(),
        "problem": pa.string(),
        "options": _TEXTS,
        "solution": pa.string(),
        "problem_type": pa.string(),
        "data_source": pa.string(),
        "level": pa.string(),
        "paths": _TEXTS,
        "kinds": _TEXTS,
        "time_clues": pa.list_(pa.list_(pa.float64())),
        "output": pa.string(),
        "num_tokens": pa.int64(),
        **{f"{tag}_tokens": pa.int64() for tag in _TAGS},
        "finish_reason": pa.string(),
        "error": pa.string(),
        "shown": _TEXTS,
        "published_score": pa.float64(),
    }
)
_READING = {
    "answer": pa.string(),
    "is_parsed": pa.bool_(),
    "score": pa.float64(),
    "is_correct": pa.bool_(),
    "relative_accuracy": pa.float64(),
    "iou": pa.float64(),
}
_VERDICTS = {
    **{f"strict_{name}": kind for name, kind in _READING.items()},
    **{f"tolerant_{name}": kind for name, kind in _READING.items()},
    "trace_fault": pa.string(),
    "concluded": pa.string(),
    "is_mismatch": pa.bool_(),
}


@dataclass(frozen=True)
class PredictionsFile:
    """Predictions with the conditions they were made under; rows that could not be read, told."""

    facts: RunFacts
    predictions: tuple[Prediction, ...]
    unreadable: tuple[str, ...] = ()


def write_predictions(
    path: Path,
    facts: RunFacts,
    predictions: Sequence[Prediction],
    verdicts: Iterable[Mapping[str, Any]] | None = None,
) -> None:
    """Write `path` atomically; `verdicts` adds the columns of the scoring to each prediction."""
    rows = [_row_of(prediction) for prediction in predictions]
    schema = _SCHEMA
    if verdicts is not None:
        rows = [row | dict(found) for row, found in zip(rows, verdicts, strict=True)]
        schema = pa.schema([*_SCHEMA, *(pa.field(*one) for one in _VERDICTS.items())])
    notes = {_FACTS: json.dumps(asdict(facts), ensure_ascii=False).encode()}
    table = pa.Table.from_pylist(rows, schema=schema.with_metadata(notes))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(table, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_predictions(path: Path) -> PredictionsFile:
    """Predictions of either kind of file, told apart by content. Raises ValueError or OSError."""
    if not path.is_file():
        raise ValueError(
            f"no predictions at {path}: expected JSON Lines or a predictions.parquet of ours"
        )
    with path.open("rb") as file:
        is_parquet = file.read(4) == _PARQUET_MAGIC
    found = _read_parquet(path) if is_parquet else _read_json_lines(path)
    if not found.predictions:
        why = f"; the first row: {found.unreadable[0]}" if found.unreadable else ""
        raise ValueError(f"{path} holds no answer that can be scored{why}")
    return found


def _row_of(prediction: Prediction) -> dict[str, Any]:
    question = prediction.question
    return {
        "question_id": prediction.question_id,
        "row": question.row,
        "problem_id": question.problem_id,
        "problem": question.problem,
        "options": list(question.options),
        "solution": question.solution,
        "problem_type": question.problem_type.value,
        "data_source": question.data_source,
        "level": question.level,
        "paths": [ref.path for ref in question.media],
        "kinds": [ref.kind for ref in question.media],
        "time_clues": [list(clue) for clue in question.time_clues],
        "output": prediction.output,
        "num_tokens": prediction.num_tokens,
        **{f"{tag}_tokens": (prediction.token_counts or {}).get(tag) for tag in _TAGS},
        "finish_reason": prediction.finish_reason,
        "error": prediction.error,
        "shown": list(prediction.shown),
        "published_score": prediction.published_score,
    }


def _read_parquet(path: Path) -> PredictionsFile:
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no readable Parquet file: {error}") from None
    missing = [name for name in _SCHEMA.names if name not in table.column_names]
    if missing:
        raise ValueError(
            f"{path} has no column {', '.join(missing)}: expected the predictions.parquet of an "
            "evaluation"
        )
    notes = (table.schema.metadata or {}).get(_FACTS)
    facts = RunFacts(**json.loads(notes)) if notes else RunFacts()
    return PredictionsFile(facts, tuple(_from_row(row) for row in table.to_pylist()))


def _from_row(row: Mapping[str, Any]) -> Prediction:
    counts = {tag: row[f"{tag}_tokens"] for tag in _TAGS if row[f"{tag}_tokens"] is not None}
    return Prediction(
        question=question_of_row(row).model_copy(update={"row": row["row"]}),
        output=row["output"],
        num_tokens=row["num_tokens"],
        token_counts=None if row["num_tokens"] is None else counts,
        finish_reason=row["finish_reason"],
        error=row["error"],
        shown=tuple(row["shown"]),
        published_score=row["published_score"],
    )


def _read_json_lines(path: Path) -> PredictionsFile:
    predictions: list[Prediction] = []
    unreadable: list[str] = []
    for number, record in enumerate(read_records(path, guess_layout(path))):
        if isinstance(record, BadRecord):
            unreadable.append(f"line {record.line}: {record.detail}")
            continue
        try:
            predictions.append(_answered(record.value, number))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            field = ".".join(map(str, first["loc"])) or "question"
            unreadable.append(f"line {record.line}: {field}: {first['msg']}")
        except ValueError as error:
            unreadable.append(f"line {record.line}: {error}")
    return PredictionsFile(RunFacts(), tuple(predictions), tuple(unreadable))


def _answered(value: Any, number: int) -> Prediction:
    """The raw text of a row; whatever else was extracted from it earlier is left aside."""
    if not isinstance(value, dict):
        raise ValueError("expected an object of question, ground_truth and model_output")
    asked, output = value.get("question"), value.get("model_output")
    if not isinstance(asked, dict) or not isinstance(output, str):
        raise ValueError("question must be an object and model_output a text")
    gold = value.get("ground_truth", asked.get("solution"))
    if gold is None:
        raise ValueError("neither ground_truth nor question.solution is there")
    options = asked.get("options") or []
    if not isinstance(options, list):
        raise ValueError("question.options must be a list of texts")
    published = value.get("accuracy_score")
    question = VideoQuestion(
        problem=str(asked.get("problem") or asked.get("question") or ""),
        options=letter_options([str(one) for one in options]).lines if options else (),
        solution=strip_answer_tags(str(gold)),
        media=(_medium(asked, number),),
        problem_type=asked.get(
            "problem_type", ProblemType.MULTIPLE_CHOICE if options else ProblemType.FREE_FORM
        ),
        data_source=str(asked.get("data_source") or ""),
        problem_id=str(asked.get("problem_id", "")),
        level=str(asked.get("level") or ""),
        row=number,
    )
    is_number = isinstance(published, int | float) and not isinstance(published, bool)
    score = float(published) if is_number and published is not None else None
    return Prediction(question=question, output=output, published_score=score)


def _medium(asked: Mapping[str, Any], number: int) -> MediaRef:
    """The clip, relative to a media folder; a row that names none is a cluster of its own."""
    for field in ("video", "path", "image"):
        if path := str(asked.get(field) or "").removeprefix("./").lstrip("/"):
            is_image = field == "image" or asked.get("data_type") == "image"
            return MediaRef(kind="image" if is_image else "video", path=path)
    return MediaRef(kind="video", path=f"row {number}")
