"""Exports of the ledger: the dataset (Parquet), the VideoP2R release format, TRL's messages.

Each export streams the accepted questions in the order of the question file and replaces its folder
in one rename. Files hold content only, no times or paths: equal ledgers give equal bytes.
"""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from typing import Any

from cli.config import UsageError
from pipeline.parquet_files import (
    DATASET_SCHEMA,
    PARQUET_NAMES,
    ROWS_PER_FILE,
    holds_all,
    messages_schema,
    replaced_folder,
    write_parquet,
)
from schemas.dataset_rows import dataset_row, question_of_row
from schemas.ledger.ledger import Ledger
from schemas.prompting import task_prompt
from schemas.serialization import content_id
from schemas.traces import TEMPLATES, Trace, parse_trace, render_trace

_VIDEOP2R_NAMES = "sft.part*of*.json.gz"
_QUESTIONS_NAME = "questions.jsonl"
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


@dataclass(frozen=True)
class Exported:
    """What an export wrote. The format cannot express `num_left_out` rows."""

    folder: Path
    num_rows: int
    num_left_out: int = 0
    why_left_out: str = ""


def refuse_unwritable_outputs(out: Path) -> None:
    """Raise UsageError where something stands in the way of what a build writes into `out`.

    A link to a folder, for example on a larger disk, is fine.
    """
    for name in ("dataset", "pictures", *_FURTHER):
        path = out / name
        if (path.exists() or path.is_symlink()) and not path.is_dir():
            raise UsageError(
                f"{path} is no folder, and a build writes a folder there; move it away, or give"
                " another --output-dir"
            )
    for path in sorted((out / "dataset").glob("*.parquet")):
        if not path.match(PARQUET_NAMES):
            raise UsageError(
                f"{path} was written by no build, and would be read as rows of this one; move it"
                " away, or give another --output-dir"
            )
    for name in ("README.md", "progress.json", "cot.duckdb", "config.json"):
        if (out / name).is_dir():
            raise UsageError(
                f"{out / name} is a folder, and a build writes a file there; move it away, or give"
                " another --output-dir"
            )


def export_dataset(ledger: Ledger, out: Path, *, rows_per_file: int = ROWS_PER_FILE) -> Exported:
    """Write `OUT/dataset/*.parquet`: one row per accepted question, columns of `dataset_rows`.

    Files written from the same accepted rows are kept, so that resuming a finished build rewrites
    nothing.
    """
    folder = out / "dataset"
    num_rows, state = _accepted_state(ledger)
    notes = {"p2r.state": content_id("state", [_DATASET_FORMAT, rows_per_file, *state])}
    if not holds_all(folder, notes, num_rows):
        with replaced_folder(folder, PARQUET_NAMES) as fresh:
            num_rows = write_parquet(
                _dataset_rows(ledger),
                fresh,
                DATASET_SCHEMA,
                notes=notes,
                rows_per_file=rows_per_file,
            )
    return Exported(folder, num_rows)


def _accepted_state(ledger: Ledger) -> tuple[int, list[str]]:
    """The number of accepted rows, and one hash per table of their content."""
    ((num_rows,),) = ledger.query("SELECT count(*) FROM accepted")
    state = [ledger.query(_STATE.format(**part))[0][0] for part in _STATE_PARTS]
    ((marks,),) = ledger.query(_STATE.format(table="blind_marks", key="question_id"))
    if marks is not None:  # the state of datasets without marks stays what it was
        state.append(marks)
    return num_rows, state


def export_videop2r(ledger: Ledger, out: Path, *, rows_per_part: int = ROWS_PER_FILE) -> Exported:
    """Write `OUT/videop2r/sft.part1of1.json.gz` and so on: gzip JSON lists as the release has them.

    `options` is a text that holds a JSON list, `process` keeps its think tags, `reward` is a number
    and `select` is true, because only selected rows are exported. `clean_version` is empty: its
    meaning was never published. The format has one `path` per row, a whole file, so questions with
    several files or with a part of one are left out and counted.
    """
    folder = out / "videop2r"
    num_left_out = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal num_left_out
        for row in _dataset_rows(ledger):
            if len(row["paths"]) > 1 or "spans" in row:
                num_left_out += 1
            else:
                yield _videop2r_row(row)

    with replaced_folder(folder, _VIDEOP2R_NAMES) as fresh:
        num_rows = _write_json_parts(rows(), fresh, rows_per_part)
    return Exported(folder, num_rows, num_left_out, _WHY_NOT_VIDEOP2R)


def export_trl(ledger: Ledger, out: Path) -> Exported:
    """Write `OUT/trl/*.parquet`: `messages`, and the paths of the media in `videos` and `images`.

    Contents are plain texts, because `datasets` would fill typed parts with nulls. The user's turn
    is the task prompt; the assistant's is the trace with the gold answer in place of the teacher's,
    as in `train.sft`. A media column exists only if some row has such media: with an empty `images`
    column TRL would treat a video dataset as an image dataset.
    Questions about a part of a file are left out and counted: a path names a whole one.
    """
    folder = out / "trl"
    num_clips = sum("spans" in row for row in _dataset_rows(ledger))
    kinds = {kind for row in _whole_files(ledger) for kind in row["kinds"]}
    media_kinds = [kind for kind in ("video", "image") if kind in kinds]
    schema = messages_schema([f"{kind}s" for kind in media_kinds])
    rows = (_trl_row(row, media_kinds) for row in _whole_files(ledger))
    with replaced_folder(folder, PARQUET_NAMES) as fresh:
        num_rows = write_parquet(rows, fresh, schema)
    return Exported(folder, num_rows, num_clips, "TRL reads whole files, they show a part of one")


def export_questions(ledger: Ledger, out: Path) -> Exported:
    """Write `OUT/questions/questions.jsonl`: every question that could be read, in the order of the
    question file, with the mark `answerable_blind` of the text reader that was asked.

    `train.rl --questions` and `train.evaluate --questions` read it: RL needs the questions that
    gave no trace too.
    """
    folder = out / "questions"
    num_rows = 0
    with (
        replaced_folder(folder, _QUESTIONS_NAME) as fresh,
        (fresh / _QUESTIONS_NAME).open("w", encoding="utf-8") as file,
    ):
        for question in ledger.questions():
            row = question.model_dump(mode="json", exclude={"row"}, exclude_none=True)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            num_rows += 1
    return Exported(folder, num_rows)


def export_further(ledger: Ledger, out: Path, formats: Sequence[str]) -> list[str]:
    """Write `formats`, and update those that an earlier run wrote into `out`.

    Returns a sentence for each. A folder that was not requested and holds foreign files is left
    unchanged, and its sentence says so; one that was requested keeps them.
    """
    sentences = []
    for name, (export, pattern) in _FURTHER.items():
        folder = out / name
        entries = list(folder.iterdir()) if folder.is_dir() else []
        num_ours = sum(fnmatch(entry.name, pattern) for entry in entries)
        if name in formats or 0 < num_ours == len(entries):
            exported = export(ledger, out)
            sentence = f"{folder}: rows {exported.num_rows:,}"
            if exported.num_left_out:
                sentence += f", left out {exported.num_left_out:,}: {exported.why_left_out}"
            if name not in formats:
                sentence += " (an earlier run asked for this format)"
            sentences.append(sentence)
        elif num_ours:
            sentences.append(
                f"{folder} is of an earlier run and was not brought up to date, because it holds "
                f"files of others too; --export {name} brings it up to date"
            )
    return sentences


_WHY_NOT_VIDEOP2R = "it has one path of a whole file per row, they have several or a part of one"
# By folder: the function that writes it, and the names of its files.
_FURTHER: Mapping[str, tuple[Callable[[Ledger, Path], Exported], str]] = {
    "videop2r": (export_videop2r, _VIDEOP2R_NAMES),
    "trl": (export_trl, PARQUET_NAMES),
    "questions": (export_questions, _QUESTIONS_NAME),
}


def _dataset_rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
    return (dataset_row(sample) for sample in ledger.samples())


def _whole_files(ledger: Ledger) -> Iterator[dict[str, Any]]:
    return (row for row in _dataset_rows(ledger) if "spans" not in row)


def _videop2r_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "problem": row["problem"],
        "options": json.dumps(row["options"], ensure_ascii=False),
        "solution": row["solution"],
        "answer": row["answer"],
        "path": row["path"],
        "data_source": row["data_source"],
        "data_type": row["data_type"],
        "problem_type": row["problem_type"],
        "observation": row["observation"],
        "process": f"<think>{row['think']}</think>",
        "output": row["output"],
        "problem_id": row["problem_id"],
        "reward": row["reward"],
        "select": True,
        "clean_version": "",
    }


def _trl_row(row: Mapping[str, Any], media_kinds: list[str]) -> dict[str, Any]:
    question = question_of_row(row)
    prompt = task_prompt(question, num_frames=len(row["frame_indices"])).text
    trace = parse_trace(row["output"], TEMPLATES["p2r"])
    *texts, _ = trace.texts
    target = render_trace(Trace(trace.template, (*texts, question.solution)))
    return {
        "messages": [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": target},
        ],
        **{
            f"{kind}s": [ref.path for ref in question.media if ref.kind == kind]
            for kind in media_kinds
        },
        "question_id": row["question_id"],
    }


def _write_json_parts(rows: Iterable[dict[str, Any]], folder: Path, rows_per_part: int) -> int:
    iterator = iter(rows)
    num_rows = 0
    parts: list[Path] = []
    while True:
        part = folder / f"part-{len(parts) + 1}"
        num_in_part = _write_json_list(islice(iterator, rows_per_part), part)
        if num_in_part or not parts:
            parts.append(part)
        else:
            part.unlink()
        num_rows += num_in_part
        if num_in_part < rows_per_part:
            break
    for number, part in enumerate(parts, start=1):
        part.rename(folder / f"sft.part{number}of{len(parts)}.json.gz")
    return num_rows


def _write_json_list(rows: Iterable[dict[str, Any]], path: Path) -> int:
    """A gzip JSON list, one row per line; the gzip header holds neither file name nor time."""
    num_rows = 0
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        file.write(b"[")
        for row in rows:
            text = json.dumps(row, ensure_ascii=False, allow_nan=False)
            file.write((",\n" if num_rows else "\n").encode() + text.encode())
            num_rows += 1
        file.write(b"\n]\n")
    return num_rows
