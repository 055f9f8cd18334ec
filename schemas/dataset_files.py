"""Rows of built datasets: the Parquet files of a build, of its dataset folder, or files by name."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from schemas.ids import content_id

# The columns that everything else in a row can be made from again.
_NEEDED = ("question_id", "problem", "solution", "paths", "kinds", "problem_type", "output")
_CARD_ID = re.compile(r"^\| dataset id \| `([^`]+)` \|", re.MULTILINE)
_ROWS_AT_ONCE = 1024


def find_dataset_files(paths: Sequence[Path]) -> list[Path]:
    """The Parquet files that `paths` name, in order. Raises ValueError.

    A path is the output folder of a build, a folder of Parquet files, or one such file.
    """
    files: list[Path] = []
    for path in paths:
        folder = path / "dataset" if (path / "dataset").is_dir() else path
        found = [folder] if folder.is_file() else sorted(folder.glob("*.parquet"))
        if not found:
            raise ValueError(
                f"{path} holds no dataset: expected the output folder of a build, a folder of"
                " Parquet files, or a Parquet file"
            )
        files += found
    return files


def read_dataset_rows(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The rows of `files` as plain dictionaries, see `schemas.dataset_rows.COLUMNS`.

    Raises ValueError for a file that is no Parquet or has not the columns.
    """
    import pyarrow as pa  # only who reads datasets pays for it
    import pyarrow.parquet as pq

    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                missing = [name for name in _NEEDED if name not in file.schema_arrow.names]
                if missing:
                    raise ValueError(
                        f"{path} lacks the columns {', '.join(missing)}: expected a dataset that"
                        " pipeline.build_cot made"
                    )
                for batch in file.iter_batches(_ROWS_AT_ONCE):
                    yield from batch.to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path} cannot be read as Parquet: {error}") from None


def dataset_card_id(path: Path) -> str | None:
    """The dataset id in the card beside a dataset; None where there is no card that tells it."""
    folder = path if path.is_dir() else path.parent
    for card in (folder / "README.md", folder.parent / "README.md"):
        if card.is_file():
            found = _CARD_ID.search(card.read_text("utf-8"))
            if found:
                return found[1]
    return None


def rows_id(question_ids: Sequence[str], outputs: Sequence[str]) -> str:
    """Content id of rows in their order: what a run without a card is named by."""
    return content_id("rows", [list(question_ids), list(outputs)])
