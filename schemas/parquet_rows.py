"""Parquet and Arrow files: which ones a folder holds, and their rows, a few at a time."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ARROW_SUFFIX = ".arrow"  # what `datasets` writes with save_to_disk
_PARQUET_MAGIC = b"PAR1"
_ARROW_MAGIC = b"\xff\xff\xff\xff"
_PART = re.compile(r"-\d{5}-of-\d{5}\Z")


def is_table(path: Path, start: bytes) -> bool:
    """Whether a file that begins with the bytes `start` is Parquet, or Arrow by its name too."""
    is_arrow = path.suffix == _ARROW_SUFFIX and start.startswith(_ARROW_MAGIC)
    return is_arrow or start.startswith(_PARQUET_MAGIC)


def tables_in(folder: Path) -> list[Path]:
    """The tables in a folder, `data/train-00000-of-00002.parquet` and so on, of one split.

    Raises ValueError where there is none, and where there are several splits.
    """
    found = {
        suffix: [path for path in folder.rglob(f"*{suffix}") if path.is_file()]
        for suffix in (".parquet", _ARROW_SUFFIX)
    }
    files = found[".parquet"] or found[_ARROW_SUFFIX]
    if not files:
        raise ValueError(
            f"{folder} is a directory: expected a question file, a pattern such as "
            f"{folder}/*.json, or a dataset folder with Parquet or Arrow files"
        )
    splits = {(path.parent, _PART.sub("", path.stem)) for path in files}
    if len(splits) > 1:
        names = sorted(f"{parent / name}*{files[0].suffix}" for parent, name in splits)
        raise ValueError(
            f"{folder} holds several tables; give one of them: {', '.join(names[:12])}"
        )
    return files


def parquet_columns(path: Path) -> list[str]:
    """The names of a Parquet file's columns. Raises ValueError for a file that is none."""
    import pyarrow as pa  # only who reads tables pays for it
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {_one_line(error)}") from None


def table_rows(path: Path, rows_at_once: int) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, or of an Arrow file where the name ends in `.arrow`.

    Memory holds `rows_at_once` rows. Raises ValueError where the file cannot be read (on).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    is_arrow = path.suffix == _ARROW_SUFFIX
    try:
        if is_arrow:
            with path.open("rb") as stream, pa.ipc.open_stream(stream) as batches:
                for batch in batches:
                    for start in range(0, batch.num_rows, rows_at_once):
                        yield from batch.slice(start, rows_at_once).to_pylist()
        else:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(rows_at_once):
                    yield from batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        kind = "Arrow" if is_arrow else "Parquet"
        raise ValueError(f"{path} cannot be read as {kind}: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
