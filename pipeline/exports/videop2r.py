"""The layout of the VideoP2R release: gzip JSON lists with one path of a whole file per row."""

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.exports.parquet_files import ROWS_PER_FILE, replaced_folder
from pipeline.exports.rows import Exported, LeftOut, dataset_rows
from schemas.ledger.ledger import Ledger

VIDEOP2R_NAMES = "sft.part*of*.json.gz"
_WHY_NOT = "it has one path of a whole file per row, they have several or a part of one"


def export_videop2r(ledger: Ledger, out: Path, *, rows_per_part: int = ROWS_PER_FILE) -> Exported:
    """Write `OUT/videop2r/sft.part1of1.json.gz` and so on: gzip JSON lists as the release has them.

    `options` is a text that holds a JSON list, `process` keeps its think tags, `reward` is a number
    and `select` is true, because only selected rows are exported. `clean_version` is empty: its
    meaning was never published. The format has one `path` per row, a whole file, so questions with
    several files or with a part of one are left out and counted.
    """
    folder = out / "videop2r"
    left_out = LeftOut()

    def rows() -> Iterator[dict[str, Any]]:
        for row in dataset_rows(ledger):
            if len(row["paths"]) > 1 or "spans" in row:
                left_out.add(_WHY_NOT)
            else:
                yield _row(row)

    with replaced_folder(folder, VIDEOP2R_NAMES) as fresh:
        num_rows = _write_json_parts(rows(), fresh, rows_per_part)
    return Exported(folder, num_rows, left_out.number, left_out.why)


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
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
