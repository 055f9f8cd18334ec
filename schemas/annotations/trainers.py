"""Rows of other RL trainers for video, and of our own datasets."""

from schemas.annotations.columns import Columns
from schemas.annotations.fields import (
    FieldError,
    Fields,
    Record,
    intervals,
    list_field,
    media_kind,
    problem_type_field,
    shown,
    strings,
    text_field,
)
from schemas.annotations.golds import interval_text
from schemas.questions import ProblemType, strip_answer_tags

_BROKEN_TAG = "<[PLHD"  # in all 3,720 gold answers of one of EasyVideoR1's files
_MARKS = ("<video>", "<image>")


def easyvideor1(record: Record) -> Fields:
    """EasyVideoR1: Video-R1's question with the gold answer in `answer`, files in `videos`."""
    kind = media_kind(record, "data_type")
    files = list_field(record, f"{kind}s")
    if not isinstance(files, list) or len(files) != 1:
        raise FieldError(f"{kind}s", f"expected a list of one path, got {shown(files)}")
    return _row(record, "answer", kind, text_field({f"{kind}s": files[0]}, f"{kind}s"))


def roll(record: Record) -> Fields:
    """ROLL: problem, solution and `modality_type`, the file in a field of that name."""
    kind = media_kind(record, "modality_type")
    value = record.get(kind)
    path = value[0] if isinstance(value, list) and len(value) == 1 else value
    return _row(record, "solution", kind, text_field({kind: path}, kind))


def own_dataset(record: Record) -> Fields:
    """A row of a dataset that `pipeline.build_cot` made: all its media, clips as clips."""
    paths, kinds = strings(record, "paths"), strings(record, "kinds")
    spans = record.get("spans") or [[]] * len(paths)
    if not len(paths) == len(kinds) == len(spans):
        raise FieldError("paths", f"{len(paths)} paths, {len(kinds)} kinds and {len(spans)} spans")
    fields = Columns().fields({**record, "path": paths[0], "data_type": kinds[0]})
    media = tuple((kind, path, *span) for kind, path, span in zip(kinds, paths, spans, strict=True))
    return fields | {"media": media}


def _row(record: Record, field: str, kind: str, path: str) -> Fields:
    """Video-R1's fields under the names of another trainer."""
    problem = text_field(record, "problem")
    for mark in _MARKS:
        problem = problem.replace(mark, "")
    gold = text_field(record, field) if isinstance(record.get(field), str) else record.get(field)
    if isinstance(gold, str) and _BROKEN_TAG in gold:
        raise FieldError(field, f"holds a broken tag, {shown(gold)}: the file was published so")
    if problem_type_field(record) is ProblemType.TEMPORAL_GROUNDING:
        gold = _spans(gold, field)
    return Columns().fields(
        {**record, "problem": problem.strip(), "solution": gold, "path": path, "data_type": kind}
    )


def _spans(gold: object, field: str) -> object:
    """`[1.5, 4]`, in tags or not, as `1.5 to 4`; what is written so already stays."""
    text = strip_answer_tags(gold) if isinstance(gold, str) else gold
    if isinstance(text, str) and not text.startswith("["):
        return text
    found = intervals({field: text}, field)
    return ", ".join(interval_text(*span) for span in found)
