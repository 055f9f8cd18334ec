"""TRL's layout: chats of plain texts in Parquet, with the paths of their media beside them.

    rows = load_dataset("parquet", data_files="OUT/trl/*.parquet", split="train")
    rows[0]["messages"], rows[0]["videos"]

Paths are relative to the folder of the media, as in the dataset. There are no places of media in
the texts: TRL puts them in front of the first user's turn.

TRL's own `SFTTrainer` (1.16) reads `images` and no videos, and would train on a video's question
without the video: give it a collator that opens the files in `videos`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.exports.parquet_files import (
    PARQUET_NAMES,
    messages_schema,
    replaced_folder,
    write_parquet,
)
from pipeline.exports.rows import Exported, dataset_rows, tuning_messages
from schemas.ledger.ledger import Ledger


def export_trl(ledger: Ledger, out: Path) -> Exported:
    """Write `OUT/trl/*.parquet`: `messages`, and the paths of the media in `videos` and `images`.

    Contents are plain texts, because `datasets` would fill typed parts with nulls. The user's turn
    is the task prompt; the assistant's is the trace with the gold answer in place of the teacher's,
    as in `train.sft`. A media column exists only if some row has such media: with an empty `images`
    column TRL would treat a video dataset as an image dataset.
    Questions about a part of a file are left out and counted: a path names a whole one.
    """
    folder = out / "trl"
    num_clips = sum("spans" in row for row in dataset_rows(ledger))
    kinds = {kind for row in _whole_files(ledger) for kind in row["kinds"]}
    media_kinds = [kind for kind in ("video", "image") if kind in kinds]
    schema = messages_schema([f"{kind}s" for kind in media_kinds])
    rows = (_row(row, media_kinds) for row in _whole_files(ledger))
    with replaced_folder(folder, PARQUET_NAMES) as fresh:
        num_rows = write_parquet(rows, fresh, schema)
    return Exported(folder, num_rows, num_clips, "TRL reads whole files, they show a part of one")


def _whole_files(ledger: Ledger) -> Iterator[dict[str, Any]]:
    return (row for row in dataset_rows(ledger) if "spans" not in row)


def _row(row: Mapping[str, Any], media_kinds: Sequence[str]) -> dict[str, Any]:
    question, messages = tuning_messages(row)
    return {
        "messages": messages,
        **{
            f"{kind}s": [ref.path for ref in question.media if ref.kind == kind]
            for kind in media_kinds
        },
        "question_id": row["question_id"],
    }
