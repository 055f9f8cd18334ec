"""Rows of Parquet and Arrow files as plain dictionaries, a few at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

ARROW_SUFFIX = ".arrow"  # what `datasets` writes with save_to_disk


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

    is_arrow = path.suffix == ARROW_SUFFIX
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
