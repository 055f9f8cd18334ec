"""Question files and prediction files: a bad row costs one row, a bad file one sentence."""

import csv
import io
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fuzz.harness import Case, Runner
from fuzz.nasty import json_text, mutated_bytes, mutated_json
from fuzz.texts import ACTS, promise
from helpers.published_rows import PUBLISHED
from helpers.question_files import CSV_HEADER, ROW, SEED_ROW, VALIDATION_ROW, VIDEO, csv_row

from judges.scoring.answer_score import score_answer, validate_gold
from judges.scoring.choices import read_choices
from schemas.annotations.reader import UnreadableRow, read_questions
from schemas.questions import ProblemType, VideoQuestion
from train.evaluation.predictions_file import read_predictions, write_predictions

Row = VideoQuestion | UnreadableRow

OWN_ROW: dict[str, Any] = {
    "problem": "When does the door open?",
    "solution": "4.4 to 5.2",
    "media": [{"kind": "video", "path": "clips/door.mp4"}],
    "problem_type": "temporal grounding",
    "data_source": "own",
    "problem_id": "7",
    "options": [],
}
_SPREAD_ROW = ROW | {"options": "['A. cat', 'B. dog']", "solution": "B", "problem_id": "o-1"}
_PUBLISHED = tuple(
    row.record
    for row in PUBLISHED
    if isinstance(row.record, dict)
    and {"question", "problem"} & row.record.keys()
    and "mc_question" not in row.record  # what is asked there, numbers would not tell apart
)
_RECORDS: tuple[dict[str, Any], ...] = (
    *(ROW, OWN_ROW, SEED_ROW, VALIDATION_ROW, _SPREAD_ROW),
    *_PUBLISHED,
)
_NUM_ROWS = 6


def _numbered(record: dict[str, Any], number: int) -> dict[str, Any]:
    field = "question" if "question" in record else "problem"
    return record | {field: f"{record[field]} ({number})"}


def read_all(path: Path) -> list[Row] | None:
    """The rows; None where the file is refused with one sentence."""
    try:
        return list(read_questions(path))
    except ValueError as error:
        sentence = str(error)
        promise(bool(sentence.strip()), "a refusal without words")
        promise("Traceback" not in sentence, "a refusal with a traceback")
        return None


def check_rows(rows: Sequence[Row]) -> None:
    """Rows are numbered, can be stored, and a question can be asked and scored."""
    promise([row.row for row in rows] == list(range(len(rows))), "rows are not numbered in order")
    for row in rows:
        row.question_id.encode()
        if isinstance(row, UnreadableRow):
            promise(bool(row.detail) and not ACTS.search(row.detail), f"detail {row.detail!r}")
            continue
        row.model_dump_json().encode()
        promise(all(ref.path and "\0" not in ref.path for ref in row.media), "a path that is none")
        if validate_gold(row) is None:
            promise(0 <= score_answer(row, row.solution) <= 1, "a gold answer without a score")
            if row.problem_type is ProblemType.MULTIPLE_CHOICE:
                promise(len(read_choices(row.options)) >= 2, "a choice of one")


def _changed_line(draw: random.Random, record: dict[str, Any], line: str) -> str:
    if draw.random() < 0.6:
        changed = json_text(draw, mutated_json(draw, record))
        return changed.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    data = mutated_bytes(draw, line.encode(), 3).replace(b"\n", b" ").replace(b"\r", b" ")
    return data.decode("utf-8", "surrogateescape")


def lines_with_one_change(case: Case) -> int:
    """JSON Lines of which one is changed: every other row reads as before."""
    draw = case.draw
    record = draw.choice(_RECORDS)
    lines = [json.dumps(_numbered(record, number)) for number in range(_NUM_ROWS)]
    path = case.folder / "questions.jsonl"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    before = read_all(path)
    assert before is not None
    place = draw.randrange(1, _NUM_ROWS)
    lines[place] = _changed_line(draw, _numbered(record, place), lines[place])
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape") + b"\n")
    rows = read_all(path)
    promise(rows is not None, "one bad line refused a whole file")
    assert rows is not None
    check_rows(rows)
    untouched = [row for number, row in enumerate(before) if number != place]
    found = {row.question_id for row in rows if isinstance(row, VideoQuestion)}
    lost = [row.row for row in untouched if row.question_id not in found]
    promise(not lost, f"a bad line {place} cost rows {lost}: {lines[place][:200]!r}")
    return 1


def _valid_file(draw: random.Random) -> bytes:
    match draw.randrange(5):
        case 0:
            return json.dumps([_numbered(ROW, n) for n in range(4)]).encode()
        case 1:
            return json.dumps({"video_10": VIDEO, "video_11": VIDEO}).encode()
        case 2:
            return "\n".join([CSV_HEADER, csv_row(), csv_row(qid="4", question="who")]).encode()
        case 3:
            return "\n".join(json.dumps(_numbered(OWN_ROW, n)) for n in range(4)).encode()
        case _:
            file = io.StringIO()
            writer = csv.DictWriter(file, list(OWN_ROW))
            writer.writeheader()
            writer.writerow({key: str(value) for key, value in OWN_ROW.items()})
            return file.getvalue().encode()


def changed_whole_file(case: Case) -> int:
    """Any layout, any bytes changed: rows or one sentence."""
    draw = case.draw
    path = case.folder / draw.choice(("questions.json", "questions.jsonl", "q.csv", "q.json.gz"))
    path.write_bytes(mutated_bytes(draw, _valid_file(draw), 12))
    rows = read_all(path)
    if rows is not None:
        check_rows(rows)
    return 1


def changed_records(case: Case) -> int:
    """An array of records of which one has other fields: the others read as before."""
    draw = case.draw
    record = draw.choice(_RECORDS)
    records: list[Any] = [_numbered(record, number) for number in range(_NUM_ROWS)]
    path = case.folder / "questions.json"
    path.write_text(json.dumps(records), "utf-8")
    before = read_all(path)
    assert before is not None
    place = draw.randrange(1, _NUM_ROWS)
    records[place] = mutated_json(draw, records[place])
    path.write_text(json.dumps(records), "utf-8")
    rows = read_all(path)
    promise(rows is not None, "one bad record refused a whole file")
    assert rows is not None
    check_rows(rows)
    found = {row.question_id for row in rows if isinstance(row, VideoQuestion)}
    lost = [row.row for row in before if row.row != place and row.question_id not in found]
    promise(not lost, f"a bad record {place} cost rows {lost}: {records[place]!r:.300}")
    return 1


def run_questions(case: Case) -> Counter[str]:
    """One question file."""
    tries = (lines_with_one_change, changed_whole_file, changed_records)
    return Counter({"question files": tries[case.number % len(tries)](case)})


def _answered(number: int) -> dict[str, Any]:
    return {
        "question": {
            "problem": f"Which? ({number})",
            "options": ["A. red", "B. blue"],
            "problem_type": "multiple choice",
            "video": f"clip{number}.mp4",
            "data_source": "own",
        },
        "ground_truth": "B",
        "model_output": "<think>It is blue.</think><answer>B</answer>",
        "accuracy_score": 1.0,
    }


def changed_answers(case: Case) -> int:
    """JSON Lines of answers: a row each, read or named; what was read can be written again."""
    draw = case.draw
    lines = [json.dumps(_answered(number)) for number in range(_NUM_ROWS)]
    place = draw.randrange(_NUM_ROWS)
    lines[place] = _changed_line(draw, _answered(place), lines[place])
    path = case.folder / "answers.jsonl"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape") + b"\n")
    try:
        found = read_predictions(path)
    except (ValueError, OSError) as error:
        promise("\n" not in str(error).strip(), f"more than a sentence: {str(error)[:200]}")
        promise(place == 0, f"one bad line refused a file of answers: {error}")
        return 1
    total = len(found.predictions) + len(found.unreadable)
    promise(total in {_NUM_ROWS, _NUM_ROWS - (not lines[place].strip())}, f"{total} outcomes")
    promise(len(found.predictions) >= _NUM_ROWS - 1, "a bad line cost another one")
    again = case.folder / "again.parquet"
    write_predictions(again, found.conditions, found.predictions)
    kept = [one.output for one in read_predictions(again).predictions]
    promise(kept == [one.output for one in found.predictions], "written and read, answers differ")
    return 1


def changed_parquet(case: Case) -> int:
    """Bytes of a predictions.parquet: answers or one sentence."""
    draw = case.draw
    path = case.folder / "answers.jsonl"
    path.write_text("\n".join(json.dumps(_answered(number)) for number in range(8)), "utf-8")
    whole = case.folder / "whole.parquet"
    found = read_predictions(path)
    write_predictions(whole, found.conditions, found.predictions)
    changed = case.folder / "changed.parquet"
    changed.write_bytes(mutated_bytes(draw, whole.read_bytes()))
    try:
        for one in read_predictions(changed).predictions:
            promise(one.output is None or isinstance(one.output, str), "no text")
    except (ValueError, OSError) as error:
        promise(bool(str(error).strip()), "a refusal without words")
    return 1


def run_predictions(case: Case) -> Counter[str]:
    """One file of predictions."""
    tries = (changed_answers, changed_answers, changed_parquet)
    return Counter({"prediction files": tries[case.number % len(tries)](case)})


@contextmanager
def open_questions(folder: Path) -> Iterator[Runner]:
    """Nothing to prepare."""
    yield run_questions


@contextmanager
def open_predictions(folder: Path) -> Iterator[Runner]:
    """Nothing to prepare."""
    yield run_predictions
