"""Parquet files: their schemas, and folders written atomically and reproducibly."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.dataset_rows import COLUMNS
from schemas.serialization import canonical_json, content_id, digest

ROWS_PER_GROUP = 1_000
ROWS_PER_FILE = 100_000
PARQUET_NAMES = "train-*-of-*.parquet"
_ROWS_ID = "p2r.rows"


_TEXTS = pa.list_(pa.string())
_COLUMN_TYPES = {
    "options": _TEXTS,
    "answerable_blind": pa.bool_(),
    "blind_rate": pa.float64(),
    "reward": pa.float64(),
    "frame_indices": pa.list_(pa.int64()),
    "frame_times": pa.list_(pa.float64()),
    "paths": _TEXTS,
    "kinds": _TEXTS,
    "spans": pa.list_(pa.list_(pa.float64())),
    "time_clues": pa.list_(pa.list_(pa.float64())),
}
DATASET_SCHEMA = pa.schema(
    [pa.field(name, _COLUMN_TYPES.get(name, pa.string())) for name in COLUMNS]
)

_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
# As `datasets` stores its feature `Video`, which it recognises by the metadata.
VIDEO_SCHEMA = pa.schema(
    [
        pa.field("video", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        *DATASET_SCHEMA,
    ],
    metadata={"huggingface": json.dumps({"info": {"features": {"video": {"_type": "Video"}}}})},
)


def messages_schema(media_columns: Sequence[str]) -> pa.Schema:
    """Chat messages with plain texts, one list of paths per media column, and the question's id."""
    return pa.schema(
        [
            pa.field("messages", pa.list_(_MESSAGE)),
            *(pa.field(name, _TEXTS) for name in media_columns),
            pa.field("question_id", pa.string()),
        ]
    )


def verl_schema(media_kinds: Sequence[str], *, has_clips: bool) -> pa.Schema:
    """verl's prompts; videos with their frame settings, and where some are clips, with spans."""
    number = pa.float64()
    span = [("video_start", number), ("video_end", number)] if has_clips else []
    frames = [("fps", number), ("min_frames", pa.int64()), ("max_frames", pa.int64())]
    media = {
        "video": pa.struct([("video", pa.string()), *frames, *span]),
        "image": pa.struct([("image", pa.string())]),
    }
    gold = pa.struct([("style", pa.string()), ("ground_truth", pa.string())])
    origin = [("index", pa.int64()), ("question_id", pa.string()), ("question", pa.string())]
    return pa.schema(
        [
            pa.field("data_source", pa.string()),
            pa.field("prompt", pa.list_(_MESSAGE)),
            *(pa.field(f"{kind}s", pa.list_(media[kind])) for kind in media_kinds),
            pa.field("ability", pa.string()),
            pa.field("reward_model", gold),
            pa.field("extra_info", pa.struct(origin)),
        ]
    )


@contextmanager
def replaced_folder(folder: Path, ours: str | Sequence[str]) -> Iterator[Path]:
    """A new folder to write in; it replaces `folder` when the block ends without an error.

    `ours` are patterns of names that are replaced: whatever else lies in `folder` stays there.
    Where `folder` is a link, the folder that it leads to is replaced. Leftovers of an interrupted
    attempt are tidied up first.
    """
    patterns = (ours,) if isinstance(ours, str) else tuple(ours)
    folder = folder.resolve()
    fresh = folder.with_name(f".{folder.name}.new")
    former = folder.with_name(f".{folder.name}.old")
    if fresh.exists():
        shutil.rmtree(fresh)
    if former.exists():
        if folder.exists():
            _keep_others(former, folder, patterns)
        else:  # interrupted between the two renames
            former.rename(folder)
    fresh.mkdir(parents=True)
    try:
        yield fresh
    except BaseException:
        shutil.rmtree(fresh)
        raise
    if folder.exists():
        folder.rename(former)
    fresh.rename(folder)
    if former.exists():
        _keep_others(former, folder, patterns)


def _keep_others(former: Path, folder: Path, ours: Sequence[str]) -> None:
    """Move what is not `ours` from `former` into `folder`, and remove the rest."""
    for path in sorted(former.iterdir()):
        is_ours = any(path.match(pattern) for pattern in ours)
        if not is_ours and not (folder / path.name).exists():
            path.rename(folder / path.name)
    shutil.rmtree(former)


def write_parquet(
    rows: Iterable[Mapping[str, Any]],
    folder: Path,
    schema: pa.Schema,
    *,
    notes: Mapping[str, str] | None = None,
    rows_per_file: int = ROWS_PER_FILE,
    rows_per_group: int = ROWS_PER_GROUP,
    identity: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> int:
    """Write `rows` into the existing `folder` as `train-00000-of-00002.parquet` and so on.

    Memory holds one row group. Without rows there is one file with the schema alone. Each file's
    footer holds the `notes` and the content id of its rows, of each of which `identity` says what
    counts. Returns the number of rows.
    """
    iterator = iter(rows)
    num_rows = 0
    parts: list[Path] = []
    while True:
        part = folder / f"part-{len(parts):05d}"
        parts.append(part)
        row_digests: list[str] = []
        with pq.ParquetWriter(part, schema, compression="zstd") as writer:
            while len(row_digests) < rows_per_file:
                size = min(rows_per_group, rows_per_file - len(row_digests))
                group = list(islice(iterator, size))
                if not group:
                    break
                table = pa.Table.from_pylist(group, schema=schema)
                writer.write_table(table, row_group_size=rows_per_group)
                row_digests += [digest(canonical_json(identity(row)).encode()) for row in group]
            rows_id = content_id("rows", row_digests)
            writer.add_key_value_metadata({_ROWS_ID: rows_id, **(notes or {})})
        num_rows += len(row_digests)
        if len(row_digests) < rows_per_file:
            break
    if not row_digests and len(parts) > 1:
        parts.pop().unlink()
    for index, part in enumerate(parts):
        part.rename(folder / f"train-{index:05d}-of-{len(parts):05d}.parquet")
    return num_rows


def holds_all(folder: Path, notes: Mapping[str, str], num_rows: int) -> bool:
    """Whether `folder` is a complete export with these `notes` and `num_rows` rows."""
    found = 0
    for path in _files(folder):
        try:
            metadata = pq.read_metadata(path)
        except (pa.ArrowException, OSError):
            return False
        if any(_note(metadata, name) != text for name, text in notes.items()):
            return False
        found += metadata.num_rows
    return found == num_rows and bool(_files(folder))


def num_rows_of(folder: Path) -> int:
    """How many rows `write_parquet` wrote there."""
    return sum(pq.read_metadata(path).num_rows for path in _files(folder))


def rows_at(folder: Path, places: Sequence[int]) -> list[dict[str, Any]]:
    """The rows at ascending `places`, counted over all files; of each its row group is read."""
    found: list[dict[str, Any]] = []
    start = 0
    for path in _files(folder):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                if inside := [place - start for place in places if start <= place < end]:
                    found += file.read_row_group(group).take(inside).to_pylist()
                start = end
    return found


def dataset_id(folder: Path, settings: Mapping[str, Any]) -> str:
    """Content id of a dataset: all rows in order, and the settings that made them."""
    rows = [_note(pq.read_metadata(path), _ROWS_ID) for path in _files(folder)]
    return content_id("dataset", {"rows": rows, "settings": dict(settings)})


def count_words(folder: Path, column: str) -> list[int]:
    """Number of words in each row of a text column, split at white space."""
    texts = pc.utf8_trim_whitespace(_column(folder, column))
    words = pc.list_value_length(pc.utf8_split_whitespace(texts))
    counts: list[int] = pc.if_else(pc.equal(texts, ""), 0, words).to_pylist()
    return counts


def distinct(folder: Path, column: str) -> list[str]:
    """The sorted distinct values of a text column."""
    return sorted(pc.unique(_column(folder, column)).to_pylist())


def _files(folder: Path) -> list[Path]:
    """The files that `write_parquet` made; others may lie beside them."""
    return sorted(folder.glob(PARQUET_NAMES))


def _column(folder: Path, name: str) -> pa.ChunkedArray:
    paths = _files(folder)
    tables = [pq.read_table(path, columns=[name], partitioning=None) for path in paths]
    return pa.concat_tables(tables).column(name)


def _note(metadata: pq.FileMetaData, name: str) -> str | None:
    text = (metadata.metadata or {}).get(name.encode())
    return None if text is None else text.decode()
