"""Files of predictions: our Parquet, and JSON Lines of `{question, ground_truth, model_output}`."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from schemas.annotations.fields import shown, strings
from schemas.annotations.files import guess_layout
from schemas.annotations.records import BadRecord, read_records
from schemas.answer_options import letter_options
from schemas.dataset_rows import question_of_row
from schemas.questions import MediaRef, ProblemType, VideoQuestion, strip_answer_tags
from schemas.serialization import one_line, with_whole_characters
from schemas.traces import TEMPLATES
from train.evaluation.predictions import Prediction, Predictions, RunConditions

_CONDITIONS = b"p2r.evaluation"
_PARQUET_MAGIC = b"PAR1"
_HIGHEST_SCORE = 1e15
_TEXTS = pa.list_(pa.string())
_TAGS = tuple(dict.fromkeys(part.tag for one in TEMPLATES.values() for part in one.segments))
_SPANS = pa.list_(pa.list_(pa.float64()))
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
        "spans": _SPANS,
        "time_clues": pa.list_(pa.list_(pa.float64())),
        "answerable_blind": pa.bool_(),
        "output": pa.string(),
        "num_tokens": pa.int64(),
        **{f"{tag}_tokens": pa.int64() for tag in _TAGS},
        "finish_reason": pa.string(),
        "error": pa.string(),
        "shown": _TEXTS,
        "published_score": pa.float64(),
    }
)
_LATER = ("spans", "answerable_blind")  # columns that older files lack
_PARSED = {
    "answer": pa.string(),
    "is_parsed": pa.bool_(),
    "score": pa.float64(),
    "is_correct": pa.bool_(),
    "relative_accuracy": pa.float64(),
    "iou": pa.float64(),
}
_SCORES = {
    **{f"strict_{name}": kind for name, kind in _PARSED.items()},
    **{f"tolerant_{name}": kind for name, kind in _PARSED.items()},
    **{f"extracted_{name}": kind for name, kind in _PARSED.items()},
    **{f"extracted_{name}": pa.string() for name in ("by", "reason", "prompt")},
    "trace_fault": pa.string(),
    "concluded": pa.string(),
    "is_mismatch": pa.bool_(),
}


def write_predictions(
    path: Path,
    conditions: RunConditions,
    predictions: Sequence[Prediction],
    scores: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Write `path` atomically; `scores` holds the further columns of each prediction.

    Columns that scoring does not know are numbers: metrics that were added to the table.
    """
    rows = [_row_of(prediction) for prediction in predictions]
    schema = _SCHEMA
    if scores is not None:
        rows = [row | dict(found) for row, found in zip(rows, scores, strict=True)]
        added = {name: pa.float64() for one in scores[:1] for name in one if name not in _SCORES}
        schema = pa.schema([*_SCHEMA, *(pa.field(*one) for one in (_SCORES | added).items())])
    notes = {_CONDITIONS: json.dumps(asdict(conditions), ensure_ascii=False).encode()}
    table = pa.Table.from_pylist(rows, schema=schema.with_metadata(notes))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(table, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_predictions(path: Path) -> Predictions:
    """Predictions of either kind of file, recognised by content. Raises ValueError or OSError."""
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
        "spans": [list(ref.span or ()) for ref in question.media],
        "time_clues": [list(clue) for clue in question.time_clues],
        "answerable_blind": question.answerable_blind,
        "output": prediction.output,
        "num_tokens": prediction.num_tokens,
        **{f"{tag}_tokens": (prediction.token_counts or {}).get(tag) for tag in _TAGS},
        "finish_reason": prediction.finish_reason,
        "error": prediction.error,
        "shown": list(prediction.shown),
        "published_score": prediction.published_score,
    }


def _read_parquet(path: Path) -> Predictions:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no readable Parquet file: {one_line(str(error))}") from None
    for field in map(_SCHEMA.field, _LATER):
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    missing = [name for name in _SCHEMA.names if name not in table.column_names]
    if missing:
        raise ValueError(
            f"{path} has no column {', '.join(missing)}: expected the predictions.parquet of an "
            "evaluation"
        )
    notes = (table.schema.metadata or {}).get(_CONDITIONS)
    try:
        rows = table.select(_SCHEMA.names).cast(_SCHEMA).to_pylist()
        conditions = RunConditions(**json.loads(notes)) if notes else RunConditions()
        return Predictions(conditions, tuple(_from_row(row) for row in rows))
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise ValueError(
            f"{path} is damaged; run its evaluation again ({one_line(str(error))})"
        ) from None


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


def _read_json_lines(path: Path) -> Predictions:
    predictions: list[Prediction] = []
    unreadable: list[str] = []
    for number, record in enumerate(read_records(path, guess_layout(path))):
        if isinstance(record, BadRecord):
            unreadable.append(f"line {record.line}: {record.detail}")
            continue
        try:
            predictions.append(_answered(with_whole_characters(record.value), number))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            field = ".".join(map(str, first["loc"])) or "question"
            unreadable.append(f"line {record.line}: {field}: {first['msg']}")
        except ValueError as error:
            unreadable.append(f"line {record.line}: {error}")
    return Predictions(RunConditions(), tuple(predictions), tuple(unreadable))


def _answered(value: Any, number: int) -> Prediction:
    """The raw reply of a row; an answer that was extracted from it earlier is not used."""
    if not isinstance(value, dict):
        raise ValueError("expected an object of question, ground_truth and model_output")
    asked, output = value.get("question"), value.get("model_output")
    if not isinstance(asked, dict) or not isinstance(output, str):
        raise ValueError("question must be an object and model_output a text")
    gold = value.get("ground_truth", asked.get("solution"))
    if gold is None:
        raise ValueError("neither ground_truth nor question.solution is there")
    kind = asked.get(
        "problem_type",
        ProblemType.MULTIPLE_CHOICE if asked.get("options") else ProblemType.FREE_FORM,
    )
    is_span = kind == ProblemType.TEMPORAL_GROUNDING and isinstance(gold, list)
    if not (isinstance(gold, str | int | float) or is_span) or gold in (math.inf, -math.inf):
        raise ValueError(f"ground_truth must be a text or a number, got {shown(gold)}")
    options = strings(asked, "options") if asked.get("options") else ()
    published = value.get("accuracy_score")
    lines, solution = _under_its_letters(options, strip_answer_tags(str(gold)))
    question = VideoQuestion(
        problem=str(asked.get("problem") or asked.get("question") or ""),
        options=lines,
        solution=solution,
        media=(_medium(asked, number),),
        problem_type=kind,
        data_source=str(asked.get("data_source") or ""),
        problem_id=str(asked.get("problem_id", "")),
        level=str(asked.get("level") or ""),
        row=number,
    )
    return Prediction(question=question, output=output, published_score=_score(published))


def _score(published: Any) -> float | None:
    """A number beside an answer; None where there is none. Raises ValueError."""
    if isinstance(published, bool) or not isinstance(published, int | float):
        return None
    if not abs(published) <= _HIGHEST_SCORE:
        raise ValueError("accuracy_score must be a number that a score can be")
    return float(published)


def _under_its_letters(options: tuple[str, ...], gold: str) -> tuple[tuple[str, ...], str]:
    """Options and gold answer under the letters of the file: the answers were given to these.

    Raises ValueError where a letter could mean two options.
    """
    if not options:
        return (), gold
    lettered = letter_options(options)
    if lettered.is_contradictory:
        raise ValueError(
            "question.options bring letters that do not go by place, and not each its own: an "
            "answer could mean two of them"
        )
    try:
        return lettered.written_lines, lettered.written[lettered.index_of(gold)]
    except ValueError:  # scoring reads it, or says what is wrong with it
        return lettered.written_lines, gold


def _medium(asked: Mapping[str, Any], number: int) -> MediaRef:
    """The clip, relative to a media folder; a row without one is a cluster of its own."""
    for field in ("video", "path", "image"):
        if path := str(asked.get(field) or "").removeprefix("./").lstrip("/"):
            is_image = field == "image" or asked.get("data_type") == "image"
            return MediaRef(kind="image" if is_image else "video", path=path)
    return MediaRef(kind="video", path=f"row {number}")
