"""Exports for our own commands: the dataset (Parquet), and the questions with their marks."""

import json
from pathlib import Path

from pipeline.exports.parquet_files import (
    DATASET_SCHEMA,
    PARQUET_NAMES,
    ROWS_PER_FILE,
    holds_all,
    replaced_folder,
    write_parquet,
)
from pipeline.exports.rows import Exported, dataset_rows
from schemas.ledger.ledger import Ledger
from schemas.serialization import content_id

QUESTIONS_NAME = "questions.jsonl"
_DATASET_FORMAT = 1  # raise it when the same ledger must give different rows
# `bit_xor` ignores the order of rows: each row holds its place in the file, or its key.
_STATE = """
SELECT bit_xor(md5_number_lower({table}::VARCHAR))::VARCHAR
FROM {table} SEMI JOIN accepted USING ({key})
"""
_STATE_PARTS = (
    {"table": "questions", "key": "question_id"},
    {"table": "attempts", "key": "question_id, draw"},
    {"table": "answer_checks", "key": "question_id, draw"},
    {"table": "sufficiency_verdicts", "key": "question_id, draw"},
)


def export_dataset(ledger: Ledger, out: Path, *, rows_per_file: int = ROWS_PER_FILE) -> Exported:
    """Write `OUT/dataset/*.parquet`: one row per accepted question, columns of `dataset_rows`.

    Files written from the same accepted rows are kept, so that resuming a finished build rewrites
    nothing.
    """
    folder = out / "dataset"
    num_rows, state = accepted_state(ledger)
    notes = {"p2r.state": content_id("state", [_DATASET_FORMAT, rows_per_file, *state])}
    if not holds_all(folder, notes, num_rows):
        with replaced_folder(folder, PARQUET_NAMES) as fresh:
            num_rows = write_parquet(
                dataset_rows(ledger),
                fresh,
                DATASET_SCHEMA,
                notes=notes,
                rows_per_file=rows_per_file,
            )
    return Exported(folder, num_rows)


def accepted_state(ledger: Ledger) -> tuple[int, list[str]]:
    """The number of accepted rows, and one hash per table of their content."""
    ((num_rows,),) = ledger.query("SELECT count(*) FROM accepted")
    state = [ledger.query(_STATE.format(**part))[0][0] for part in _STATE_PARTS]
    ((marks,),) = ledger.query(_STATE.format(table="blind_marks", key="question_id"))
    if marks is not None:  # the state of datasets without marks stays what it was
        state.append(marks)
    return num_rows, state


def export_questions(ledger: Ledger, out: Path) -> Exported:
    """Write `OUT/questions/questions.jsonl`: every question that could be read, in the order of the
    question file, with the mark `answerable_blind` of the text reader that was asked.

    `train.rl --questions` and `train.evaluate --questions` read it: RL needs the questions that
    gave no trace too.
    """
    folder = out / "questions"
    num_rows = 0
    with (
        replaced_folder(folder, QUESTIONS_NAME) as fresh,
        (fresh / QUESTIONS_NAME).open("w", encoding="utf-8") as file,
    ):
        for question in ledger.questions():
            row = question.model_dump(mode="json", exclude={"row"}, exclude_none=True)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            num_rows += 1
    return Exported(folder, num_rows)
